"""What both papers ask, of one checkpoint: `python -m recipes.trio.effects runs/ar/model --out effects/ar.json`.

Keeps what came of every text and every problem, so that intervals can be drawn from the file alone.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import tyro
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from dlens import Model, Trace, trace
from dlens.findings.effects.change import equal_energy
from dlens.findings.scores.batches import mask_share, rng
from dlens.tasks import names
from recipes.trio.numbers import accuracy, validation_texts
from recipes.trio.score import BLOCK, load_exact, sampler_of

__all__ = ["SAMPLERS", "SKIPS", "effects"]

# Three blocks of sixteen around the same middle, in each third of what lies between the first and the last block.
SKIPS: Mapping[str, tuple[int, ...]] = {
    "early consecutive": (2, 3, 4),
    "early non-adjacent": (1, 3, 5),
    "middle consecutive": (7, 8, 9),
    "middle non-adjacent": (6, 8, 10),
    "late consecutive": (11, 12, 13),
    "late non-adjacent": (10, 12, 14),
}
# Tokens a step and length of a block.
SAMPLERS: Mapping[str, tuple[int, int]] = {
    "two tokens a step": (2, BLOCK),
    "blocks of 32": (1, 32),
    "blocks of 32, two tokens a step": (2, 32),
}
_MASK_RATES = (0.0, 0.5, 0.9)
_TEXTS = 16
_RANDOM_CHANNELS = 5


def effects(checkpoint: str, /, data: Path, out: Path, problems: int = 500, seed: int = 0) -> None:
    """Measure one checkpoint.

    Args:
        checkpoint: anything `dlens.load` takes.
        data: the folder that `prepare` wrote, for the held-out texts.
        out: file to write.
        problems: of each task.
        seed: of the problems, the masks and the random channels.
    """
    model = load_exact(checkpoint)
    depth = {str(rate): _depth(model, data, rate, seed) for rate in _rates(model)}
    channels = _channels(depth["0.0"]["share"], seed)
    variants = _variants(model, channels)
    solved = {name: _solved(variant, problems, seed, (1, BLOCK)) for name, variant in variants.items()}
    if model.family.objective == "diffusion":
        solved |= {name: _solved(trace(model), problems, seed, how) for name, how in SAMPLERS.items()}
    found = {"family": model.family.name, "channels": channels, "depth": depth, "solved": solved}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found) + "\n")


def _rates(model: Model) -> Sequence[float]:
    return _MASK_RATES if model.family.objective == "diffusion" else (0.0,)


def _solved(tracer: Trace, problems: int, seed: int, how: tuple[int, int]) -> dict[str, str]:
    """For each task, a digit a problem: 1 where it was solved."""
    solved = {}
    for task in names():
        sampler = sampler_of(tracer.model, task, *how)
        solved[task] = "".join("01"[right] for right in accuracy(tracer, task, problems, seed, sampler))
    return solved


def _depth(model: Model, data: Path, rate: float, seed: int) -> dict[str, Any]:
    """Cosine of what enters and leaves each block, and the channels' energy shares, text by text."""
    generator = rng(seed)
    texts = [ids for group in validation_texts(model, data, _TEXTS).values() for ids in group]
    if rate > 0:
        assert model.family.mask_token_id is not None
        texts = [mask_share(ids, rate, model.family.mask_token_id, generator) for ids in texts]
    cosines, energies = zip(*(_text_depth(model, ids) for ids in texts), strict=True)
    energy = torch.stack(energies)
    share = energy / energy.sum(-1, keepdim=True)
    pooled = energy.sum(0) / energy.sum((0, 2))[:, None]
    top = pooled.argmax(-1)
    return {
        "cosine": _rounded(torch.stack(cosines)),
        "top_channel": top.tolist(),
        "top_share": _rounded(share[:, torch.arange(len(top)), top]),
        "share": _rounded(pooled),
    }


def _text_depth(model: Model, ids: list[int]) -> tuple[Float[Tensor, " layer"], Float[Tensor, "layer d_model"]]:
    record = trace(model).capture("resid_pre", "resid_post").forward([ids])
    pre, post = record["resid_pre"][:, 0].double(), record["resid_post"][:, 0].double()
    cosine = torch.nn.functional.cosine_similarity(pre, post, dim=-1).mean(-1)
    return cosine, einsum(post, post, "layer position d_model, layer position d_model -> layer d_model")


def _rounded(values: Tensor) -> list[Any]:
    return torch.round(values, decimals=5).tolist()


def _channels(share: list[list[float]], seed: int) -> dict[str, list[int]]:
    """The channel with the largest share over all blocks but the last; the next largest that hold as much together."""
    mean = torch.tensor(share)[:-1].mean(0)
    first = int(mean.argmax())
    others = [channel for channel in range(len(mean)) if channel != first]
    random_ones = random.Random(seed).sample(others, _RANDOM_CHANNELS)
    return {"top": [first], "next": list(equal_energy(mean, first)), "random": random_ones}


def _variants(model: Model, channels: Mapping[str, list[int]]) -> dict[str, Trace]:
    """The model with each operation, by name."""
    plain = trace(model)
    layers = range(model.n_layers - 1)
    sets = {"top channel": channels["top"], "next channels": channels["next"]}
    sets |= {f"random channel {channel}": [channel] for channel in channels["random"]}
    variants = {"none": plain}
    for name, chosen in ((name, chosen) for name, chosen in sets.items() if chosen):
        variants[f"zero {name}"] = plain.ablate(layers, chosen, "zero")
        variants[f"mean {name}"] = plain.ablate(layers, chosen, "mean")
    return variants | {
        f"skip {name}": plain.skip(blocks) for name, blocks in SKIPS.items() if max(blocks) < model.n_layers
    }


if __name__ == "__main__":
    tyro.cli(effects)
