"""Centred kernel alignment: how alike two layers arrange the positions of a prompt."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, final

import torch
from einops import rearrange
from jaxtyping import Float, Float64
from torch import Tensor

from dlens.axes import STATES
from dlens.checks import as_flag, plain_fields, require_word
from dlens.measures.base.arrays import DropsChannels, check_channels, labelled, scratch
from dlens.measures.base.cells import Groups
from dlens.measures.base.gram import Gram, Matrices, gram_of, join
from dlens.measures.base.measure import Measure, Span, Sums, Visit
from dlens.measures.base.settings import require_above

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["CKA", "hsic"]

MIN_ROWS = 4
"""HSIC1 is defined for more than three rows."""


def hsic(k: Matrices, member: Groups, debiased: bool = True) -> Float64[Tensor, "batch group layer layer_b"]:
    """HSIC of every pair of layers, over the rows of each group; NaN for a group of fewer than four rows.

    HSIC1 of Song et al. 2007, unbiased: with K~ = K without its diagonal,
    1 / (n (n - 3)) [tr(K~ L~) + 1'K~1 1'L~1 / ((n - 1)(n - 2)) - 2 / (n - 2) 1'K~L~1].
    HSIC0, biased: tr(K H L H) / (n - 1)^2 with H = I - 11'/n.

    Args:
        k: a kernel's matrix of each layer and prompt.
        member: 1 where a row is in a group; a row is in at most one.
        debiased: HSIC1, else HSIC0.
    """
    return _estimate(_traces(k * (member @ member.mT), member, debiased), member.sum(1), debiased)


@dataclass(frozen=True)
class _Traces:
    """What HSIC of every pair of layers is made of, over the rows of each group.

    Args:
        trace: tr(K L).
        of_rows: 1'KL1.
        totals: 1'K1.
    """

    trace: Float64[Tensor, "batch group layer layer_b"]
    of_rows: Float64[Tensor, "batch group layer layer_b"]
    totals: Float64[Tensor, "batch group layer"]


def _traces(k: Matrices, member: Groups, debiased: bool) -> _Traces:
    """Of K~ for HSIC1; of H K H for HSIC0. K is 0 outside of the groups, and is written over."""
    if debiased:
        k.diagonal(dim1=-2, dim2=-1).zero_()
    else:
        k = _doubly_centred(k, member)
    # Row by row, so that all groups cost one pass: [batch and position, layer, position_b].
    by_row = k.permute(1, 2, 0, 3).flatten(0, 1)
    products = torch.bmm(by_row, by_row.mT).flatten(1).unflatten(0, member.shape[:2])
    trace = (member.mT @ products).double().unflatten(-1, (len(k), len(k)))
    sums = rearrange(k.sum(-1).double(), "layer batch position -> batch 1 position layer")
    own = member.mT.double()[..., None] * sums
    return _Traces(trace, own.mT @ sums, own.sum(2))


def _estimate(
    parts: _Traces, sizes: Float[Tensor, "batch group"], debiased: bool
) -> Float64[Tensor, "batch group layer layer_b"]:
    n = sizes.double()[..., None, None]
    if debiased:
        of_all = parts.totals[..., :, None] * parts.totals[..., None, :]
        value = (parts.trace + of_all / ((n - 1) * (n - 2)) - 2 / (n - 2) * parts.of_rows) / (n * (n - 3))
    else:
        value = parts.trace / (n - 1) ** 2
    return torch.where(n >= MIN_ROWS, value, torch.nan)


def _doubly_centred(k: Matrices, member: Groups) -> Matrices:
    """H K H within each group, for K that is 0 outside of them."""
    same = member @ member.mT
    n = same.sum(-1).clamp(min=1)
    means = k.sum(-1) / n
    overall = (same @ means[..., None])[..., 0] / n
    return (k - means[..., None] - (means - overall)[..., None, :]) * same


def _by_group(values: Float[Tensor, "layer batch position"], member: Groups) -> Float[Tensor, "batch group layer"]:
    """Sums over the positions of each group."""
    return member.mT @ rearrange(values, "layer batch position -> batch position layer")


def rbf(k: Matrices, member: Groups, fraction: float) -> Matrices:
    """exp(-d_ij^2 / (2 s^2)), s a fraction of the median distance between two rows of the same group.

    The median is the lower of the middle two where their number is even, as `torch.median` has it.
    """
    diagonal = k.diagonal(dim1=-2, dim2=-1)
    squares = (diagonal[..., :, None] + diagonal[..., None, :] - 2 * k).clamp(min=0)
    other = ~torch.eye(k.shape[-1], dtype=torch.bool, device=k.device)
    widths = torch.ones_like(diagonal)
    for group in member.unbind(-1):
        inside = group[:, :, None] * group[:, None, :] > 0
        distances = torch.where(inside & other, squares, torch.nan).flatten(-2).nanmedian(-1).values
        widths = torch.where(group > 0, fraction**2 * distances[..., None], widths)
    return torch.exp(-squares / (2 * widths[..., None]))


@final
@dataclass(frozen=True, kw_only=True)
class CKA(DropsChannels, Measure):
    """Centred kernel alignment of resid_post between every two layers.

    HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) (Kornblith et al., arXiv 1905.00414), K and L the Gram
    matrices of two layers. Rows are positions of one prompt at one step; HSIC terms are averaged
    over prompts and steps before the ratio (Nguyen et al., arXiv 2010.15327, equation 3). HSIC1 by
    default, whose expectation for unrelated data is 0: it may be negative, and CKA is NaN where
    the average of HSIC(K, K) is not positive. HSIC0 reads high wherever rows are few beside channels.

    The dataset holds "cka" over noise (where it is defined), state, layer and layer_b, from the
    rows in that state alone; "cka_all" without state, from all measured positions together;
    their averaged terms "hsic" and "hsic_all", which can be averaged further before a ratio; and
    "n" and "n_all", the number of (prompt, step) pairs that had at least four rows.

    Args:
        kernel: "linear", or "rbf": exp(-d^2 / 2 s^2) with s = `fraction` x the median distance
            between the rows, of each layer, prompt and step.
        debiased: HSIC1, else HSIC0.
        fraction: for "rbf".
        drop: channels left out.
        name: key in `record.measures`, "cka" by default.

    Examples:
        >>> CKA().key, CKA(kernel="rbf", debiased=False).kernel
        ('cka', 'rbf')
    """

    replays = True
    kernel: Literal["linear", "rbf"] = "linear"
    debiased: bool = True
    fraction: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_word("kernel", self.kernel, ("linear", "rbf"), "'linear' or 'rbf'")
        as_flag(self.debiased, "debiased")
        require_above("fraction", self.fraction, 0, "more than 0", 0.5)
        plain_fields(self)

    @property
    def key(self) -> str:
        return "cka" if self.name is None else self.name

    @property
    def points(self) -> tuple[str, ...]:
        return ("resid_post",)

    def start(self, span: Span) -> Sums:
        check_channels(self.drop, span.d_model)
        groups = (span.n_noise, len(STATES) + 1)
        sizes = {"hsic": (*groups, span.n_layers, span.n_layers), "n": groups}
        return {key: torch.zeros(size, dtype=torch.float64, device=span.device) for key, size in sizes.items()}

    def update(self, sums: Sums, visit: Visit) -> None:
        parts: list[Gram] = visit.carried.setdefault(self, [])
        # A sum of exponentials needs its exponents more exactly than a sum of products its factors.
        parts.append(gram_of(visit, self.drop, exact=self.kernel == "rbf"))
        if not visit.last:
            return
        terms = self._terms(join(parts), visit)
        enough = visit.cells.sizes >= MIN_ROWS
        sums["hsic"].index_add_(0, visit.cells.noise, torch.where(enough[..., None, None], terms, 0))
        sums["n"].index_add_(0, visit.cells.noise, enough.to(sums["n"]))

    def _terms(self, gram: Gram, visit: Visit) -> Float64[Tensor, "batch group layer layer_b"]:
        """By state, and over all positions last; 0 for layers at which the rows are alike."""
        groups = visit.cells.groups.to(gram.base)
        work = scratch(visit, "pairs", gram.base.shape, gram.base.dtype)
        parts, spread = [], []
        for products, member in ((gram.within, groups[..., :-1]), (gram.centred, groups[..., -1:])):
            matrix = products(work)
            spread.append(_by_group(matrix.diagonal(dim1=-2, dim2=-1), member))
            k = matrix if self.kernel == "linear" else rbf(matrix, member, self.fraction)
            parts.append(_traces(torch.mul(k, member @ member.mT, out=work), member, self.debiased))
        both = _Traces(*(torch.cat([getattr(part, field.name) for part in parts], 1) for field in fields(_Traces)))
        spreads = torch.cat(spread, 1)
        # What is not finite stays so.
        alike = (spreads <= gram.rounding * _by_group(gram.energy(), groups)) & (spreads < torch.inf)
        value = _estimate(both, visit.cells.sizes, self.debiased)
        return value.masked_fill_(alike[..., :, None] | alike[..., None, :], 0)

    def result(self, sums: Sums, span: Span) -> xr.Dataset:
        n = sums["n"].cpu()
        terms = sums["hsic"].cpu() / n[..., None, None]
        norms = terms.diagonal(dim1=-2, dim2=-1)
        norms = torch.where(norms > 0, norms, torch.nan).sqrt()
        cka = terms / norms[..., :, None] / norms[..., None, :]
        noise = span.noise_dims
        cells, pair = (*noise, "state"), ("layer", "layer_b")
        if not span.has_noise:
            n, terms, cka = n[0], terms[0], cka[0]
        states = slice(0, len(STATES))
        return labelled(
            {
                "cka": ((*cells, *pair), cka[..., states, :, :]),
                "cka_all": ((*noise, *pair), cka[..., -1, :, :]),
                "hsic": ((*cells, *pair), terms[..., states, :, :]),
                "hsic_all": ((*noise, *pair), terms[..., -1, :, :]),
                "n": (cells, n[..., states].long()),
                "n_all": (noise, n[..., -1].long()),
            },
            span,
            coords={"layer_b": list(range(span.n_layers))},
            estimator=self._estimator(),
            pooling="HSIC averaged over prompts and steps, then the ratio; NaN where the average of HSIC(K, K) is <= 0",
            positions=f"rows are the positions of one prompt at one step, {MIN_ROWS} at least, in one state or in all; "
            "all but padding and what follows the end of a row",
            point="resid_post of every layer",
            channels_left_out=list(self.left_out),
            n=int(sums["n"][..., -1].sum()),
            count_of_cka_all="n_all",
            count_of_hsic_all="n_all",
        )

    def _estimator(self) -> str:
        kernel = "linear" if self.kernel == "linear" else f"RBF of {self.fraction} x the median distance"
        return f"CKA, {kernel} kernel, {'HSIC1 (debiased)' if self.debiased else 'HSIC0 (biased)'}"
