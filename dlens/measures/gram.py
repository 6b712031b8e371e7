"""Inner products between the positions of a prompt, one matrix a layer, for all measures that need them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dlens.axes import STATES
from dlens.measures.arrays import LayerValues, wide, wide_product
from dlens.measures.measure import Cells, Visit

__all__ = ["Gram", "from_products", "gram_of", "join"]

Matrices = Float[Tensor, "layer batch position position_b"]


@dataclass(frozen=True)
class Gram:
    """Inner products of positions of one prompt at one step, split so that no large mean costs precision.

    The vector of a position is x = y + m + o: o is the mean over the prompt's measured positions, o + m
    the mean over those in the same state, y what is left. Positions that are not measured count as 0.

    Args:
        within: y_i . y_j, centred on the mean of each state.
        shift: what `centred` adds, as products with the states' means.
        offset: what `raw` adds to `centred`.
        member: 1 where a position is in a state.
    """

    within: Matrices
    shift: Float[Tensor, "layer batch position state"]
    offset: Float[Tensor, "layer batch position"]
    member: Float[Tensor, "batch position state"]

    def centred(self) -> Matrices:
        """(x_i - o) . (x_j - o), centred on the mean of all measured positions."""
        return self._shifted(self.shift)

    def raw(self) -> Matrices:
        """x_i . x_j."""
        return self._shifted(self.shift + self.offset[..., None] * self.member.sum(-1, keepdim=True))

    def energy(self) -> Float[Tensor, "layer batch position"]:
        """x_i . x_i."""
        shift = torch.einsum("lbns,bns->lbn", self.shift + self.offset[..., None], self.member)
        return self.within.diagonal(dim1=-2, dim2=-1) + 2 * shift

    def _shifted(self, shift: Tensor) -> Matrices:
        """within + shift member^T + member shift^T."""
        member = self.member.expand(len(shift), -1, -1, -1)
        left, right = torch.cat([shift, member], -1), torch.cat([member, shift], -1)
        flat = torch.baddbmm(self.within.flatten(0, 1), left.flatten(0, 1), right.flatten(0, 1).mT)
        return flat.unflatten(0, self.within.shape[:2])


def gram_of(visit: Visit, drop: Sequence[int] = (), exact: bool = False) -> Gram:
    """The Gram matrices of resid_post, computed once for all measures of a visit.

    Args:
        visit: its layers.
        drop: channels left out.
        exact: in float64; else in float32, or in float64 where values came in it.
    """
    key = ("gram", tuple(drop), exact)
    if key not in visit.shared:
        visit.shared[key] = _gram(visit.values["resid_post"], visit.cells, drop, exact)
    return visit.shared[key]


def _gram(value: LayerValues, cells: Cells, drop: Sequence[int], exact: bool) -> Gram:
    state = cells.state.to(value.device)
    member = torch.stack([state == number for number in range(len(STATES))], -1).float()
    if value.is_cuda and value.dtype in (torch.bfloat16, torch.float16) and not exact:
        x = value.flatten(0, 1) if not drop else _zeroed(value, state, drop).flatten(0, 1)
        return from_products(wide_product(x, x.mT).unflatten(0, value.shape[:2]), member)
    x = _zeroed(value.double() if exact else wide(value), state, drop)
    return _from_vectors(x, member.to(x))


def from_products(raw: Matrices, member: Float[Tensor, "batch position state"]) -> Gram:
    """The Gram matrices from inner products alone, without the vectors.

    Rounding errors are those of the products, so they are relative to the vectors with their mean; in exchange
    nothing of the size of the stream is written.

    Args:
        raw: x_i . x_j; whatever it holds at positions that are not measured.
        member: 1 where a position is in a state.
    """
    measured = member.sum(-1) > 0
    raw = torch.where(measured[:, :, None] & measured[:, None, :], raw, 0)
    counts = member.sum(1)
    share = (counts / counts.sum(-1, keepdim=True).clamp(min=1))[..., None]
    averaging = member / counts.clamp(min=1)[:, None]
    # x_i . m_s and m_s . m_t of the states' means; then the same with the overall mean o.
    x_m = torch.matmul(raw, averaging)
    m_m = torch.matmul(averaging.mT, x_m)
    m_o = torch.matmul(m_m, share)
    o_o = torch.matmul(share.mT, m_o)
    y_m = x_m - torch.matmul(member, m_m)
    y_o = torch.matmul(y_m, share)
    ends = x_m - torch.matmul(member, m_m) / 2
    within = raw - torch.matmul(ends, member.mT) - torch.matmul(member, ends.mT)
    between = m_m - m_o - m_o.mT + o_o
    shift = y_m - y_o + torch.matmul(member, between) / 2
    offset = y_o + torch.matmul(member, m_o - o_o) + o_o / 2
    return Gram(within, shift, offset[..., 0], member)


def _from_vectors(x: LayerValues, member: Float[Tensor, "batch position state"]) -> Gram:
    counts = member.sum(1)
    # A mean over no position is never used; dividing by 1 keeps it finite.
    means = torch.matmul((member / counts.clamp(min=1)[:, None]).mT, x)
    overall = torch.matmul(counts[:, None] / counts.sum(-1).clamp(min=1)[:, None, None], means)
    apart = means - overall
    y = torch.baddbmm(x.flatten(0, 1), member.expand(len(x), -1, -1, -1).flatten(0, 1), means.flatten(0, 1), alpha=-1)
    within = torch.bmm(y, y.mT).unflatten(0, x.shape[:2])
    # x_i less o, with each state's mean less o, and with o.
    ends = torch.cat([apart, overall], 2)
    products = torch.bmm(y, ends.flatten(0, 1).mT).unflatten(0, x.shape[:2])
    between = torch.matmul(apart, ends.mT)
    shift = products[..., :-1] + torch.matmul(member, between[..., :-1]) / 2
    offset = products[..., -1] + torch.matmul(member, between[..., -1:])[..., 0]
    return Gram(within, shift, offset + overall.square().sum(-1) / 2, member)


def _zeroed(x: LayerValues, state: Int[Tensor, "batch position"], drop: Sequence[int]) -> LayerValues:
    """0 in the channels left out, and where nothing is measured, even for values that are not finite."""
    inside = (state >= 0)[..., None]
    if drop:
        kept = torch.ones(x.shape[-1], dtype=torch.bool, device=x.device)
        kept[list(drop)] = False
        return torch.where(inside & kept, x, 0)
    # Asking an accelerator would wait for it; there the pass is cheap.
    if x.device.type == "cpu" and bool(inside.all()):
        return x
    return torch.where(inside, x, 0)


def join(parts: Sequence[Gram]) -> Gram:
    """The layers of several visits of one step."""
    if len(parts) == 1:
        return parts[0]
    return Gram(
        torch.cat([part.within for part in parts]),
        torch.cat([part.shift for part in parts]),
        torch.cat([part.offset for part in parts]),
        parts[0].member,
    )
