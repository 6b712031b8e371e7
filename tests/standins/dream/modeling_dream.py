"""A small model with the contracts of Dream's remote code: module paths, return values, and what breaks.

Its rotary rule comes from a table that no longer has it, and fills a buffer that no checkpoint holds; the tied
keys are a list; the generation config's `validate` takes no arguments; attention returns three values and a
block a tuple of one; the mask is "full" or four-dimensional.
"""

import torch
from torch import nn
from torch.nn import functional
from transformers import GenerationConfig, PreTrainedModel
from transformers.modeling_outputs import MaskedLMOutput
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from .configuration_dream import DreamConfig


class DreamGenerationConfig(GenerationConfig):
    def validate(self, is_init=False):
        pass


class DreamRMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return self.weight * functional.rms_norm(x.float(), (x.shape[-1],), eps=1e-6).to(x.dtype)


class DreamRotaryEmbedding(nn.Module):
    def __init__(self, config, device=None):
        super().__init__()
        self.rope_kwargs = {}
        self.rope_type = "default"
        self.config = config
        self.rope_init_fn = ROPE_INIT_FUNCTIONS[self.rope_type]
        inv_freq, self.attention_scaling = self.rope_init_fn(self.config, device, **self.rope_kwargs)
        self.register_buffer("inv_freq", inv_freq, persistent=False)
        self.original_inv_freq = self.inv_freq

    def forward(self, x, position_ids):
        angles = position_ids[..., None].float() * self.inv_freq.float()
        angles = torch.cat((angles, angles), dim=-1)[:, None]
        scale = self.attention_scaling
        return (angles.cos() * scale).to(x.dtype), (angles.sin() * scale).to(x.dtype)


def turn(x, cos, sin):
    one, two = x.unflatten(-1, (2, x.shape[-1] // 2)).unbind(-2)
    return x * cos + torch.cat((-two, one), dim=-1) * sin


class DreamAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads, self.key_heads = config.num_attention_heads, config.num_key_value_heads
        self.each = config.hidden_size // self.heads
        self.q_proj = nn.Linear(config.hidden_size, self.heads * self.each)
        self.k_proj = nn.Linear(config.hidden_size, self.key_heads * self.each)
        self.v_proj = nn.Linear(config.hidden_size, self.key_heads * self.each)
        self.o_proj = nn.Linear(self.heads * self.each, config.hidden_size, bias=False)
        self.rotary_emb = DreamRotaryEmbedding(config)
        self.is_causal = False

    def forward(self, hidden_states, attention_mask=None, position_embeddings=None):
        batch, length, _ = hidden_states.shape
        q = self.q_proj(hidden_states).view(batch, length, self.heads, self.each).transpose(1, 2)
        k = self.k_proj(hidden_states).view(batch, length, self.key_heads, self.each).transpose(1, 2)
        v = self.v_proj(hidden_states).view(batch, length, self.key_heads, self.each).transpose(1, 2)
        q, k = turn(q, *position_embeddings), turn(k, *position_embeddings)
        k, v = (x.repeat_interleave(self.heads // self.key_heads, dim=1) for x in (k, v))
        mask = attention_mask if isinstance(attention_mask, torch.Tensor) else None
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=False)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1)), None, None


class DreamMLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class DreamDecoderLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.self_attn = DreamAttention(config)
        self.mlp = DreamMLP(config)
        self.input_layernorm = DreamRMSNorm(config.hidden_size)
        self.post_attention_layernorm = DreamRMSNorm(config.hidden_size)

    def forward(self, hidden_states, attention_mask=None, position_embeddings=None):
        attended, _, _ = self.self_attn(
            hidden_states=self.input_layernorm(hidden_states),
            attention_mask=attention_mask,
            position_embeddings=position_embeddings,
        )
        hidden_states = hidden_states + attended
        return (hidden_states + self.mlp(self.post_attention_layernorm(hidden_states)),)


class DreamPreTrainedModel(PreTrainedModel):
    config_class = DreamConfig
    base_model_prefix = "model"

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            module.weight.data.normal_(std=0.02)

    @classmethod
    def from_pretrained(cls, folder, *args, **kwargs):
        model = super().from_pretrained(folder, *args, **kwargs)
        model.generation_config = DreamGenerationConfig.from_pretrained(folder)
        return model


class DreamBaseModel(DreamPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.layers = nn.ModuleList(DreamDecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = DreamRMSNorm(config.hidden_size)
        self.rotary_emb = DreamRotaryEmbedding(config)
        self.post_init()

    def forward(self, input_ids, attention_mask=None, position_ids=None):
        hidden_states = self.embed_tokens(input_ids)
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        positions = self.rotary_emb(hidden_states, position_ids)
        for layer in self.layers:
            hidden_states = layer(hidden_states, attention_mask=attention_mask, position_embeddings=positions)[0]
        return self.norm(hidden_states)


class DreamModel(DreamPreTrainedModel):
    _tied_weights_keys = ["lm_head.weight"]

    def __init__(self, config):
        super().__init__(config)
        self.model = DreamBaseModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, use_cache=None, return_dict=None):
        if isinstance(attention_mask, torch.Tensor):
            attention_mask = attention_mask if attention_mask.dim() == 4 else attention_mask[:, None, None].bool()
        return MaskedLMOutput(logits=self.lm_head(self.model(input_ids, attention_mask, position_ids)))
