"""The entropy of the positions of a prompt, of any order and in any unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, final, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from dlens.checks import plain_fields, require_word
from dlens.measures.base.arrays import DropsChannels, scratch
from dlens.measures.base.gram import cosines, gram_of, spectra
from dlens.measures.base.means import PromptMeans
from dlens.measures.base.measure import Visit
from dlens.measures.base.settings import require_above

__all__ = ["MatrixEntropy", "Unit", "entropy_of"]

Unit = Literal["nats", "log n", "log d", "most"]


def entropy_of(eigenvalues: Float[Tensor, "*rows n"], alpha: float = 1.0) -> Float[Tensor, "*rows"]:
    """Renyi's entropy of order alpha of p = lambda / sum of lambda, in nats; Shannon's at 1.

    S_alpha = log(sum p^alpha) / (1 - alpha) (Skean et al., arXiv 2502.02013, equation 1).

    Examples:
        >>> even = torch.ones(4)
        >>> [round(float(entropy_of(even, alpha).exp()), 6) for alpha in (0.5, 1, 2)]
        [4.0, 4.0, 4.0]
    """
    p = eigenvalues / eigenvalues.sum(-1, keepdim=True)
    if alpha == 1:
        return torch.special.entr(p).sum(-1)
    # 0 to any power is 0 here, as the rows that a group does not have add eigenvalues of 0.
    return torch.where(p > 0, p**alpha, 0).sum(-1).log() / (1 - alpha)


@final
@dataclass(frozen=True, kw_only=True)
class MatrixEntropy(DropsChannels, PromptMeans):
    """The matrix entropy of resid_post over the positions of a prompt (Skean et al., arXiv 2502.02013, section 3).

    With Z the positions of one prompt at one layer and step, each scaled to length 1, and lambda the eigenvalues of
    Z Z^T: Renyi's entropy of order alpha of p = lambda / sum of lambda. Nothing is centred. `EffectiveRank` is its
    exponential at alpha 1, in nats.

    The dataset holds, averaged over prompts: "entropy" over step, noise (where it is defined), state and layer, from
    the positions in that state alone; "entropy_all" without state, from all measured positions together; and "n" and
    "n_all", the number of prompts with two positions or more. It costs what `EffectiveRank` costs.

    Args:
        alpha: the order; 1 is Shannon's.
        unit: "nats", or divided by the logarithm of the number of positions ("log n"), of the width ("log d") or of the
            smaller of both, the most that there can be ("most"), as the code of the paper offers.
        drop: channels left out.
        name: key in `record.measures`, "matrix_entropy" by default.

    Examples:
        >>> import dlens, math
        >>> trace = dlens.trace("trio/diffusion").measure(dlens.MatrixEntropy(), dlens.EffectiveRank())
        >>> record = trace.forward("Once upon a time there was a girl")
        >>> entropy, rank = record.measures["matrix_entropy"], record.measures["effective_rank"]
        >>> ends = float(entropy["entropy_all"].max()), float(rank["effective_rank_all"].max())
        >>> round(ends[0], 6) == round(math.log(ends[1]), 6)
        True
    """

    formulas = {
        "entropy": "Renyi's entropy of p = lambda / sum of lambda, with lambda the eigenvalues of the cosines between "
        "the positions of a prompt at resid_post, in float64"
    }

    alpha: float = 1.0
    unit: Unit = "nats"

    def __post_init__(self) -> None:
        super().__post_init__()
        plain_fields(self)
        require_above("alpha", self.alpha, 0, "a number above 0, the order of the entropy", 1.0)
        require_word("unit", self.unit, get_args(Unit))

    @property
    def estimator(self) -> str:
        """The formula with its order and unit."""
        return f"{super().estimator}; alpha {self.alpha:g}, in {self.unit}"

    def values(self, visit: Visit) -> Mapping[str, Float[Tensor, "layer batch group"]]:
        gram, cells = gram_of(visit, self.drop, exact=True), visit.cells
        work = scratch(visit, "pairs", gram.base.shape, gram.base.dtype)
        entropy = entropy_of(spectra(cosines(gram.raw(work), cells.state >= 0, work), cells.groups), self.alpha)
        if self.unit == "nats":
            return {"entropy": entropy}
        n, d = cells.sizes.double(), float(visit.values["resid_post"].shape[-1] - len(set(self.drop)))
        most = {"log n": n, "log d": torch.full_like(n, d), "most": n.clamp(max=d)}[self.unit]
        return {"entropy": entropy / most.log()}
