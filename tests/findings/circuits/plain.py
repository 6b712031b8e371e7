"""GPT-2 in plain torch, written from its formulas, in which every reader of the stream has an input of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Wiring = Callable[[str, dict[str, Tensor], Tensor], Tensor]
"""From a reader, what was written before it and the biases so far, what it reads."""


def summed(reader: str, written: dict[str, Tensor], biases: Tensor) -> Tensor:
    """The residual stream."""
    return sum(written.values(), biases)


def forward(module: Any, embedded: Tensor, wiring: Wiring = summed) -> tuple[Tensor, dict[str, Tensor]]:
    """The logits and what each writer wrote."""
    gpt, config = module.transformer, module.config
    written, biases = {"embed": embedded}, torch.zeros_like(embedded)
    size = config.n_embd // config.n_head
    hidden = torch.ones(embedded.shape[1], embedded.shape[1]).triu(1).bool()
    for layer, block in enumerate(gpt.h):
        heads = {}
        for head in range(config.n_head):
            made = []
            for part, read in enumerate("qkv"):
                stream = norm(block.ln_1, wiring(f"a{layer}.h{head}<{read}>", written, biases))
                columns = slice(part * config.n_embd + head * size, part * config.n_embd + (head + 1) * size)
                made.append(stream @ block.attn.c_attn.weight[:, columns] + block.attn.c_attn.bias[columns])
            q, k, v = made
            scores = (q @ k.transpose(1, 2) / size**0.5).masked_fill(hidden, -torch.inf)
            heads[f"a{layer}.h{head}"] = (
                scores.softmax(-1) @ v @ block.attn.c_proj.weight[head * size : (head + 1) * size]
            )
        written, biases = written | heads, biases + block.attn.c_proj.bias
        stream = norm(block.ln_2, wiring(f"m{layer}", written, biases))
        neurons = F.gelu(stream @ block.mlp.c_fc.weight + block.mlp.c_fc.bias, approximate="tanh")
        written = written | {f"m{layer}": neurons @ block.mlp.c_proj.weight + block.mlp.c_proj.bias}
    return norm(gpt.ln_f, wiring("logits", written, biases)) @ gpt.wte.weight.T, written


def norm(layer: Any, stream: Tensor) -> Tensor:
    return F.layer_norm(stream, stream.shape[-1:], layer.weight, layer.bias, layer.eps)


def embedded(module: Any, ids: Any) -> Tensor:
    ids = torch.tensor(ids)
    return module.transformer.wte.weight[ids] + module.transformer.wpe.weight[: ids.shape[1]]


def difference(logits: Tensor, right: Any, wrong: Any) -> Tensor:
    """The metric of each row, at its last position."""
    rows = torch.arange(len(logits))
    return logits[rows, -1, list(right)] - logits[rows, -1, list(wrong)]


def scores(module: Any, pairs: Any, steps: int) -> dict[tuple[str, str], float]:
    """Edge attribution patching with gradients at probes that are added to what each reader reads."""
    clean, corrupted = (embedded(module, ids).detach() for ids in (pairs.clean, pairs.corrupted))
    with torch.no_grad():
        (_, own), (_, other) = (forward(module, stream) for stream in (clean, corrupted))
    found: dict[tuple[str, str], float] = {}
    for step in range(1, steps + 1):
        probes, before = {}, {}

        def probed(reader: str, written: dict[str, Tensor], biases: Tensor, p: Any = probes, b: Any = before) -> Tensor:
            p[reader] = torch.zeros_like(biases, requires_grad=True)
            b[reader] = tuple(written)
            return summed(reader, written, biases) + p[reader]

        logits, _ = forward(module, corrupted + (clean - corrupted) * step / steps, probed)
        asked = difference(logits, pairs.right, pairs.wrong).sum()
        slopes = dict(zip(probes, torch.autograd.grad(asked, list(probes.values())), strict=True))
        for reader, writers in before.items():
            for writer in writers:
                share = ((other[writer] - own[writer]) * slopes[reader]).sum() / steps / len(pairs)
                found[writer, reader] = found.get((writer, reader), 0.0) + float(share)
    return found


@torch.no_grad()
def rewired(module: Any, pairs: Any, kept: Callable[[str, str], bool]) -> Tensor:
    """The metric of each row where every edge that is not kept carries what it carries for the corrupted prompt."""
    streams: dict[str, Tensor] = {}

    def noted(reader: str, written: dict[str, Tensor], biases: Tensor) -> Tensor:
        streams[reader] = summed(reader, written, biases)
        return streams[reader]

    _, other = forward(module, embedded(module, pairs.corrupted), noted)

    def wired(reader: str, written: dict[str, Tensor], biases: Tensor) -> Tensor:
        own = [value - other[writer] for writer, value in written.items() if kept(writer, reader)]
        return sum(own, streams[reader])

    logits, _ = forward(module, embedded(module, pairs.clean), wired)
    return difference(logits, pairs.right, pairs.wrong)
