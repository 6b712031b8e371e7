"""Runs by hand: a sampler over a plain torch module with the shift spelled out, and greedy decoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import dlens
from dlens.samplers import Denoiser, Tokens, default_for
from tests.reference import left_padded, positions

PROMPTS = ["Once upon a time", "The little dog ran to the big red house and", "Question: Rose has 14 stars."]
NEW = 12
DECODED = 10
"""New tokens of a denoising run and of AR decoding."""


@dataclass
class PlainRun:
    """What a run by hand gives: canvases, logits as the module gave them, and the finished tokens."""

    canvases: list[Tensor]
    logits: list[Tensor]
    tokens: Tensor


def plain_run(
    model: dlens.Model,
    module: Any,
    sampler: Denoiser | None = None,
    prompts: Sequence[str] = PROMPTS,
    new: int = NEW,
    seed: int = 0,
) -> PlainRun:
    """Decode with `module`, a plain torch module, in the convention of `model`'s family."""
    sampler = sampler or default_for("diffusion", model.family.shift, model.family.block_length)  # type: ignore[assignment]
    assert isinstance(sampler, Denoiser)
    mask_id = model.family.mask_token_id
    assert mask_id is not None
    ids, mask = left_padded([model.tokenizer(text)["input_ids"] for text in prompts], model.pad_token_id)
    canvas = torch.cat([ids, torch.full((len(ids), new), mask_id)], dim=1)
    mask = torch.cat([mask, torch.ones(len(ids), new, dtype=torch.long)], dim=1)
    generated = canvas == mask_id
    run = PlainRun([], [], canvas)

    def forward(canvas: Tensor, unconditional: Tensor | None = None, columns: Any = slice(None)) -> Tensor:
        run.canvases.append(canvas.clone())
        both = canvas if unconditional is None else torch.cat([canvas, unconditional])
        twice = mask.repeat(len(both) // len(canvas), 1)
        padding = {} if bool(mask.all()) else {"attention_mask": twice, "position_ids": positions(twice)}
        logits = module(input_ids=both, use_cache=False, **padding).logits
        run.logits.append(logits[: len(canvas)].clone())
        if model.family.shift:
            logits = shifted(logits, twice)
        logits = logits[:, columns]
        return logits if unconditional is None else torch.stack(logits.chunk(2))

    generator = torch.Generator().manual_seed(seed)
    tokens = Tokens(mask_id, model.eos_token_id)
    with torch.no_grad():
        run.tokens = sampler.decode(
            forward,
            canvas,
            generated,
            new,
            tokens,
            lambda shape: torch.rand(tuple(shape), generator=generator, dtype=torch.float64),
        )
    return run


def shifted(logits: Tensor, mask: Tensor) -> Tensor:
    """Dream's shift row by row: the first real position keeps its own logits."""
    rows = []
    for row, own in zip(logits, mask, strict=True):
        start = int((own == 0).sum())
        rows.append(torch.cat([row[:start], row[start : start + 1], row[start:-1]]))
    return torch.stack(rows)


def masked_at(ids: Tensor, model: dlens.Model) -> Tensor:
    """[batch, position], where a mask stands."""
    return ids == model.family.mask_token_id


def greedy(model: dlens.Model, module: Any, **more: Any) -> Tensor:
    """The tokens of the prompts by transformers' own greedy decoding."""
    ids, mask = left_padded([model.tokenizer(text)["input_ids"] for text in PROMPTS], model.pad_token_id)
    arguments = {"max_new_tokens": DECODED, "do_sample": False, "pad_token_id": 0} | more
    return module.generate(input_ids=ids, attention_mask=mask, **arguments)
