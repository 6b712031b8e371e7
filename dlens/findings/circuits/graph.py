"""The nodes of a circuit and the edges between them: who writes to the residual stream, and who reads it after."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, final

import torch
from jaxtyping import Bool
from torch import Tensor

from dlens.models.model import Model

__all__ = ["HEAD_READS", "Graph", "HeadRead", "graph_of"]

HeadRead = Literal["q", "k", "v"]
HEAD_READS: tuple[HeadRead, ...] = ("q", "k", "v")


@final
@dataclass(frozen=True)
class Graph:
    """Writers are what enters the first block ("embed"), each head ("a3.h1") and each MLP ("m3").

    Readers are the queries, keys and values of each head ("a3.h1<q>"), each MLP ("m3") and the logits, which read what
    leaves the last block. Where several heads share keys and values, an edge enters the shared head ("a3.kv0<k>").
    There is an edge from a writer to every reader that comes after it, in the order of the lists.

    Args:
        n_layers: blocks.
        n_heads: heads of a block.
        n_kv_heads: heads of keys and values of a block.

    Examples:
        >>> graph = Graph(n_layers=1, n_heads=2, n_kv_heads=1)
        >>> graph.writers
        ('embed', 'a0.h0', 'a0.h1', 'm0')
        >>> graph.readers
        ('a0.h0<q>', 'a0.h1<q>', 'a0.kv0<k>', 'a0.kv0<v>', 'm0', 'logits')
        >>> graph.n_edges
        11
    """

    n_layers: int
    n_heads: int
    n_kv_heads: int

    @cached_property
    def writers(self) -> tuple[str, ...]:
        """In the order in which they write."""
        names = ["embed"]
        for layer in range(self.n_layers):
            names += [*(f"a{layer}.h{head}" for head in range(self.n_heads)), f"m{layer}"]
        return tuple(names)

    @cached_property
    def readers(self) -> tuple[str, ...]:
        """In the order in which they read."""
        names, kv = [], "h" if self.n_kv_heads == self.n_heads else "kv"
        for layer in range(self.n_layers):
            names += [f"a{layer}.h{head}<q>" for head in range(self.n_heads)]
            names += [f"a{layer}.{kv}{head}<{read}>" for read in HEAD_READS[1:] for head in range(self.n_kv_heads)]
            names.append(f"m{layer}")
        return (*names, "logits")

    @cached_property
    def exists(self) -> Bool[Tensor, "writer reader"]:
        """Whether a writer comes before a reader."""
        found = torch.zeros(len(self.writers), len(self.readers), dtype=torch.bool)
        for layer in range(self.n_layers):
            for read in HEAD_READS:
                found[: self.before_heads(layer), self.heads(layer, read)] = True
            found[: self.before_mlp(layer), self.mlp(layer)] = True
        found[:, -1] = True
        return found

    @property
    def n_edges(self) -> int:
        """How many there are."""
        return int(self.exists.sum())

    def before_heads(self, layer: int) -> int:
        """How many writers the heads of a layer read from; the heads of that layer are those that follow."""
        return 1 + layer * (self.n_heads + 1)

    def before_mlp(self, layer: int) -> int:
        """How many writers an MLP reads from; the writer that follows is that MLP."""
        return self.before_heads(layer) + self.n_heads

    def heads(self, layer: int, read: HeadRead) -> slice:
        """The readers that are the heads of a layer."""
        start = layer * (self.n_heads + 2 * self.n_kv_heads + 1)
        if read == "q":
            return slice(start, start + self.n_heads)
        start += self.n_heads + (self.n_kv_heads if read == "v" else 0)
        return slice(start, start + self.n_kv_heads)

    def mlp(self, layer: int) -> int:
        """The reader that is the MLP of a layer."""
        return self.heads(layer, "v").stop


def graph_of(model: Model) -> Graph:
    """The graph of a model's heads and MLPs."""
    return Graph(model.n_layers, model.n_heads, model.n_kv_heads)
