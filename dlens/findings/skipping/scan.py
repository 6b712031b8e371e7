"""What the loss becomes without each block, one block at a time, for about half of the forwards.

Up to the block that is removed, every variant computes what the whole model does. So the stream that
enters each block is kept from one forward; a variant skips all blocks up to its own, takes the kept
stream there, and computes the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import final

from torch import Tensor

from dlens.axes import Resid
from dlens.findings.scores.batches import batched
from dlens.findings.scores.canvases import Canvas, Canvases
from dlens.findings.scores.loss import canvas_loss
from dlens.models.model import Model
from dlens.ops.base.edit import Edit, Place
from dlens.tracing.chain import Trace, trace
from dlens.tracing.progress import quiet
from dlens.tracing.records.record import Record

__all__ = ["RemovalScan", "greedy_removal", "removal_scan"]

# On an accelerator a small forward takes as long to launch as to compute.
_TOGETHER = 4


@dataclass(frozen=True)
class RemovalScan:
    """The loss with all blocks, and without each.

    Args:
        loss: with all blocks, but those that were skipped from the start.
        without: layer -> the loss without its block.
        skipped: the layers that were skipped from the start.
        estimator: which loss it is.

    Examples:
        >>> scan = RemovalScan(loss=2.0, without={3: 2.5, 5: 2.25}, skipped=(), estimator="next-token cross-entropy")
        >>> scan.increase(3), scan.least()
        (0.5, 5)
    """

    loss: float
    without: dict[int, float]
    skipped: tuple[int, ...]
    estimator: str

    def increase(self, layer: int) -> float:
        """What removing a block adds to the loss."""
        return self.without[layer] - self.loss

    def least(self) -> int:
        """The layer without which the loss is lowest; of equals the first, and never one without a finite loss.

        Raises:
            ValueError: no layer has a finite loss.
        """
        finite = {layer: loss for layer, loss in self.without.items() if isfinite(loss)}
        if not finite:
            raise ValueError(
                f"no finite loss without any one of layers {', '.join(map(str, self.without))}; expected at least one; "
                f"load the model in a wider dtype"
            )
        return min(finite, key=finite.__getitem__)


def removal_scan(
    model: Model,
    canvases: Canvases,
    *,
    skipped: Collection[int] = (),
    layers: Sequence[int] | None = None,
    batch_size: int = 8,
    together: int | None = None,
    progress: bool = True,
) -> RemovalScan:
    """Measure the loss without each block in turn.

    A variant costs the blocks after its own and the head, all together half of what as many whole
    forwards cost, and the stream that enters each block is held for one batch at a time.

    Args:
        model: without operations.
        canvases: what it reads; see `text_canvases`.
        skipped: layers that are skipped in every variant, so that removal can go on from there.
        layers: the layers to remove in turn; all that are not skipped by default.
        batch_size: canvases a forward.
        together: variants a forward, in rows of one batch. With 1, the default on a CPU, each has the
            shape of a forward of its own and gives the same bits; with more, products of other shapes
            may round differently. The default elsewhere is 4.
        progress: show a progress bar when it takes longer than a second.

    Returns:
        The losses.

    Raises:
        ValueError: the loss is not finite before anything is removed, or together is not positive.

    Examples:
        >>> import dlens
        >>> from dlens.findings.scores.canvases import text_canvases
        >>> model = dlens.load("trio/ar")
        >>> scan = removal_scan(model, text_canvases(model, ["Once upon a time"]), layers=[3, 5], progress=False)
        >>> sorted(scan.without)
        [3, 5]
    """
    from tqdm.auto import tqdm

    base = trace(model)
    chosen = sorted(set(range(model.n_layers) if layers is None else layers) - set(skipped))
    if together is None:
        together = 1 if model.device.type == "cpu" else _TOGETHER
    if together < 1:
        raise ValueError(f"together={together}; expected at least 1, the number of variants a forward; give 4")
    groups = list(batched(chosen, together))
    parts = list(batched(canvases.rows, batch_size))
    whole, without = 0.0, dict.fromkeys(chosen, 0.0)
    with tqdm(
        total=len(parts) * len(chosen), desc="removing blocks", disable=quiet(progress), delay=1, leave=False
    ) as bar:
        for part in parts:
            plain, loss = _whole(base, skipped, chosen, part)
            whole += loss
            for group in groups:
                for layer, loss in zip(group, _without(base, skipped, group, part, plain), strict=True):
                    without[layer] += loss
                bar.update(len(group))
    means = {layer: loss / canvases.divisor for layer, loss in without.items()}
    return RemovalScan(whole / canvases.divisor, means, tuple(sorted(skipped)), canvases.estimator)


def greedy_removal(
    model: Model, canvases: Canvases, n: int, allowed: Sequence[int], batch_size: int = 8, progress: bool = True
) -> list[tuple[int, RemovalScan]]:
    """Remove one block after the other, each time the one without which the loss is lowest.

    Args:
        model: without operations.
        canvases: what it reads.
        n: how many, or all that are allowed if these are fewer.
        allowed: the layers to choose from.
        batch_size: canvases a forward.
        progress: show a progress bar.

    Returns:
        For each removal its layer, and the losses among which it was the lowest.
    """
    removed: list[tuple[int, RemovalScan]] = []
    for _ in range(min(n, len(allowed))):
        gone = [layer for layer, _ in removed]
        scan = removal_scan(model, canvases, skipped=gone, layers=allowed, batch_size=batch_size, progress=progress)
        removed.append((scan.least(), scan))
    return removed


def _whole(
    base: Trace, skipped: Collection[int], layers: Sequence[int], part: Sequence[Canvas]
) -> tuple[Record, float]:
    """What enters each block, and the summed loss, before anything more is removed."""
    chain = base.skip(sorted(skipped)) if skipped else base
    chain = chain.capture("resid_pre", layers=layers) if layers else chain
    record = chain.capture("logits").forward([row.inputs for row in part])
    loss = canvas_loss(record["logits"], record.is_pad, part, base.model.family.shift)
    if not isfinite(loss):
        raise ValueError(
            f"the loss of {base.model.name} is {loss} before a block is removed; expected a finite number; look for "
            f"NaN in its weights, or load it in a wider dtype"
        )
    return record, loss


def _without(
    base: Trace, skipped: Collection[int], group: Sequence[int], part: Sequence[Canvas], plain: Record
) -> list[float]:
    """The summed loss without each layer of a group; the variants are rows of one batch."""
    held, streams = plain.coords("resid_pre")["layer"], plain["resid_pre"]
    # None of them needs a block before the first; each takes over the stream that entered its own block.
    chain = base.skip(sorted({*skipped, *range(group[0] + 1)}))
    for number, layer in enumerate(group):
        rejoin = Rejoin(layers=(layer,), stream=streams[held.index(layer)], first=number * len(part))
        chain = replace(chain, ops=(*chain.ops, rejoin))
    record = chain.capture("logits").forward([row.inputs for _ in group for row in part])
    logits, is_pad, shift = record["logits"], record.is_pad, base.model.family.shift
    starts = range(0, len(logits), len(part))
    rows = [slice(start, start + len(part)) for start in starts]
    return [canvas_loss(logits[own], is_pad[own], part, shift) for own in rows]


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Rejoin(Edit):
    """Some rows of a batch take over a stream, the others keep theirs.

    Args:
        stream: [batch, position, d_model].
        first: the row of the batch where the stream's first row goes.
    """

    stream: Resid
    first: int

    def edit(self, value: Tensor, place: Place) -> Tensor:
        taken = [
            (at, row - self.first) for at, row in enumerate(place.rows) if 0 <= row - self.first < len(self.stream)
        ]
        edited = value.clone()
        if taken:
            at, rows = (list(numbers) for numbers in zip(*taken, strict=True))
            edited[at] = self.stream[rows][:, place.columns].to(value)
        return edited

    def words(self) -> str:
        return f"take over the stream at {self.where()}"
