"""In which order a denoising run fixes its positions, and how sure the model is of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dlens.axes import STATES
from dlens.measures.base.arrays import labelled
from dlens.measures.base.measure import N_NOISE_BINS, Measure, Span, Sums, Visit
from dlens.measures.base.readout import ReadsTokens

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["CommitOrder", "order_of"]

_MASKED = STATES.index("masked")
_EMPTY = {"committed_at": -1, "confidence": torch.nan, "entropy": torch.nan, "noise_level": torch.nan}


@final
@dataclass(frozen=True, kw_only=True)
class CommitOrder(ReadsTokens, Measure):
    """The step that fixes each position, and the model's confidence and entropy there at that step.

    A position is fixed by the last step at which it still was a mask: at every step the masked positions
    are read, and what was read last is kept. In a forward that is the forward itself. Confidence is the
    probability of the likeliest token other than the mask, entropy that of the same distribution in nats:
    softmax in float64 at temperature 1, of the conditional half under guidance, before any operation
    on the logits, read one position before where the family shifts its logits. Spearman's rho and Kendall's tau-b are
    those of scipy; what is set against them, and `left_to_right`, are dlens's own.

    The dataset holds, over batch and position: "committed_at" (-1 for what was never a mask, padding, and what
    follows the end of a row), "confidence", "entropy" and "noise_level", the centre of the noise bin at that
    step. Over batch: "spearman" and "kendall" (tau-b), correlations of the step with the position, NaN
    where all were fixed at once; "left_to_right", the share of positions fixed no earlier than any
    to their left, which is 1 from left to right and H(n) / n in random order; "n", positions fixed. Over
    step: "committed", their number, with the means "step_confidence" and "step_entropy".

    Rows of several runs stand one below the other, their last positions aligned. Memory is 4 numbers a
    position, whatever the number of steps; it costs one more unembedding of the masked positions a step.

    Args:
        name: key in `record.measures`, "commit_order" by default.

    Examples:
        >>> CommitOrder().key
        'commit_order'
    """

    def start(self, span: Span) -> Sums:
        if not span.has_noise:
            raise ValueError(
                f"{self.key} of an autoregressive model; expected a diffusion model, as decoding fixes one position a "
                f"step from left to right; leave it out, record.committed_at has the steps"
            )
        kind = {"committed_at": torch.long}
        return {key: torch.empty(0, 0, dtype=kind.get(key, torch.float64), device=span.device) for key in _EMPTY}

    def update(self, sums: Sums, visit: Visit) -> None:
        if not visit.last:
            return
        first = visit.kept.setdefault(self, len(sums["committed_at"]))
        at = [first + row for row in visit.rows]
        _make_room(sums, max(at) + 1, visit.columns.stop)
        columns = slice(visit.columns.start - visit.columns.stop, None)
        state, now = visit.cells.state, _read(visit)
        # A cached step leaves positions out that are there all the same.
        gone = (state if visit.keys is None else visit.keys) < 0
        for key, empty in _EMPTY.items():
            kept = torch.where(gone, empty, sums[key][at][:, columns])
            sums[key][at, columns] = torch.where(state == _MASKED, now[key].to(kept), kept)

    def merge(self, sums: Sums, other: Sums) -> Sums:
        """The rows of both runs, one below the other."""
        width = max(sums["committed_at"].shape[-1], other["committed_at"].shape[-1])
        return {
            key: torch.cat([_padded(part[key], len(part[key]), width, empty) for part in (sums, other)])
            for key, empty in _EMPTY.items()
        }

    def result(self, sums: Sums, span: Span) -> xr.Dataset:
        held = {key: value.cpu().numpy() for key, value in sums.items()}
        steps, fixed = held["committed_at"], held["committed_at"] >= 0
        orders = np.array([order_of(row) for row in steps]).reshape(-1, 3)
        at = [steps == step for step in range(span.n_steps)]
        data: dict[str, tuple[tuple[str, ...], Any]] = {key: (("batch", "position"), held[key]) for key in _EMPTY}
        data |= {key: (("batch",), orders[:, i]) for i, key in enumerate(("spearman", "kendall", "left_to_right"))}
        data |= {"n": (("batch",), fixed.sum(-1)), "committed": (("step",), np.array([here.sum() for here in at]))}
        for key in ("confidence", "entropy"):
            means = [held[key][here].mean() if here.any() else np.nan for here in at]
            data[f"step_{key}"] = (("step",), np.array(means))
        return labelled(
            {key: (dims, torch.as_tensor(values)) for key, (dims, values) in data.items()},
            span,
            estimator="softmax at temperature 1 without the mask token, in float64; entropy in nats; spearman and "
            "kendall tau-b of step with position; left_to_right: fixed no earlier than any to the left",
            pooling="none; step_confidence and step_entropy over the positions that a step fixed",
            positions="masked at some step, but not what follows the end of a row",
            channels_left_out=[],
            n=int(fixed.sum()),
        )


def _read(visit: Visit) -> dict[str, Float[Tensor, "batch position"]]:
    """What is known of the masked positions at a step; meaningless elsewhere."""
    readout, state = visit.readout, visit.cells.state
    assert readout is not None
    step, level, confidence, entropy = torch.zeros(4, *state.shape, dtype=torch.float64, device=state.device)
    step += visit.step
    level += (visit.cells.noise[:, None] + 0.5) / N_NOISE_BINS
    for rows, columns, read in readout.chunks(state == _MASKED, state):
        p = readout.probabilities(visit.values["resid_post"][-1, rows, read])
        confidence[rows, columns] = p.amax(-1)
        entropy[rows, columns] = torch.special.entr(p).sum(-1)
    return {"committed_at": step, "noise_level": level, "confidence": confidence, "entropy": entropy}


def order_of(steps: np.ndarray) -> tuple[float, float, float]:
    """How the steps that fixed the positions of a row go with the positions.

    Args:
        steps: [position]; below 0 where nothing was fixed.

    Returns:
        Spearman's rho and Kendall's tau-b of step with position, NaN where all steps are one, and the share
        of positions fixed no earlier than any to their left.

    Examples:
        >>> [round(number, 3) for number in order_of(np.array([-1, 0, 2, 1]))]
        [0.5, 0.333, 0.667]
    """
    from scipy.stats import kendalltau, spearmanr

    positions = np.flatnonzero(steps >= 0)
    steps = steps[positions]
    if len(steps) == 0:
        return np.nan, np.nan, np.nan
    in_order = float((steps >= np.maximum.accumulate(steps)).mean())
    if (steps == steps[0]).all():
        return np.nan, np.nan, in_order
    rho: Any = spearmanr(positions, steps)
    tau: Any = kendalltau(positions, steps)
    return float(rho.statistic), float(tau.statistic), in_order


def _make_room(sums: Sums, rows: int, width: int) -> None:
    """Grow the arrays to so many rows and positions, on the left, where prompts are padded."""
    rows, width = max(rows, len(sums["committed_at"])), max(width, sums["committed_at"].shape[-1])
    if (rows, width) != tuple(sums["committed_at"].shape):
        sums.update({key: _padded(sums[key], rows, width, empty) for key, empty in _EMPTY.items()})


def _padded(values: Tensor, rows: int, width: int, empty: float) -> Tensor:
    padded = values.new_full((rows, width), empty)
    padded[: len(values), width - values.shape[-1] :] = values
    return padded
