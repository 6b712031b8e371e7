"""How far a cache moves the stream of a denoising run, with and without blocks skipped, on the same canvases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

import dlens
from dlens.findings.scores.estimate import mean_curve
from dlens.findings.study.study import plain
from dlens.samplers import Denoiser, Draw, Forward, LLaDA, Tokens
from dlens.tracing.planning.kv_cache import Caching

__all__ = ["STATES", "Again", "moved"]

STATES: tuple[str, ...] = ("prompt", "decoded", "masked")
_BATCH = 8
Stream = Float[Tensor, "step layer batch position d_model"]
Alike = Float[Tensor, "step layer batch position"]
Places = Bool[Tensor, "step batch position"]


@final
@dataclass(frozen=True, eq=False)
class Again(Denoiser):
    """The canvases of another run once more, step by step, whatever the model says.

    Args:
        canvases: what goes into each step; all rows are in the same block.
        blocks: the columns of the block that each step is in.
    """

    canvases: Int[Tensor, "step batch position"]
    blocks: Int[Tensor, "step column"]

    def planned_steps(self, max_new_tokens: int, infill: int = 0) -> int:
        return len(self.canvases)

    def decode(self, forward: Forward, canvas: Any, generated: Any, new_tokens: int, tokens: Tokens, draw: Draw) -> Any:
        for shown, columns in zip(self.canvases, self.blocks, strict=True):
            forward(shown, columns=columns)
        return self.canvases[-1]


@final
@dataclass(frozen=True, eq=False)
class Run:
    """A run without a cache: its canvases, and what stands in them.

    Args:
        ids: the prompts, of one length.
        again: its canvases.
        deciding: the places whose logits decide the masks of the block.
        states: what each place is, by `STATES`.
    """

    ids: list[list[int]]
    again: Again
    deciding: Places
    states: Mapping[str, Places]

    def stream(self, trace: dlens.Trace, cache: Caching = "auto") -> Stream:
        """What leaves each block on these canvases; NaN where a step did not compute it."""
        new = self.again.canvases.shape[-1] - len(self.ids[0])
        record = trace.capture("resid_post").generate(self.ids, new, sampler=self.again, cache=cache, progress=False)
        return record["resid_post"].float()


def moved(
    model: dlens.Model,
    layers: Sequence[int],
    prompts: Sequence[list[int]],
    new_tokens: int,
    sampler: LLaDA,
    caches: Mapping[str, Caching],
) -> dict[str, Any]:
    """Mean cosines over prompts with their intervals, cache by cache.

    Args:
        model: one that denoises.
        layers: the blocks that are skipped.
        prompts: of one length.
        new_tokens: tokens after each.
        sampler: of the run without a cache, which gives the canvases.
        caches: by name; that of a word is none.

    Returns:
        For each cache, each a curve: "layer", the stream with it beside that without it, where tokens are decided;
        "step", the same by the step of a block; "skipped", by layer, with blocks skipped in both; "kept", the stream
        that kept keys and values come from beside what it would be, by state; "drift", by layer, a step beside the one
        before, in one block. Without a cache: "skip", by layer, with blocks skipped beside without, and "drift".
    """
    found: dict[str, dict[str, list[Tensor]]] = {name: {} for name in caches}
    trace = dlens.trace(model)
    for start in range(0, len(prompts), _BATCH):
        run = _run(trace, prompts[start : start + _BATCH], new_tokens, sampler)
        whole, skipped = run.stream(trace), run.stream(trace.skip(layers))
        for name, cache in caches.items():
            if isinstance(cache, str):
                own = {"skip": _by_layer(_alike(skipped, whole), run.deciding), "drift": _drift(run, whole)}
            else:
                own = _under(run, whole, skipped, run.stream(trace, cache), run.stream(trace.skip(layers), cache))
            for what, values in own.items():
                found[name].setdefault(what, []).append(values)
    return {name: {what: _curve(torch.cat(each)) for what, each in own.items()} for name, own in found.items()}


def _run(trace: dlens.Trace, ids: Sequence[list[int]], new_tokens: int, sampler: LLaDA) -> Run:
    record = trace.generate(list(ids), new_tokens, sampler=sampler, progress=False)
    assert record.canvas is not None and sampler.block_length is not None
    family, canvases, start = trace.model.family, record.canvas, len(ids[0])
    masked = canvases == family.mask_token_id
    first = masked.any(1).int().argmax(-1)
    blocks = start + (first - start) // sampler.block_length * sampler.block_length
    columns = blocks[:, None] + torch.arange(sampler.block_length)
    prompt = torch.zeros_like(masked)
    prompt[..., :start] = True
    here = torch.zeros_like(masked).scatter_(2, columns[:, None].expand(-1, len(ids), -1), True)
    deciding = (masked & here).roll(-family.shift, dims=-1)
    states = dict(zip(STATES, (prompt, ~prompt & ~masked, masked), strict=True))
    return Run(list(ids), Again(canvases, columns), deciding, states)


def _under(run: Run, whole: Stream, skipped: Stream, cached: Stream, both: Stream) -> dict[str, Tensor]:
    """What is said of a cache, for each prompt."""
    alike = _alike(cached, whole)
    return {
        "layer": _by_layer(alike, run.deciding),
        "step": _by_step(run, alike),
        "skipped": _by_layer(_alike(both, skipped), run.deciding),
        "kept": _by_state(run, cached, whole),
        "drift": _drift(run, cached),
    }


def _alike(one: Stream, other: Stream) -> Alike:
    return torch.cosine_similarity(one, other, dim=-1)


def _by_layer(alike: Alike, where: Places) -> Float[Tensor, "batch layer"]:
    return _mean(alike, where, (0, 3)).T


def _by_step(run: Run, alike: Alike) -> Float[Tensor, "batch age"]:
    """By the number of the step in its block."""
    starts = run.again.blocks[:, 0]
    ages = torch.stack([(starts[:step] == starts[step]).sum() for step in range(len(starts))])
    each = [_mean(alike[ages == age], run.deciding[ages == age], (0, 1, 3)) for age in ages.unique()]
    return torch.stack(each, dim=-1)


def _by_state(run: Run, cached: Stream, whole: Stream) -> Float[Tensor, "batch state"]:
    """At the columns that a step leaves out: what the stream was when keys and values were made there."""
    kept, at_hand = cached.clone(), []
    left_out = cached[:, 0, :, :, 0].isnan()
    for step in range(1, len(kept)):
        kept[step] = torch.where(kept[step].isnan(), kept[step - 1], kept[step])
    alike = _alike(kept, whole)
    for places in run.states.values():
        at_hand.append(_mean(alike, places & left_out, (0, 1, 3)))
    return torch.stack(at_hand, dim=-1)


def _drift(run: Run, stream: Stream) -> Float[Tensor, "batch layer"]:
    """Beside the step before, in the same block, where both decide."""
    starts = run.again.blocks[:, 0]
    same = (starts[1:] == starts[:-1])[:, None, None]
    return _by_layer(_alike(stream[1:], stream[:-1]), run.deciding[1:] & run.deciding[:-1] & same)


def _mean(alike: Alike, where: Places, dims: tuple[int, ...]) -> Tensor:
    """Over the places that count; NaN where there are none."""
    counts = where[:, None].expand_as(alike)
    return alike.where(counts, 0).sum(dims) / counts.sum(dims)


def _curve(values: Float[Tensor, "prompt place"]) -> dict[str, Any]:
    curve = mean_curve(values.double().numpy())
    return plain({name: getattr(curve, name).round(5).tolist() for name in ("value", "low", "high")} | {"n": curve.n})
