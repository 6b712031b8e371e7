"""Inner products between the positions of a prompt, one matrix a layer, for all measures that need them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dlens.measures.base.arrays import LayerValues, scratch, wide, zeroed
from dlens.measures.base.cells import Cells, Groups
from dlens.measures.base.measure import Visit

__all__ = ["Gram", "cosines", "from_products", "gram_of", "join", "spectra"]

Matrices = Float[Tensor, "layer batch position position_b"]
Ends = Float[Tensor, "layer batch position state"]


@dataclass(frozen=True)
class Gram:
    """Inner products of positions of one prompt at one step, about three origins.

    One of the three is kept, and what turns it into the others. That is the same for all pairs of a position
    with the positions of a state, so each is a matrix E of one column a state: the other is
    base + E member^T + member E^T. Positions that are not measured count as 0. Matrices are read only, unless
    they lie in the memory that was given for them; the kept one never does.

    Args:
        base: one of the three.
        to_within: E of the products about the mean of each state; None where `base` is these.
        to_centred: E of the products about the mean of all measured positions.
        to_raw: E of the products as they are; None where `base` is these.
        member: 1 where a position is in a state.
        rounding: rows that differ by less than this share of their energy differ by rounding.
    """

    base: Matrices
    to_within: Ends | None
    to_centred: Ends
    to_raw: Ends | None
    member: Float[Tensor, "batch position state"]
    rounding: float

    def within(self, work: Matrices | None = None) -> Matrices:
        """(x_i - m_i) . (x_j - m_j), each less the mean of its state."""
        return self._moved(self.to_within, work)

    def centred(self, work: Matrices | None = None) -> Matrices:
        """(x_i - o) . (x_j - o), less the mean of all measured positions."""
        return self._moved(self.to_centred, work)

    def raw(self, work: Matrices | None = None) -> Matrices:
        """x_i . x_j."""
        return self._moved(self.to_raw, work)

    def energy(self) -> Float[Tensor, "layer batch position"]:
        """x_i . x_i."""
        diagonal = self.base.diagonal(dim1=-2, dim2=-1)
        return diagonal if self.to_raw is None else diagonal + 2 * (self.to_raw * self.member).sum(-1)

    def _moved(self, ends: Ends | None, work: Matrices | None) -> Matrices:
        if ends is None:
            return self.base
        member = self.member.expand(len(ends), -1, -1, -1)
        left, right = torch.cat([ends, member], -1), torch.cat([member, ends], -1)
        work = torch.empty_like(self.base) if work is None else work
        work.copy_(self.base).flatten(0, 1).baddbmm_(left.flatten(0, 1), right.flatten(0, 1).mT)
        return work


def gram_of(visit: Visit, drop: Sequence[int] = (), exact: bool = False) -> Gram:
    """The Gram matrices of resid_post, computed once for all measures of a visit.

    Args:
        visit: its layers.
        drop: channels left out.
        exact: in float64; else in float32, or in float64 where values came in it.
    """
    key = ("gram", tuple(drop), exact)
    if key not in visit.shared:
        visit.shared[key] = _gram(visit, drop, exact)
    return visit.shared[key]


def _gram(visit: Visit, drop: Sequence[int], exact: bool) -> Gram:
    value, cells = visit.values["resid_post"], visit.cells
    if value.is_cuda and value.dtype in (torch.bfloat16, torch.float16) and not exact:
        x = (zeroed(value, cells, drop) if drop else value).flatten(0, 1)
        # Products of half precision are exact in float32, and tensor cores sum them a dozen times faster.
        return from_products(torch.bmm(x, x.mT, out_dtype=torch.float32).unflatten(0, value.shape[:2]), cells)
    x = zeroed(value.double() if exact else wide(value), cells, drop)
    shape = (*x.shape[:3], x.shape[2])
    # What a measure carries on to the step's next visit must not be written over by that.
    whole = visit.layers.start == 0 and visit.last
    within = scratch(visit, f"gram without {drop}", shape, x.dtype) if whole else x.new_empty(shape)
    return _from_vectors(x, cells, scratch(visit, "stream", x.shape, x.dtype), within)


def from_products(raw: Matrices, cells: Cells) -> Gram:
    """The Gram matrices from inner products alone, without the vectors.

    Rounding errors are those of the products, so they are relative to the vectors with their mean; in exchange
    nothing of the size of the stream is written.

    Args:
        raw: x_i . x_j; whatever it holds at positions that are not measured.
        cells: which positions are measured, in which states.
    """
    inside = cells.state >= 0
    raw = torch.where(inside[:, :, None] & inside[:, None, :], raw, 0)
    # x_i . m_t with the mean of each state and, last, of all; and half of m_s . m_t.
    averaging, groups = cells.averaging.to(raw), cells.groups.to(raw)
    member, measured = groups[..., :-1], groups[..., -1:]
    to_means = raw @ averaging
    half = averaging.mT @ to_means / 2
    within = member @ half[..., :-1, :-1] - to_means[..., :-1]
    centred = measured @ half[..., -1:, -1:] - to_means[..., -1:]
    return Gram(raw, within, centred.expand_as(within), None, member, rounding=1e-6)


def _from_vectors(x: LayerValues, cells: Cells, y: LayerValues, within: Matrices) -> Gram:
    """Centred before they are multiplied, so that no large mean costs precision; writes over `y` and `within`."""
    means = cells.averaging.to(x).mT @ x
    means, overall = means[..., :-1, :], means[..., -1:, :]
    member = cells.member.to(x)
    flat = member.expand(len(x), -1, -1, -1).flatten(0, 1)
    y = y.copy_(x).flatten(0, 1).baddbmm_(flat, means.flatten(0, 1), alpha=-1)
    torch.bmm(y, y.mT, out=within.flatten(0, 1))

    def ends(origins: Float[Tensor, "layer batch state d_model"]) -> Ends:
        """E of the products of y_i + origin of the state of i."""
        around = origins.flatten(0, 1)
        products = torch.bmm(y, around.mT)
        return torch.baddbmm(products, flat, torch.bmm(around, around.mT), alpha=0.5).unflatten(0, x.shape[:2])

    return Gram(within, None, ends(means - overall), ends(means), member, rounding=1e-11)


def join(parts: Sequence[Gram]) -> Gram:
    """The layers of several visits of one step."""
    if len(parts) == 1:
        return parts[0]

    def joined(name: str) -> Tensor:
        # Visits of unlike types may keep unlike products.
        each = [getattr(part, name) for part in parts]
        return torch.cat([torch.zeros_like(p.to_centred) if e is None else e for p, e in zip(parts, each, strict=True)])

    base, centred, within, raw = map(joined, ("base", "to_centred", "to_within", "to_raw"))
    return Gram(base, within, centred, raw, parts[0].member, max(part.rounding for part in parts))


def cosines(raw: Matrices, measured: Bool[Tensor, "batch position"], work: Matrices) -> Matrices:
    """Cosine of every two measured positions, in `work`; 0 where one is zero or not measured."""
    lengths = raw.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
    scale = torch.where(measured & (lengths != 0), 1 / lengths, 0)
    return torch.mul(raw, scale[..., :, None], out=work).mul_(scale[..., None, :])


def spectra(k: Matrices, groups: Groups) -> Float[Tensor, "layer batch group position"]:
    """The eigenvalues of a kernel's matrix over the rows of each group, smallest first; NaN where it is not finite.

    There are as many as positions: those that a group does not have add zeros. On CUDA this waits for the
    device, as PyTorch asks there whether the computation converged.

    Args:
        k: positive semidefinite.
        groups: 1 where a row is in a group.
    """
    found = []
    for member in (groups > 0).unbind(-1):
        own = torch.where(member[:, :, None] & member[:, None, :], k, 0)
        finite = own.isfinite().all(-1).all(-1)[..., None]
        values = torch.linalg.eigvalsh(torch.where(finite[..., None], own, 0))
        found.append(torch.where(finite, values.clamp(min=0), torch.nan))
    return torch.stack(found, -2)
