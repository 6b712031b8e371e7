"""How sharply the path through the positions of a prompt bends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

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

    The dataset holds both, averaged over prompts, over step, noise (where it is defined), state and layer, of the path
    through the positions in that state alone, one after the other; with "_all" without state, of the path through all
    measured positions; and "n" and "n_all", the number of prompts with three such positions or more. In float64. Two
    positions of a path that are the same have no step between them, and give NaN.

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
        z, groups = left_out(visit.values["resid_post"], self.drop).double(), visit.cells.groups > 0
        found = {name: z.new_full((len(z), *visit.cells.sizes.shape), torch.nan) for name in self.formulas}
        for row, group in (visit.cells.sizes >= self.min_rows).nonzero().tolist():
            path = z[:, row, groups[row, :, group]]
            step = path.diff(dim=1)
            found["curvature"][:, row, group] = angle(step[:, 1:], step[:, :-1]).mean(-1)
            found["angle"][:, row, group] = angle(path[:, 1:], path[:, :-1]).mean(-1)
        return found
