"""Small models with the contracts of block diffusion's remote code: module paths, arguments, return values.

Names that transformers 5 dropped and flash_attn are imported; a rotary rule comes from a table that has it no longer;
LLaDA2 rotates half of each head, fuses queries, keys and values, and has plain MLPs before experts; SDAR takes a mask
as it is; Fast-dLLM v2 makes its own by the block size that it is told; LLaDA-MoE makes one of the padding; RND1 names a
class without a head, too.
"""

import torch
from flash_attn.ops.triton.layer_norm import rms_norm_fn
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.cache_utils import SlidingWindowCache  # noqa: F401
from transformers.modeling_flash_attention_utils import FlashAttentionKwargs
from transformers.modeling_outputs import MaskedLMOutput
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.utils import LossKwargs
from transformers.utils.import_utils import is_torch_fx_available

from .configuration_blocks import BlocksConfig

if is_torch_fx_available():
    raise ImportError("torch.fx is not what this is about")


class KwargsForCausalLM(FlashAttentionKwargs, LossKwargs):
    pass


class RMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return rms_norm_fn(x, self.weight, None, eps=1e-6)


class RotaryEmbedding(nn.Module):
    def __init__(self, config, device=None):
        super().__init__()
        self.rope_type = "default"
        self.config = config
        self.rope_init_fn = ROPE_INIT_FUNCTIONS[self.rope_type]
        inv_freq, self.attention_scaling = self.rope_init_fn(self.config, device)
        self.register_buffer("inv_freq", inv_freq, persistent=False)
        self.original_inv_freq = self.inv_freq

    def forward(self, x, position_ids):
        angles = position_ids[..., None].float() * self.inv_freq.float()
        angles = torch.cat((angles, angles), dim=-1)[:, None]
        return angles.cos().to(x.dtype), angles.sin().to(x.dtype)


