"""How alike two sets of representations are: of two runs, models, layers, steps or tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from dlens.checks import as_flag, require_word
from dlens.findings.layers.groups import Asked, By, Group, Source, source_of
from dlens.measures import CKA, CosinePairs
from dlens.measures.base.cells import Cells
from dlens.measures.base.measure import Measure, Span, Visit
from dlens.ops.base.given import Indices, as_count
from dlens.ops.base.scope import StepSpec

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["similarity"]

Method = Literal["cka", "cosine", "procrustes"]
_TOKENS = ("all", "prompt", "masked", "decoded")
# Groups that are compared at a time.
_AT_A_TIME = 8
_PROCRUSTES_BYTES = 2**31


def similarity(
    a: Any,
    b: Any = None,
    method: Method = "cka",
    *,
    by: By = "layer",
    prompts: Any = None,
    at: str = "resid_post",
    layers: Indices = None,
    layers_b: Indices = None,
    steps: StepSpec = None,
    tokens: str = "all",
    kernel: Literal["linear", "rbf"] = "linear",
    debiased: bool = True,
    fraction: float = 0.5,
    drop: Any = (),
    batch_size: int = 8,
) -> xr.Dataset:
    """How alike the representations of two runs or models are, every layer of one with every layer of the other.

    What is compared is paired by prompt and position, so both must have read the same prompts, token by token; masks
    may differ. It is read prompt by prompt, in memory that does not grow with their number.

    "cka": the estimator of the measure `CKA`: rows are the positions of one prompt at one step, HSIC terms are averaged
    over prompts and steps before the ratio. Widths may differ.
    "cosine": that of `CosinePairs`: the mean over positions of the cosine; both need one width, and mean something
    only in one basis, such as that of a model and of what was made from it.
    "procrustes": |A'B|_* / (|A|_F |B|_F), nuclear norm over Frobenius norms, of all rows together less their mean: the
    cosine of the angle between the two shapes once one is turned to fit the other (Williams et al., arXiv 2110.14739).
    It reads high where rows are few beside channels.

    Args:
        a, b: records, traces, models or their names, streams (`load_activations`), or tensors [row, width] or
            [entry, row, width]; without b, a is compared with itself.
        method: "cka", "cosine" or "procrustes".
        by: "layer" compares layers, "step" the steps of denoising runs at one layer.
        prompts: what models read, in one forward of each; the shipped calibration text by default.
        at: the hook point.
        layers, layers_b: which layers of a, and of b where these are others.
        steps: which steps of records and streams.
        tokens: "all", "prompt", "masked" or "decoded" positions, as they are in both.
        kernel, debiased, fraction: of "cka", as of the measure.
        drop: channels left out, of "cka" and "cosine".
        batch_size: prompts a forward.

    Returns:
        A variable of the method's name over layer and layer_b, or step and step_b, and "n": prompts at steps for
        "cka", positions for the others.

    Raises:
        ValueError, IndexError, KeyError: before anything is compared; or prompts that do not correspond.

    Examples:
        >>> import dlens
        >>> data = dlens.similarity("trio/ar", "trio/ar-init", prompts=["Once upon a time there was a fox"])
        >>> data["cka"].dims, float(data["cka"].sel(layer=0, layer_b=0)) > float(data["cka"].sel(layer=0, layer_b=15))
        (('layer', 'layer_b'), True)

        Steps of one run, at one layer:

        >>> record = dlens.trace("trio/diffusion").capture("resid_post", layers=8).generate("Once upon a time", 4)
        >>> dlens.similarity(record, method="cosine", by="step")["cosine"].shape
        (4, 4)
    """
    require_word("method", method, get_args(Method))
    require_word("by", by, get_args(By))
    require_word("tokens", tokens, _TOKENS)
    as_flag(debiased, "debiased")
    asked = Asked(by, at, layers, steps, tokens, prompts, as_count(batch_size, "batch_size"))
    one = source_of(a, asked)
    alone = b is None and layers_b is None
    asked_b = asked if layers_b is None else Asked(by, at, layers_b, steps, tokens, prompts, asked.batch_size)
    other = None if alone else source_of(a if b is None else b, asked_b)
    chunks = _chunks(one, other)
    if method == "procrustes":
        value, n, said = _procrustes(chunks)
    else:
        measure = CKA(kernel=kernel, debiased=debiased, fraction=fraction, drop=drop)
        value, n, said = _measured(measure if method == "cka" else CosinePairs(drop=drop), chunks, one, other)
    return _labelled(value, n, said | {"method": method, "positions": tokens, "point": at}, by, one, other or one)


@dataclass(frozen=True, eq=False)
class _Chunk:
    """Rows of several groups, side by side.

    Args:
        values: [entry, group, row, width] of one source, or of both.
        there: which rows are some.
    """

    values: tuple[Tensor, ...]
    there: Bool[Tensor, "group row"]


def _chunks(one: Source, other: Source | None) -> Iterator[_Chunk]:
    """The rows that both sources have, so many groups at a time."""
    held: list[tuple[Tensor, ...]] = []
    for rows in _pairs(one, other):
        held.append(rows)
        if len(held) == _AT_A_TIME:
            yield _side_by_side(held, one.device)
            held = []
    if held:
        yield _side_by_side(held, one.device)


def _pairs(one: Source, other: Source | None) -> Iterator[tuple[Tensor, ...]]:
    """Group by group the values of one source, or those of both at the positions that both have."""
    if other is None:
        yield from ((group.values,) for group in one.groups())
        return
    for a, b in zip_longest(one.groups(), other.groups()):
        if a is None or b is None or a.key != b.key:
            came = " and ".join(
                "nothing more" if own is None else f"prompt {own.key[0]}, {own.key[1]}" for own in (a, b)
            )
            raise ValueError(
                f"{one.name} and {other.name} have {came} side by side; expected the same prompts and steps in one "
                f"order; run both on the same prompts with the same steps"
            )
        in_a, in_b = (
            torch.isin(a.position, b.position.to(a.position)),
            torch.isin(b.position, a.position.to(b.position)),
        )
        _refuse_other_tokens(a, b, in_a, in_b)
        yield a.values[:, in_a], b.values[:, in_b]


def _refuse_other_tokens(a: Group, b: Group, in_a: Tensor, in_b: Tensor) -> None:
    """Refuse prompts of other tokens, wherever both are known."""
    own, its = a.token[in_a], b.token[in_b].to(a.token)
    differ = ((own != its) & (own >= 0) & (its >= 0)).nonzero()
    if len(differ):
        at = int(differ[0])
        raise ValueError(
            f"prompt {a.key[0]} has token {int(own[at])} in one and {int(its[at])} in the other at position "
            f"{int(a.position[in_a][at])}; expected the same tokens, as positions are paired; compare models of one "
            f"tokenizer, on the same prompts"
        )


def _side_by_side(held: list[tuple[Tensor, ...]], device: torch.device) -> _Chunk:
    longest = max(rows[0].shape[1] for rows in held)
    there = torch.zeros(len(held), longest, dtype=torch.bool, device=device)
    for number, rows in enumerate(held):
        there[number, : rows[0].shape[1]] = True
    return _Chunk(tuple(_padded([rows[i] for rows in held], longest, device) for i in range(len(held[0]))), there)


def _padded(values: list[Tensor], longest: int, device: torch.device) -> Float[Tensor, "entry group row width"]:
    first = values[0]
    whole = first.new_zeros((len(first), len(values), longest, first.shape[-1]), device=device)
    for number, own in enumerate(values):
        whole[:, number, : own.shape[1]] = own
    return whole


def _measured(measure: Measure, chunks: Iterable[_Chunk], one: Source, other: Source | None) -> Any:
    """The estimate of a measure that is fed both sources as if they were layers of one model."""
    n_one = len(one.entries)
    n_layers = n_one + (0 if other is None else len(other.entries))
    sums: dict[str, Tensor] | None = None
    span, kept = Span(1, n_layers, 1, has_noise=False, device=one.device), {}
    for chunk in chunks:
        if sums is None:
            span = Span(1, n_layers, _width(measure, chunk), has_noise=False, device=one.device)
            sums = measure.start(span)
        state = chunk.there.long() - 1
        cells, carried, first = Cells(state, state.new_zeros(len(state))), {}, 0
        for number, values in enumerate(chunk.values):
            layers, last = range(first, first + len(values)), number == len(chunk.values) - 1
            visit = Visit(0, layers, {"resid_post": values}, cells, last=last, carried=carried, kept=kept)
            measure.update(sums, visit)
            first += len(values)
    data = measure.result(_some(sums), span)
    cka = isinstance(measure, CKA)
    value = data["cka_all"] if cka else data["cosine"].sel(state="prompt")
    n = int(data["n_all"] if cka else data["n"].sel(state="prompt"))
    said = {name: data.attrs[name] for name in ("estimator", "pooling", "channels_left_out")}
    # Of one source alone all layers are both.
    return torch.tensor(value.values[:n_one, n_one % n_layers :]), n, said


def _some(sums: Any) -> Any:
    if sums is None:
        raise ValueError("there is no row to compare; expected one prompt at least; choose other tokens or steps")
    return sums


def _width(measure: Measure, chunk: _Chunk) -> int:
    widths = [values.shape[-1] for values in chunk.values]
    if len(set(widths)) > 1 and not isinstance(measure, CKA):
        raise ValueError(
            f"widths {widths} with method='cosine'; expected one width, as a cosine is of two vectors of one space; "
            f"use method='cka' or 'procrustes'"
        )
    return min(widths)


def _procrustes(chunks: Iterable[_Chunk]) -> tuple[Float64[Tensor, "entry entry_b"], int, dict[str, Any]]:
    """|A'B|_* / (|A|_F |B|_F) of every two entries, from sums over rows in float64."""
    sums, n = None, 0
    for chunk in chunks:
        rows = [values[:, chunk.there].double() for values in (chunk.values[0], chunk.values[-1])]
        if sums is None:
            _refuse_large(*rows)
        one, other = rows
        new = (
            torch.einsum("lnd,mne->lmde", one, other),
            *(own.sum(1) for own in rows),
            *(own.square().sum((1, 2)) for own in rows),
        )
        sums = new if sums is None else tuple(a + b for a, b in zip(sums, new, strict=True))
        n += one.shape[1]
    products, sum_one, sum_other, energy_one, energy_other = _some(sums)
    products = products - torch.einsum("ld,me->lmde", sum_one, sum_other) / n
    norm_one, norm_other = (
        (energy - total.square().sum(-1) / n).clamp(min=0).sqrt()
        for energy, total in ((energy_one, sum_one), (energy_other, sum_other))
    )
    value = torch.linalg.svdvals(products).sum(-1) / (norm_one[:, None] * norm_other[None])
    said = {
        "estimator": "orthogonal Procrustes: nuclear norm of A'B over the Frobenius norms of A and B, columns centred",
        "pooling": "all positions of all prompts and steps together",
        "channels_left_out": [],
    }
    return value.cpu(), n, said


def _refuse_large(one: Tensor, other: Tensor) -> None:
    size = len(one) * len(other) * one.shape[-1] * other.shape[-1] * 8
    if size > _PROCRUSTES_BYTES:
        raise MemoryError(
            f"the products of {len(one)} x {len(other)} entries need {size / 2**30:.1f} GiB; expected at most "
            f"{_PROCRUSTES_BYTES / 2**30:.0f}; name fewer layers, or use method='cka'"
        )


def _labelled(value: Tensor, n: int, said: dict[str, Any], by: str, one: Source, other: Source) -> xr.Dataset:
    import xarray as xr

    dims = (by, f"{by}_b")
    coords = {by: list(one.entries), f"{by}_b": list(other.entries)}
    attrs = said | {"a": one.name, "b": other.name, "n": n}
    return xr.Dataset({said["method"]: (dims, value.numpy()), "n": ((), n)}, coords, attrs)
