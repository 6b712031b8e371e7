"""Small diffusion transformers with the contracts of BD3-LM's and MDLM's remote code.

Blocks and head are modulated by an embedding of the noise, which is zero without time conditioning; the embedding is a
parameter of a module of its own; nothing is padded; in sampling mode BD3-LM masks by the blocks of its config; no
`post_init` is called, and the mask is a plain attribute.
"""

import math

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.modeling_outputs import MaskedLMOutput

from .configuration_blocks import BD3LMConfig, MDLMConfig


class LayerNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return functional.layer_norm(x, x.shape[-1:]) * self.weight


class TimestepEmbedder(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(8, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t):
        angles = t[:, None] * torch.exp(-math.log(10000) * torch.arange(4) / 4).to(t)
        return self.mlp(torch.cat((angles.cos(), angles.sin()), dim=-1))


def turn(x):
    angles = torch.arange(x.shape[1])[:, None] / 10000 ** (torch.arange(0, x.shape[-1], 2) / x.shape[-1])
    angles = torch.cat((angles, angles), dim=-1)[:, None].to(x)
    one, two = x.chunk(2, dim=-1)
    return x * angles.cos() + torch.cat((-two, one), dim=-1) * angles.sin()


class DDiTBlock(nn.Module):
    def __init__(self, config):
        super().__init__()
        width = config.hidden_dim
        self.heads = config.n_heads
        self.norm1, self.norm2 = LayerNorm(width), LayerNorm(width)
        self.attn_qkv = nn.Linear(width, 3 * width, bias=False)
        self.attn_out = nn.Linear(width, width, bias=False)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(approximate="tanh"), nn.Linear(2 * width, width))
        self.adaln = config.adaln
        if self.adaln:
            self.adaLN_modulation = nn.Linear(config.cond_dim, 6 * width)

    def forward(self, x, c, mask=None):
        parts = self.adaLN_modulation(c)[:, None].chunk(6, dim=2) if self.adaln else (0, 0, 1, 0, 0, 1)
        qkv = self.attn_qkv(self.norm1(x) * (1 + parts[1]) + parts[0])
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).unbind(2)
        mixed = functional.scaled_dot_product_attention(
            *(part.transpose(1, 2) for part in (turn(q), turn(k), v)), attn_mask=mask
        )
        x = x + parts[2] * self.attn_out(mixed.transpose(1, 2).flatten(2))
        return x + parts[5] * self.mlp(self.norm2(x) * (1 + parts[4]) + parts[3])


class EmbeddingLayer(nn.Module):
    def __init__(self, width, vocab):
        super().__init__()
        self.embedding = nn.Parameter(torch.empty((vocab, width)))

    def forward(self, x):
        return self.embedding[x]


class DDitFinalLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.norm_final = LayerNorm(config.hidden_dim)
        self.linear = nn.Linear(config.hidden_dim, config.vocab_size)
        self.adaln = config.adaln
        if self.adaln:
            self.adaLN_modulation = nn.Linear(config.cond_dim, 2 * config.hidden_dim)

    def forward(self, x, c):
        x = self.norm_final(x)
        if self.adaln:
            shift, scale = self.adaLN_modulation(c)[:, None].chunk(2, dim=2)
            x = x * (1 + scale) + shift
        return self.linear(x)


class DITBackbone(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.vocab_embed = EmbeddingLayer(config.hidden_dim, config.vocab_size)
        self.sigma_map = TimestepEmbedder(config.cond_dim)
        self.blocks = nn.ModuleList(DDiTBlock(config) for _ in range(config.n_blocks))
        self.output_layer = DDitFinalLayer(config)

    def forward(self, indices, sigma, mask=None):
        x, c = self.vocab_embed(indices), functional.silu(self.sigma_map(sigma))
        for block in self.blocks:
            x = block(x, c, mask)
        return self.output_layer(x, c)


class MDLM(PreTrainedModel):
    config_class = MDLMConfig

    def __init__(self, config):
        super().__init__(config)
        self.backbone = DITBackbone(config)

    def forward(self, input_ids=None, timesteps=None, return_dict=None):
        return self.run(input_ids, timesteps, None)

    def run(self, input_ids, timesteps, mask):
        if not self.config.time_conditioning:
            timesteps = torch.zeros_like(timesteps)
        return MaskedLMOutput(logits=self.backbone(input_ids, timesteps, mask))


class BD3LM(MDLM):
    config_class = BD3LMConfig

    def __init__(self, config):
        super().__init__(config)
        block = torch.arange(config.model_length) // config.block_size
        self.backbone.mask = block[:, None] >= block

    def forward(self, input_ids=None, timesteps=None, sample_mode=None, return_dict=None):
        assert sample_mode, "training reads a noised half and a clean one"
        length = input_ids.shape[1]
        return self.run(input_ids, timesteps, self.backbone.mask[:length, :length])