def turn(x, cos, sin):
    turned, kept = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    one, two = turned.chunk(2, dim=-1)
    return torch.cat((turned * cos + torch.cat((-two, one), dim=-1) * sin, kept), dim=-1)


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads, self.key_heads, self.each = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        self.is_causal = True
        self.project(config)

    def project(self, config):
        self.q_proj = nn.Linear(config.hidden_size, self.heads * self.each)
        self.k_proj = nn.Linear(config.hidden_size, self.key_heads * self.each)
        self.v_proj = nn.Linear(config.hidden_size, self.key_heads * self.each)
        self.o_proj = nn.Linear(self.heads * self.each, config.hidden_size, bias=False)

    def projected(self, x):
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)

    def out(self, mixed):
        return self.o_proj(mixed)

    def mixed(self, x, attention_mask, position_embeddings):
        q, k, v = (part.unflatten(-1, (-1, self.each)).transpose(1, 2) for part in self.projected(x))
        q, k = turn(q, *position_embeddings), turn(k, *position_embeddings)
        k, v = (part.repeat_interleave(self.heads // self.key_heads, dim=1) for part in (k, v))
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=attention_mask)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def forward(self, hidden_states, attention_mask=None, position_embeddings=None):
        return self.mixed(hidden_states, attention_mask, position_embeddings), None


class AttentionOfThree(Attention):
    def forward(self, hidden_states, attention_mask=None, position_embeddings=None):
        return self.mixed(hidden_states, attention_mask, position_embeddings), None, None


class FusedAttention(AttentionOfThree):
    def project(self, config):
        self.query_key_value = nn.Linear(config.hidden_size, (self.heads + 2 * self.key_heads) * self.each, bias=False)
        self.dense = nn.Linear(self.heads * self.each, config.hidden_size)

    def projected(self, x):
        sizes = [self.heads * self.each, self.key_heads * self.each, self.key_heads * self.each]
        return self.query_key_value(x).split(sizes, dim=-1)

    def out(self, mixed):
        return self.dense(mixed)


class BareAttention(Attention):
    def forward(self, hidden_states, attention_mask=None, position_embeddings=None):
        return self.mixed(hidden_states, attention_mask, position_embeddings)


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Experts(nn.Module):
    tells_routing = True

    def __init__(self, config):
        super().__init__()
        self.gate = nn.Linear(config.hidden_size, config.num_experts, bias=False)
        self.experts = nn.ModuleList(MLP(config) for _ in range(config.num_experts))

    def forward(self, x):
        routing = self.gate(x).softmax(-1)
        best = routing.argmax(-1, keepdim=True)
        mixed = sum(
            torch.where(best == number, routing[..., number, None], 0) * expert(x)
            for number, expert in enumerate(self.experts)
        )
        return (mixed, routing) if self.tells_routing else mixed


class SilentExperts(Experts):
    tells_routing = False


class Layer(nn.Module):
    attention_kind, mlp_kind, name, spelled = Attention, MLP, "self_attn", 1

    def __init__(self, config, number):
        super().__init__()
        setattr(self, self.name, self.attention_kind(config))
        self.mlp = self.mlp_of(config, number)
        self.input_layernorm = RMSNorm(config.hidden_size)
        self.post_attention_layernorm = RMSNorm(config.hidden_size)

    def mlp_of(self, config, number):
        return self.mlp_kind(config)

    def forward(self, hidden_states, attention_mask=None, position_embeddings=None):
        attended = getattr(self, self.name)(
            hidden_states=self.input_layernorm(hidden_states),
            attention_mask=attention_mask,
            position_embeddings=position_embeddings,
        )
        hidden_states = hidden_states + (attended[0] if isinstance(attended, tuple) else attended)
        added = self.mlp(self.post_attention_layernorm(hidden_states))
        hidden_states = hidden_states + (added[0] if isinstance(added, tuple) else added)
        return hidden_states if self.spelled is None else (hidden_states, *[None] * (self.spelled - 1))


class LLaDA2Layer(Layer):
    attention_kind, mlp_kind, name = FusedAttention, Experts, "attention"

    def mlp_of(self, config, number):
        return MLP(config) if number < config.first_k_dense_replace else Experts(config)


class FastLayer(Layer):
    attention_kind, spelled = BareAttention, None


class LLaDAMoELayer(Layer):
    attention_kind, mlp_kind = AttentionOfThree, SilentExperts


class RND1Layer(Layer):
    mlp_kind, spelled = Experts, 2


class BlocksPreTrainedModel(PreTrainedModel):
    config_class = BlocksConfig
    base_model_prefix = "model"

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            module.weight.data.normal_(std=0.02)


class BlocksModel(BlocksPreTrainedModel):
    layer, embed = Layer, "embed_tokens"

    def __init__(self, config):
        super().__init__(config)
        setattr(self, self.embed, nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id))
        self.layers = nn.ModuleList(self.layer(config, number) for number in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size)
        self.rotary_emb = RotaryEmbedding(config)
        self.post_init()

    def forward(self, input_ids, attention_mask=None, position_ids=None):
        hidden_states = getattr(self, self.embed)(input_ids)
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        positions = self.rotary_emb(hidden_states, position_ids)
        for layer in self.layers:
            hidden_states = layer(hidden_states, attention_mask=attention_mask, position_embeddings=positions)
            hidden_states = hidden_states[0] if isinstance(hidden_states, tuple) else hidden_states
        return self.norm(hidden_states)


class LLaDA2Model(BlocksModel):
    layer, embed = LLaDA2Layer, "word_embeddings"


class FastModel(BlocksModel):
    layer = FastLayer


class LLaDAMoEModel(BlocksModel):
    layer = LLaDAMoELayer


class RND1Model(BlocksModel):
    layer = RND1Layer


class SDARForCausalLM(BlocksPreTrainedModel):
    base = BlocksModel
    _tied_weights_keys = ["lm_head.weight"]

    def __init__(self, config):
        super().__init__(config)
        self.model = self.base(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, use_cache=None):
        assert torch.all(attention_mask) or attention_mask.dim() == 4
        return MaskedLMOutput(logits=self.lm_head(self.model(input_ids, attention_mask, position_ids)))


class LLaDA2MoeModelLM(SDARForCausalLM):
    base = LLaDA2Model


class Fast_dLLM_QwenForCausalLM(SDARForCausalLM):
    base = FastModel

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, use_cache=None, block_size=32):
        block = torch.arange(input_ids.shape[1]) // block_size
        return MaskedLMOutput(logits=self.lm_head(self.model(input_ids, block[:, None] >= block, position_ids)))


class LLaDAMoEModelLM(SDARForCausalLM):
    base = LLaDAMoEModel

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, use_cache=None):
        mask = None if attention_mask is None else attention_mask[:, None, None].bool()
        return MaskedLMOutput(logits=self.lm_head(self.model(input_ids, mask, position_ids)))


class RND1LM(SDARForCausalLM):
    base = RND1Model

    def forward(self, input_ids=None, attention_mask=None, position_ids=None):
        return MaskedLMOutput(logits=self.lm_head(self.model(input_ids, attention_mask, position_ids)))
