"""How sharply the path through the positions of a prompt bends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dlens.axes import STATES
from dlens.measures.base.arrays import DropsChannels, left_out
from dlens.measures.base.means import PromptMeans
from dlens.measures.base.measure import Visit

__all__ = ["Curvature", "angle"]


def angle(a: Float[Tensor, "*rows d_model"], b: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows"]:
    """The angle between vectors, in radians; NaN where one is zero.

    Examples:
        >>> round(float(angle(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0]))), 4)
        1.5708
    """
    cosine = (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))
    return cosine.clamp(-1, 1).arccos()


@final
@dataclass(frozen=True, kw_only=True)
class Curvature(DropsChannels, PromptMeans):
    """The curvature of a prompt at resid_post, by two definitions that differ.

    "curvature" is that of the paper (Skean et al., arXiv 2502.02013, equation 4; Hosseini and Fedorenko, arXiv
    2311.04930): with v_k = z_(k+1) - z_k the steps from one position to the next, the mean over k of the angle between
    v_(k+1) and v_k, in radians. "angle" is the mean angle between the states themselves, z_k and z_(k+1), as older code
    of the paper has it. The newest code takes the magnitude of the first one's cosine, which this does not.

    The dataset holds both, averaged over prompts, over step, noise (where it is defined), state and layer, from
    neighbours that are all in that state; with "_all" without state, from all neighbours that are measured; and "n" and
    "n_all", the number of prompts with three positions or more. NaN where a prompt has no such neighbours. In float64.

    Args:
        drop: channels left out.
        name: key in `record.measures`, "curvature" by default.

    Examples:
        >>> import dlens
        >>> trace = dlens.trace("trio/ar").measure(dlens.Curvature())
        >>> data = trace.forward("Once upon a time there was a girl").measures["curvature"]
        >>> data["curvature_all"].dims, bool((data["curvature_all"] > data["angle_all"]).all())
        (('step', 'layer'), True)
    """

    formulas = {
        "curvature": "mean angle between one step from a position to the next and the step after, radians",
        "angle": "mean angle between a position and the next, radians",
    }
    min_rows = 3

    def values(self, visit: Visit) -> Mapping[str, Float[Tensor, "layer batch group"]]:
        z = left_out(visit.values["resid_post"], self.drop).double()
        state = visit.cells.state
        groups = torch.stack([*(state == number for number in range(len(STATES))), state >= 0], -1)
        step = z[..., 1:, :] - z[..., :-1, :]
        return {
            "curvature": _averaged(angle(step[..., 1:, :], step[..., :-1, :]), groups),
            "angle": _averaged(angle(z[..., 1:, :], z[..., :-1, :]), groups),
        }


def _averaged(
    angles: Float[Tensor, "layer batch place"], groups: Bool[Tensor, "batch position group"]
) -> Float[Tensor, "layer batch group"]:
    """The mean over places whose positions are all in a group; NaN where there is none."""
    reach = groups.shape[1] - angles.shape[-1]
    inside = torch.stack([groups[:, start : start + angles.shape[-1]] for start in range(reach + 1)]).all(0)
    total = torch.where(inside[None], angles[..., None], 0).sum(-2)
    return total / inside.sum(-2)
