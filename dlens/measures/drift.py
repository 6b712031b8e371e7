"""How much the stream at a position changes from one step to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dlens.axes import STATES
from dlens.measures.base.arrays import check_channels, labelled, rows
from dlens.measures.base.cells import add_by_cell, cell_of, mean_of
from dlens.measures.base.measure import Measure, Span, Sums, Visit
from dlens.measures.cosine import row_cosine

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Drift"]


@dataclass
class _Step:
    """What is remembered of a step: [layer, batch, position, d_model], where its columns lie, and their state."""

    stream: Tensor
    columns: range
    state: Int[Tensor, "batch position"]


@final
@dataclass(frozen=True, kw_only=True)
class Drift(Measure):
    """Cosine of resid_post with that of the step before, at the same layer and position.

    cos(h[l, t, i], h[l, t - 1, i]), in float32 or wider, averaged over the positions i that both
    steps computed and that are measured at both. 1 is a position that stood still; step 0, which has
    nothing before it, and a single forward are NaN. Noise and state are those at step t.

    The dataset holds, over step, noise (where it is defined), state and layer, "cosine" and "n", the
    number of positions; and over step, noise and layer "cosine_committed" and "n_committed": the
    positions that went from masked to decoded between the two steps, which "cosine" counts as decoded.

    Decoding with a KV cache computes every position once, so that nothing can drift: all is NaN and n is
    0. With `cache="off"` the recomputed positions are compared; a causal model gives 1 there, unless
    operations change between steps.

    It remembers one value of the stream, [layer, batch, position, d_model] in the type the model
    computes in, whatever the number of steps: 128 MiB for 32 layers, 512 positions and 4096 channels in bf16.

    Args:
        drop: channels left out.
        name: key in `record.measures`, "drift" by default.

    Examples:
        >>> Drift().key
        'drift'
    """

    drop: Sequence[int] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "drop", tuple(self.drop))

    @property
    def points(self) -> tuple[str, ...]:
        return ("resid_post",)

    def start(self, span: Span) -> Sums:
        check_channels(self.drop, span.d_model)
        by_cell, by_noise = ((span.n_steps, n, span.n_layers) for n in (span.n_cells, span.n_noise))
        sizes = {"cosine": by_cell, "n": by_cell, "cosine_committed": by_noise, "n_committed": by_noise}
        return {key: torch.zeros(size, dtype=torch.float64, device=span.device) for key, size in sizes.items()}

    def update(self, sums: Sums, visit: Visit) -> None:
        value = visit.values["resid_post"]
        if visit.layers.start == 0:
            self._begin(visit, value, sums["n"].shape[-1])
        before, now = visit.carried[self], visit.kept[self]
        if before is not None:
            self._compare(sums, visit, value, before)
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

    def _compare(
        self, sums: Sums, visit: Visit, value: Float[Tensor, "layer batch position d_model"], before: _Step
    ) -> None:
        first = max(before.columns.start, visit.columns.start)
        width = max(0, min(before.columns.stop, visit.columns.stop) - first)
        old, new = (slice(s, s + width) for s in (first - before.columns.start, first - visit.columns.start))
        cosine = row_cosine(rows(before.stream[visit.at, :, old], self.drop), rows(value[:, :, new], self.drop))
        state, past = visit.cells.state[:, new], before.state[:, old]
        both = torch.where(past < 0, -1, state)
        noise = visit.cells.noise
        committed = (past == STATES.index("masked")) & (state == STATES.index("decoded"))
        for suffix, cell in (("", cell_of(noise, both)), ("_committed", torch.where(committed, noise[:, None], -1))):
            for key, values in ((f"cosine{suffix}", cosine), (f"n{suffix}", torch.ones_like(cosine))):
                add_by_cell(sums[key][visit.step, :, visit.at], values, cell.flatten())

    def result(self, sums: Sums, span: Span) -> xr.Dataset:
        cells, noise = ("step", *span.cell_dims, "layer"), ("step", *span.noise_dims, "layer")
        cosine, n = (span.split_cells(sums[key].cpu(), axis=1) for key in ("cosine", "n"))
        committed, n_committed = (
            sums[key].cpu() if span.has_noise else sums[key].cpu()[:, 0] for key in ("cosine_committed", "n_committed")
        )
        return labelled(
            {
                "cosine": (cells, mean_of(cosine, n).clamp(-1, 1)),
                "n": (cells, n.long()),
                "cosine_committed": (noise, mean_of(committed, n_committed).clamp(-1, 1)),
                "n_committed": (noise, n_committed.long()),
            },
            span,
            estimator="cosine of resid_post with that of the step before, in float32 or wider",
            pooling="mean over positions; a position counts once a step; noise and state at the later step",
            positions="computed at both steps (none while decoding with a cache), but no padding and not what follows "
            "the end of a row",
            channels_left_out=list(self.drop),
            count_of_cosine_committed="n_committed",
            n=int(sums["n"].sum((0, 1)).max()),
        )
