"""A small model with the contracts of LLaDA's remote code: module paths, return values, and what it lacks.

A block has no attention and no MLP module, and returns a pair. The model never calls `post_init`, its
`tie_weights` takes no arguments, and it reads a `use_cache` that its config may not have.
"""

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from .configuration_llada import LLaDAConfig


class RMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return self.weight * functional.rms_norm(x.float(), (x.shape[-1],), eps=1e-5).to(x.dtype)


class RotaryEmbedding(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config

    def angles(self, length, device):
        width = self.config.d_model // self.config.n_heads
        rates = self.config.rope_theta ** -(torch.arange(0, width, 2, device=device, dtype=torch.float) / width)
        angles = torch.arange(length, device=device, dtype=torch.float)[:, None] * rates
        return torch.cat((angles, angles), dim=-1)

    def turn(self, x, angles):
        one, two = x.unflatten(-1, (2, x.shape[-1] // 2)).unbind(-2)
        return (x * angles.cos() + torch.cat((-two, one), dim=-1) * angles.sin()).to(x.dtype)

    def forward(self, q, k):
        angles = self.angles(k.shape[-2], q.device)
        return self.turn(q.float(), angles).to(q.dtype), self.turn(k.float(), angles).to(k.dtype)


class LLaDALlamaBlock(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        width, key_width = config.d_model, config.d_model // config.n_heads * config.n_kv_heads
        self.attn_norm = RMSNorm(width)
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, key_width, bias=False)
        self.v_proj = nn.Linear(width, key_width, bias=False)
        self.rotary_emb = RotaryEmbedding(config)
        self.attn_out = nn.Linear(width, width, bias=False)
        self.ff_norm = RMSNorm(width)
        self.ff_proj = nn.Linear(width, config.mlp_hidden_size, bias=False)
        self.up_proj = nn.Linear(width, config.mlp_hidden_size, bias=False)
        self.act = nn.SiLU()
        self.ff_out = nn.Linear(config.mlp_hidden_size, width, bias=False)
        self.dropout = nn.Dropout(0.0)

    def attention(self, q, k, v, bias):
        batch, length, width = q.shape
        heads, key_heads, each = self.config.n_heads, self.config.n_kv_heads, width // self.config.n_heads
        q = q.view(batch, length, heads, each).transpose(1, 2)
        k = k.view(batch, length, key_heads, each).transpose(1, 2)
        v = v.view(batch, length, key_heads, each).transpose(1, 2)
        q, k = self.rotary_emb(q, k)
        k, v = (x.repeat_interleave(heads // key_heads, dim=1) for x in (k, v))
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=False)
        return self.attn_out(mixed.transpose(1, 2).reshape(batch, length, width))

    def forward(self, x, attention_bias=None, layer_past=None, use_cache=False):
        normed = self.attn_norm(x)
        q, k, v = self.q_proj(normed), self.k_proj(normed), self.v_proj(normed)
        x = x + self.dropout(self.attention(q, k, v, attention_bias))
        normed = self.ff_norm(x)
        x = x + self.dropout(self.ff_out(self.act(self.ff_proj(normed)) * self.up_proj(normed)))
        return x, None


class LLaDAModel(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        parts = {
            "wte": nn.Embedding(config.vocab_size, config.d_model),
            "emb_drop": nn.Dropout(0.0),
            "ln_f": RMSNorm(config.d_model),
            "blocks": nn.ModuleList(LLaDALlamaBlock(config) for _ in range(config.n_layers)),
        }
        if not config.weight_tying:
            parts["ff_out"] = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.transformer = nn.ModuleDict(parts)

    def forward(self, input_ids, attention_mask=None, use_cache=False):
        assert not use_cache, "no cache in masked diffusion"
        x = self.transformer.emb_drop(self.transformer.wte(input_ids))
        bias = None
        if self.config.hides_padding and attention_mask is not None and 0 in attention_mask:
            hidden = (1.0 - attention_mask.to(x.dtype)) * torch.finfo(x.dtype).min
            bias = hidden[:, None, None, :].expand(-1, 1, x.shape[1], -1)
        for block in self.transformer.blocks:
            x, _ = block(x, attention_bias=bias, use_cache=use_cache)
        x = self.transformer.ln_f(x)
        if self.config.weight_tying:
            return functional.linear(x, self.transformer.wte.weight)
        return self.transformer.ff_out(x)


class LLaDAModelLM(PreTrainedModel):
    config_class = LLaDAConfig
    base_model_prefix = "model"

    def __init__(self, config):
        super().__init__(config)
        self.model = LLaDAModel(config)

    def forward(self, input_ids=None, attention_mask=None, use_cache=None, return_dict=None):
        if use_cache is None:
            use_cache = self.config.use_cache
        return CausalLMOutputWithPast(logits=self.model(input_ids, attention_mask, use_cache))

    def _init_weights(self, module):
        pass

    def get_input_embeddings(self):
        return self.model.transformer.wte

    def get_output_embeddings(self):
        return self.model.transformer.wte if self.config.weight_tying else self.model.transformer.ff_out

    def tie_weights(self):
        pass
