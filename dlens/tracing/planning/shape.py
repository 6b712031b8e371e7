"""The size of a run, from its prompts, its tokens and its sampler."""

from __future__ import annotations

from dlens.models.model import Model
from dlens.ops.base.target import RunShape
from dlens.samplers import Sampler
from dlens.tracing.planning.inputs import Batch

__all__ = ["run_shape"]


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
