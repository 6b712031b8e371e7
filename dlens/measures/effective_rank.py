"""In how many directions the positions of a prompt point."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from dlens.measures.base.arrays import DropsChannels, scratch
from dlens.measures.base.gram import cosines, gram_of, spectra
from dlens.measures.base.means import PromptMeans
from dlens.measures.base.measure import Visit

__all__ = ["EffectiveRank"]


@final
@dataclass(frozen=True, kw_only=True)
class EffectiveRank(DropsChannels, PromptMeans):
    """The effective rank of resid_post over the positions of a prompt: how many directions they spread over.

    With Z the positions of one prompt at one layer and step, each scaled to length 1, K = Z Z^T, lambda its
    eigenvalues and p = lambda / tr K: exp(-sum p log p), the exponential of the matrix entropy of order 1
    (Skean et al., arXiv 2502.02013; Roy and Vetterli 2007, who take singular values where this takes their
    squares). Nothing is centred and nothing is normalised: 1 is one direction for all, and n positions or
    d_model, whichever is smaller, the most there can be, so compare equal numbers of positions.

    The dataset holds, averaged over prompts: "effective_rank" over step, noise (where it is defined), state
    and layer, from the positions in that state alone; "effective_rank_all" without state, from all measured
    positions together; and "n" and "n_all", the number of prompts with two positions or more.

    In float64. It costs the eigenvalues of four matrices of n x n a layer and prompt at every step, which is
    more than all other measures together; on a GPU every step waits for them. Where a model decodes with a
    cache, a step computes one position and is NaN; a forward over the finished tokens has them all.

    Args:
        drop: channels left out.
        name: key in `record.measures`, "effective_rank" by default.

    Examples:
        >>> EffectiveRank().key
        'effective_rank'
    """

    formulas = {
        "effective_rank": "exp of the entropy of p = lambda / sum of lambda, in nats and not normalised, with lambda "
        "the eigenvalues of the cosines between the positions of a prompt at resid_post, in float64"
    }

    def values(self, visit: Visit) -> Mapping[str, Float[Tensor, "layer batch group"]]:
        gram, cells = gram_of(visit, self.drop, exact=True), visit.cells
        work = scratch(visit, "pairs", gram.base.shape, gram.base.dtype)
        eigenvalues = spectra(cosines(gram.raw(work), cells.state >= 0, work), cells.groups)
        p = eigenvalues / eigenvalues.sum(-1, keepdim=True)
        return {"effective_rank": torch.special.entr(p).sum(-1).exp()}
