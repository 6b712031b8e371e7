"""The size of a run, from its prompts, its tokens and its sampler."""

from __future__ import annotations

from typing import Any

from dlens.checks import quoted, whole
from dlens.models.model import Model
from dlens.ops.base.target import RunShape
from dlens.samplers import Sampler
from dlens.tracing.planning.inputs import Batch

__all__ = ["run_shape"]

# More than any run takes: plans are kept step by step.
_MOST_STEPS = 10**6


def run_shape(model: Model, batch: Batch, new_tokens: int = 0, sampler: Sampler | None = None) -> RunShape:
    """The size of a run: a forward without a sampler, else a generation.

    Raises:
        ValueError: the sampler does not fit the number of tokens, or plans no number of steps.
    """
    rows, width = batch.ids.shape
    if sampler is None:
        return RunShape("forward", 1, rows, width, width)
    if model.family.objective == "autoregressive":
        n_steps = _steps(sampler, sampler.planned_steps(new_tokens))
        return RunShape("decoding", n_steps, rows, width + new_tokens - 1, width)
    held = ((batch.ids == model.family.mask_token_id) & batch.real).sum(-1)
    n_steps = _steps(sampler, sampler.planned_steps(new_tokens, int(held.max())))
    return RunShape("denoising", n_steps, rows, width + new_tokens, width)


def _steps(sampler: Sampler, planned: Any) -> int:
    number = whole(planned)
    if number is None or not 1 <= number <= _MOST_STEPS:
        raise ValueError(
            f"{type(sampler).__name__}.planned_steps returned {quoted(planned)}; expected a whole number from 1 to "
            f"{_MOST_STEPS}; return the most forwards that decode makes"
        )
    return number
