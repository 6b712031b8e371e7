"""The size of a run, known before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dlens.models.model import Model
from dlens.samplers import Sampler
from dlens.tracing.planning.inputs import Batch

__all__ = ["RunKind", "RunShape", "run_shape"]

RunKind = Literal["forward", "denoising", "decoding"]


@dataclass(frozen=True)
class RunShape:
    """The size of a run, known before it starts.

    Args:
        kind: a forward, a denoising run, or AR decoding.
        n_steps: planned steps.
        batch: rows.
        width: positions that are computed: for AR decoding one less than there are tokens.
        prompt_width: positions of the prompts.
    """

    kind: RunKind
    n_steps: int
    batch: int
    width: int
    prompt_width: int


def run_shape(model: Model, batch: Batch, new_tokens: int = 0, sampler: Sampler | None = None) -> RunShape:
    """The size of a run: a forward without a sampler, else a generation.

    Raises:
        ValueError: the sampler does not fit the number of tokens.
    """
    rows, width = batch.ids.shape
    if sampler is None:
        return RunShape("forward", 1, rows, width, width)
    if model.family.objective == "autoregressive":
        return RunShape("decoding", sampler.planned_steps(new_tokens), rows, width + new_tokens - 1, width)
    held = ((batch.ids == model.family.mask_token_id) & batch.real).sum(-1)
    n_steps = sampler.planned_steps(new_tokens, int(held.max()))
    return RunShape("denoising", n_steps, rows, width + new_tokens, width)
