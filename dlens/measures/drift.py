"""How much the stream at a position changes from one step to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Int
from torch import Tensor

from dlens.axes import STATES
from dlens.measures.base.arrays import DropsChannels, left_out
from dlens.measures.base.cells import cell_of
from dlens.measures.base.means import Means, Samples
from dlens.measures.base.measure import Span, Sums, Visit
from dlens.measures.cosine import row_cosine

__all__ = ["Drift"]


@dataclass
class _Step:
    """What is remembered of a step: [layer, batch, position, d_model], where its columns lie, and their state."""

    stream: Tensor
    columns: range
    state: Int[Tensor, "batch position"]


@final
@dataclass(frozen=True, kw_only=True)
class Drift(DropsChannels, Means):
    """Cosine of resid_post with that of the step before, at the same layer and position.

    cos(h[l, t, i], h[l, t - 1, i]), in float32 or wider, averaged over the positions i that both
    steps computed and that are measured at both. 1 is a position that stood still; step 0, which has
    nothing before it, and a single forward are NaN. Noise and state are those at step t. The formula is dlens's own.

    The dataset holds, over step, noise (where it is defined), state and layer, "cosine" and "n", the
    number of positions; and over step, noise and layer "cosine_committed" and "n_committed": the
    positions that went from masked to decoded between the two steps, which "cosine" counts as decoded.

    With a cache of a denoising run these are fewer. AR decoding with a KV cache computes every position once, so that
    nothing can drift: all is NaN and n is 0. With `cache="off"` the recomputed positions are compared; a causal model
    gives 1 there, unless operations change between steps.

    It remembers one value of the stream, [layer, batch, position, d_model] in the type the model
    computes in, whatever the number of steps: 128 MiB for 32 layers, 512 positions and 4096 channels in bf16.

    Args:
        drop: channels left out.
        name: key in `record.measures`, "drift" by default.

    Examples:
        >>> Drift().key
        'drift'
    """

    formulas = dict.fromkeys(
        ("cosine", "cosine_committed"), "cosine of resid_post with that of the step before, in float32 or wider"
    )
    counted = {"cosine_committed": "n_committed"}
    without_state = ("n_committed",)
    pooling = "mean over positions; a position counts once a step; noise and state at the later step"
    positions = (
        "computed at both steps (none while decoding with a cache), but no padding and not what follows "
        "the end of a row"
    )

    @property
    def points(self) -> tuple[str, ...]:
        return ("resid_post",)

    def update(self, sums: Sums, visit: Visit) -> None:
        value = visit.values["resid_post"]
        if visit.layers.start == 0:
            self._begin(visit, value, sums["n"].shape[-1])
        super().update(sums, visit)
        now: _Step = visit.kept[self]
        if now.stream.dtype != value.dtype:
            now.stream = now.stream.to(torch.promote_types(now.stream.dtype, value.dtype))
        now.stream[visit.at] = value

    def _begin(self, visit: Visit, value: Tensor, n_layers: int) -> None:
        """A step starts: what was the present becomes the past, whose memory is used again where it fits."""
        before: _Step | None = visit.kept.get(self) if visit.step else None
        shape = (n_layers, *value.shape[1:])
        fits = before is not None and before.stream.shape == shape and before.columns == visit.columns
        stream = before.stream if before is not None and fits else value.new_empty(shape)
        visit.carried[self] = before
        visit.kept[self] = _Step(stream, visit.columns, visit.cells.state)

    def samples(self, visit: Visit) -> Mapping[str, Samples]:
        before: _Step | None = visit.carried[self]
        if before is None:
            return {}
        first = max(before.columns.start, visit.columns.start)
        width = max(0, min(before.columns.stop, visit.columns.stop) - first)
        old, new = (slice(s, s + width) for s in (first - before.columns.start, first - visit.columns.start))
        both = (before.stream[visit.at, :, old], visit.values["resid_post"][:, :, new])
        cosine = row_cosine(*(left_out(value, self.drop) for value in both)).flatten(1)
        state, past = visit.cells.state[:, new], before.state[:, old]
        cell = cell_of(visit.cells.noise, torch.where(past < 0, -1, state))
        committed = (past == STATES.index("masked")) & (state == STATES.index("decoded"))
        bins = torch.where(committed, visit.cells.noise[:, None], -1)
        return {
            "n": Samples({"cosine": cosine}, cell.flatten()),
            "n_committed": Samples({"cosine_committed": cosine}, bins.flatten()),
        }

    def finish(self, name: str, total: Tensor, n: Tensor, span: Span) -> Tensor:
        return super().finish(name, total, n, span).clamp(-1, 1)
