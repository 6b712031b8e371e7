"""How far a change moves the representations, at matched points of the model's own decoding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dlens.checks import check_fields
from dlens.findings.effects.applied import applied
from dlens.findings.scores.batches import batched, token_rows
from dlens.findings.scores.decoding import Decoding
from dlens.findings.scores.intervals import LEVEL, mean_interval
from dlens.models.model import Model
from dlens.ops.base.given import as_number
from dlens.ops.base.scope import Scope
from dlens.samplers import Sampler
from dlens.tracing.chain import Trace
from dlens.tracing.planning.kv_cache import Caching
from dlens.tracing.probes.calibration import calibration_texts
from dlens.tracing.records.record import Record
from dlens.tracing.records.text import after_end, end_ids

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["POSITIONS", "Disruption", "Point", "disruption", "points_of"]

POSITIONS = ("all", "prompt", "decoded", "deciding")
_DIMS = ("fraction", "positions", "layer")
_PROMPT_TOKENS = 32


@final
@dataclass(frozen=True, eq=False)
class Disruption:
    """Cosine of the changed model's stream with that of the model as it is, on the same canvases.

    Args:
        model: whose streams they are.
        plan: the operations.
        n_layers: its depth.
        data: "cosine", the mean over prompts, with "low" and "high", its 95 % interval over prompts, each by
            `fraction` of tokens decided, `positions` and `layer`, where what leaves the block is compared.
        n_prompts, seed: of what.
        notes: what a reader must know to read the numbers.

    Examples:
        >>> import dlens
        >>> found = dlens.disruption("trio/ar", [5], ["Once upon", "A fox"], max_new_tokens=4)
        >>> found.data["cosine"].sel(positions="deciding").dims, sorted(found.table()[0])
        (('fraction', 'layer'), ['cosine', 'fraction', 'high', 'layer', 'low', 'model', 'positions'])
    """

    model: str
    plan: tuple[dict[str, Any], ...]
    n_layers: int
    data: xr.Dataset
    n_prompts: int
    seed: int
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        import xarray as xr

        check_fields(self, "let dlens.disruption make it", xr.Dataset)

    def table(self) -> list[dict[str, Any]]:
        """One row for each number."""
        names = ("cosine", "low", "high")
        stacked = self.data[list(names)].stack(row=_DIMS)
        keys = [dict(zip(_DIMS, key, strict=True)) for key in stacked["row"].values.tolist()]
        columns = [stacked[name].values.tolist() for name in names]
        rows = zip(keys, zip(*columns, strict=True), strict=True)
        return [{"model": self.model} | key | dict(zip(names, values, strict=True)) for key, values in rows]


@dataclass(frozen=True)
class Point:
    """One row of token ids as it is at a point of decoding, and what its positions are.

    Args:
        ids: what goes in.
        prompt: how many tokens of it are the prompt.
        masked: which positions are still masks; none in an autoregressive model.
        deciding: the positions whose logits decide the tokens to come.
        ended: the positions after an end of sequence, which are not measured.
    """

    ids: list[int]
    prompt: int
    masked: Bool[Tensor, " position"]
    deciding: Bool[Tensor, " position"]
    ended: Bool[Tensor, " position"]

    def groups(self) -> Bool[Tensor, "positions position"]:
        """Which positions each of `POSITIONS` names."""
        prompt = torch.arange(len(self.ids)) < self.prompt
        named = torch.stack([torch.ones_like(prompt), prompt, ~prompt & ~self.masked, self.deciding])
        return named & ~self.ended


def disruption(
    model: Any,
    plan: Any = None,
    prompts: Any = None,
    fractions: Sequence[float] = (0.0, 0.25, 0.5, 0.75),
    *,
    sampler: Sampler | None = None,
    max_new_tokens: int = 64,
    cache: Caching = "auto",
    batch_size: int = 8,
    seed: int = 0,
) -> Disruption:
    """How far skipping moves what leaves each block, at matched points of the model's own decoding.

    The model as it is decodes each prompt. At each fraction of decided tokens the canvas of that run
    is read twice, as it is and changed, and the two streams are compared by their cosine at the
    same layer and position: nothing that the change did earlier adds up. A diffusion model reads
    its canvas with the masks that are left, an autoregressive model the text up to there.

    Positions are "all" but padding and what follows an end of sequence, the "prompt", "decoded" tokens
    after it, and those "deciding": whose logits decide the tokens to come, which are the masks (one
    position earlier where logits are shifted), or the newest token. "deciding" is what both kinds of
    model have in common.

    Args:
        model: anything `dlens.trace` takes, or a trace with operations that act at every step.
        plan: what is applied after those: a SkipPlan or layers to skip.
        prompts: anything `Trace.generate` takes; the first 32 tokens of each shipped text by default.
        fractions: shares of the generated tokens that are decided, from 0 to below 1.
        sampler, max_new_tokens, cache: of the decoding run; see `dlens.findings.scores.decoding.Decoding`. What
            is compared are forwards without a cache.
        batch_size: prompts a forward; two streams of all layers are held in memory.
        seed: of the decoding run.

    Raises:
        ValueError: before anything is computed: no change, operations limited to some steps or noise levels, or
            fractions outside 0 to 1; afterwards: activations that are not finite.

    Examples:
        >>> import dlens
        >>> found = dlens.disruption("trio/ar", [5], ["Once upon", "A fox"], max_new_tokens=4)
        >>> found.data["cosine"].dims, float(found.data["cosine"].sel(layer=4, positions="all").min()) > 0.9999
        (('fraction', 'positions', 'layer'), True)
    """
    bare, chain = applied(model, plan)
    shares = _check_fractions(fractions)
    _refuse_scopes(chain)
    rows = token_rows(bare.model, calibration_texts() if prompts is None else prompts)
    rows = [row[:_PROMPT_TOKENS] for row in rows] if prompts is None else rows
    decoding, means, plans = Decoding(sampler, max_new_tokens, cache, seed=seed), [], ()
    for part in batched(rows, batch_size):
        record = decoding.generate(bare, part)
        at = []
        for share in shares:
            cosines, plans = _compared(bare, chain, points_of(bare, record, part, share))
            at.append(cosines)
        means.append(torch.stack(at, dim=1))
    data = _dataset(torch.cat(means).numpy(), shares)
    notes = (
        f"canvases of the model's own run of {max_new_tokens} new tokens, without the change",
        f"{LEVEL:.0%} intervals over prompts by Student's t, corrected for skewness",
    )
    return Disruption(bare.model.name, plans, bare.target.n_layers, data, len(rows), seed, notes)


def points_of(bare: Trace, record: Record, prompts: Sequence[Sequence[int]], share: float) -> list[Point]:
    """The first point of a finished run at which at least a share of the tokens is decided, of each row.

    Where no step starts that late, it is the last that starts.
    """
    return [_point(bare.model, record, row, len(prompt), share) for row, prompt in enumerate(prompts)]


def _point(model: Model, record: Record, row: int, prompt: int, share: float) -> Point:
    real = ~record.is_pad[row]
    n_new = int(real.sum()) - prompt
    # Shares such as 0.1 x 30 may miss a whole number by a rounding.
    needed = min(ceil(share * n_new - 1e-9), n_new - 1)
    if record.canvas is None:
        ids = record.tokens[row, real][: prompt + needed]
        return Point(ids.tolist(), prompt, _none(ids), torch.arange(len(ids)) == len(ids) - 1, _none(ids))
    canvases = record.canvas[:, row, real]
    left = (canvases[:, prompt:] == model.family.mask_token_id).sum(-1)
    late = ((n_new - left >= needed) & (left > 0)).nonzero()
    ids = canvases[int(late[0]) if len(late) else int((left > 0).sum()) - 1]
    generated = torch.arange(len(ids)) >= prompt
    masked = (ids == model.family.mask_token_id) & generated
    ended = after_end(ids[None], generated[None], end_ids(model))[0]
    return Point(ids.tolist(), prompt, masked, masked.roll(-model.family.shift), ended)


def _none(ids: Tensor) -> Bool[Tensor, " position"]:
    return torch.zeros(len(ids), dtype=torch.bool)


def _compared(
    bare: Trace, chain: Trace, points: Sequence[Point]
) -> tuple[Float[Tensor, "batch positions layer"], tuple[dict[str, Any], ...]]:
    """Mean cosine of both streams, row by row, and the operations as they ran."""
    inputs = [point.ids for point in points]
    clean = bare.capture("resid_post").forward(inputs)
    changed = chain.capture("resid_post").forward(inputs)
    cosine = torch.nn.functional.cosine_similarity(
        clean["resid_post"].double(), changed["resid_post"].double(), dim=-1, eps=0
    )
    _need_finite(bare, cosine, clean.is_pad)
    means = []
    for row, point in enumerate(points):
        groups = point.groups().double()
        own = cosine[:, row, ~clean.is_pad[row]]
        means.append(groups @ own.T / groups.sum(-1, keepdim=True))
    return torch.stack(means), tuple(entry for entry in changed.plan if entry["op"] != "capture")


def _need_finite(bare: Trace, cosine: Float[Tensor, "layer batch position"], is_pad: Tensor) -> None:
    bad = ~cosine[:, ~is_pad].isfinite().all(-1)
    if bad.any():
        raise ValueError(
            f"activations of {bare.model.name} after layer {int(bad.int().argmax())} hold NaN, infinity or nothing but "
            f"zeros, before or after the change; expected a direction at every position; load in a wider dtype, or "
            f"change less"
        )


def _dataset(values: Float[np.ndarray, "prompt fraction positions layer"], shares: Sequence[float]) -> xr.Dataset:
    import xarray as xr

    mean, low, high = mean_interval(values)
    return xr.Dataset(
        {"cosine": (_DIMS, mean), "low": (_DIMS, low), "high": (_DIMS, high)},
        coords={"fraction": list(shares), "positions": list(POSITIONS), "layer": list(range(values.shape[-1]))},
        attrs={"estimator": "cos(resid_post as it is, resid_post changed), mean over positions, then over prompts"}
        | {"n": len(values), "interval": f"{LEVEL:.0%}, over prompts, by Student's t, corrected for skewness"},
    )


def _check_fractions(fractions: Sequence[float]) -> tuple[float, ...]:
    listed = fractions if isinstance(fractions, Iterable) else [fractions]
    shares = tuple(as_number(share, "fractions") for share in listed)
    if not shares or not all(0 <= share < 1 for share in shares):
        raise ValueError(
            f"fractions={fractions!r}; expected shares of the tokens that are decided, from 0 to below 1, as at 1 none "
            f"is left to decide; give for example (0, 0.5)"
        )
    return shares


def _refuse_scopes(chain: Trace) -> None:
    for op in chain.ops:
        if op.scope != Scope():
            raise ValueError(
                f"'{op.words()}' in disruption; expected operations that act at every step, as points of a run are "
                f"compared one by one; leave out steps= and noise="
            )
