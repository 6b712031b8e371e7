"""How long the values of attention sinks are, beside those of all other tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch

from dlens.measures.attention import key_states, mass_of, sinks_of
from dlens.measures.base.arrays import wide
from dlens.measures.base.means import Means, Samples
from dlens.measures.base.measure import Visit
from dlens.measures.base.settings import require_above

__all__ = ["SinkValues"]


@final
@dataclass(frozen=True, kw_only=True)
class SinkValues(Means):
    """Length of the value vectors of attention sinks, and of all other positions.

    A sink is a position that draws far more attention than the others, as in `dlens.Attention`. That sinks have short
    values, so that what is given to them adds little, was seen in diffusion models (arXiv 2510.15731).

    The dataset holds, over step, noise (where it is defined) and layer: "sink_norm" and "other_norm", the mean over
    positions of |v|, averaged over heads; "n_sinks" and "n", the numbers of positions that are sinks and that are
    not. With a cache a step computes the values of its own columns alone, and these count.

    Args:
        margin: how far above the others a sink lies, in average masses.
        name: key in `record.measures`, "sink_values" by default.

    Examples:
        >>> import dlens
        >>> record = dlens.trace("trio/ar").measure(SinkValues(margin=1)).forward("Once upon a time")
        >>> data = record.measures["sink_values"]
        >>> data["sink_norm"].dims, bool(data["n_sinks"].sum() > 0)
        (('step', 'layer'), True)
    """

    margin: float = 3.0

    formulas = {"sink_norm": "mean |v| at sinks", "other_norm": "mean |v| elsewhere"}
    counted = {"sink_norm": "n_sinks"}
    without_state = ("n", "n_sinks")
    pooling = "over positions and heads; a position counts once a step"

    def __post_init__(self) -> None:
        require_above("margin", self.margin, 0, "a number above 0, in average masses", 3)

    @property
    def points(self) -> tuple[str, ...]:
        return ("v", "pattern")

    def samples(self, visit: Visit) -> Mapping[str, Samples]:
        pattern, v = visit.values["pattern"], wide(visit.values["v"])
        state, noise = visit.cells.state, visit.cells.noise
        keys = key_states(self, visit)[:, -pattern.shape[-1] :]
        sink = sinks_of(mass_of(pattern, state >= 0, keys >= 0), keys >= 0, self.margin)
        sink = sink[..., -v.shape[2] :].flatten(1)
        norm = torch.linalg.vector_norm(v, dim=-1).mean(-1).double().flatten(1)
        cell = torch.where(state >= 0, noise[:, None], -1).flatten()
        return {
            "n_sinks": Samples({"sink_norm": norm}, cell, where=sink == 1),
            "n": Samples({"other_norm": norm}, cell, where=sink == 0),
        }
