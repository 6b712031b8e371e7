"""dLLM-Cache by hand: the blocks of a Llama-like decoder written out, one row at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class ByHand:
    """One row of a run.

    Args:
        module: a plain Qwen2 with full attention.
        prompt: columns of the prompt.
        prompt_every, response_every, share: of the cache.
    """

    module: Any
    prompt: int
    prompt_every: int
    response_every: int
    share: float
    step: int = 0
    held: dict[tuple[int, str], Tensor] = field(default_factory=dict)

    def logits(self, ids: Tensor) -> Tensor:
        """The logits of all columns at the next step: [position, vocab]."""
        model = self.module.model
        x = model.embed_tokens(ids)
        turn = model.rotary_emb(x[None], torch.arange(len(ids))[None])
        for number, layer in enumerate(model.layers):
            normed = layer.input_layernorm(x)
            columns = self.columns(number, layer.self_attn, normed)
            x = x + self.added(number, "attn", columns, self.attention(number, layer.self_attn, normed, columns, turn))
            moved = layer.mlp(layer.post_attention_layernorm(x)[columns])
            x = x + self.added(number, "mlp", columns, moved)
        self.step += 1
        return self.module.lm_head(model.norm(x))

    def columns(self, number: int, attention: Any, normed: Tensor) -> Tensor:
        """Which columns a block computes."""
        every = torch.arange(len(normed))
        prompt, response = every[: self.prompt], every[self.prompt :]
        whole = self.step % self.response_every == 0
        first = prompt if self.step % self.prompt_every == 0 else prompt[:0]
        if number == 0:
            return every
        if whole:
            return torch.cat([first, response])
        new = attention.v_proj(normed[self.prompt :])
        alike = torch.cosine_similarity(new, self.held[number, "v"][self.prompt :], dim=-1)
        chosen = alike.argsort(stable=True)[: int(len(response) * self.share)]
        self.held[number, "v"][self.prompt :] = new
        return torch.cat([first, response[chosen.sort().values]])

    def attention(self, number: int, attention: Any, normed: Tensor, columns: Tensor, turn: Any) -> Tensor:
        """What attention gives at the columns, of all keys."""
        own = normed[columns]
        self.added(number, "k", columns, attention.k_proj(own))
        self.added(number, "v", columns, attention.v_proj(own))
        each = attention.head_dim
        q = rotated(heads(attention.q_proj(own), each), *(part[0, columns] for part in turn))
        k = rotated(heads(self.held[number, "k"], each), *(part[0] for part in turn))
        v = heads(self.held[number, "v"], each)
        groups = len(q) // len(k)
        k, v = k.repeat_interleave(groups, 0), v.repeat_interleave(groups, 0)
        pattern = (q @ k.mT * each**-0.5).softmax(-1)
        return attention.o_proj((pattern @ v).transpose(0, 1).flatten(1))

    def added(self, number: int, name: str, columns: Tensor, value: Tensor) -> Tensor:
        """Keep a value at its columns; returns that of all of them."""
        if (number, name) not in self.held:
            self.held[number, name] = value.clone()
        self.held[number, name][columns] = value
        return self.held[number, name].clone()


def heads(value: Tensor, each: int) -> Tensor:
    """[position, heads side by side] -> [head, position, d_head]."""
    return value.unflatten(-1, (-1, each)).transpose(0, 1)


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Pairs of channels turned by their position's angles."""
    one, two = x.chunk(2, -1)
    return x * cos + torch.cat([-two, one], -1) * sin
