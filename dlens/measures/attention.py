"""Which positions draw the attention of all others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dlens.checks import plain_fields
from dlens.measures.base.arrays import wide
from dlens.measures.base.cells import cell_of
from dlens.measures.base.means import Means, Samples
from dlens.measures.base.measure import Measure, Visit
from dlens.measures.base.settings import require_above

__all__ = ["Attention", "key_states", "mass_of", "sinks_of"]

_BY_ROW = ("sinks", "sink_mass", "first_mass", "largest")


@final
@dataclass(frozen=True, kw_only=True)
class Attention(Means):
    """Attention that each position receives, and the sinks among them.

    The mass of key j is A[j] = sum over queries i of mean over heads of a[i, j], times keys / queries:
    the sum itself where a step computes every position, and 1 on average also where decoding with a
    cache computes one. j is a sink where A[j] > mean over k != j of A[k] + `margin` (arXiv 2510.15731,
    whose margin of 3 has meaning for sums over queries only). Queries and keys are the measured
    positions; what they give to others is lost, so that the average may lie below 1.

    The dataset holds, over step, noise (where it is defined), state of the key and layer: "mass", the mean
    over keys; "sink_share", the share of keys that are sinks; "n", the number of keys. Over step, noise
    and layer, averaged over prompts: "sinks", their number; "sink_mass", the share of all mass on them;
    "first_mass", the mass of the first measured position; "largest", the largest mass; and "n_prompts".

    In a causal model early keys are seen by more queries, which alone gives them more mass.

    Reads `pattern`, which is there whatever attention kernel a model was loaded with.

    Args:
        margin: how far above the others a sink lies.
        name: key in `record.measures`, "attention" by default.

    Examples:
        >>> Attention(margin=2).key
        'attention'
    """

    margin: float = 3.0

    without_state = ("n_prompts",)
    pooling = "by key over prompts and positions; sinks, sink_mass, first_mass and largest over prompts"
    positions = "all but padding and what follows the end of a row, as queries and as keys; state is the key's"

    def __post_init__(self) -> None:
        require_above("margin", self.margin, 0, "a number above 0, in average masses", 3)
        plain_fields(self)

    @property
    def points(self) -> tuple[str, ...]:
        return ("pattern",)

    @property
    def counts(self) -> Mapping[str, str]:
        return {"mass": "n", "sink_share": "n"} | dict.fromkeys(_BY_ROW, "n_prompts")

    @property
    def estimator(self) -> str:
        return (
            "mass of a key = sum over queries of the mean over heads, times keys / queries (1 on average); a "
            f"sink has more than the mean of the other keys + {self.margin:g}"
        )

    def samples(self, visit: Visit) -> Mapping[str, Samples]:
        pattern = visit.values["pattern"]
        state, noise = visit.cells.state, visit.cells.noise
        keys = key_states(self, visit)[:, -pattern.shape[-1] :]
        mass = mass_of(pattern, state >= 0, keys >= 0)
        sink = sinks_of(mass, keys >= 0, self.margin)
        by_key = {"mass": mass.flatten(1), "sink_share": sink.flatten(1)}
        return {
            "n": Samples(by_key, cell_of(noise, keys).flatten()),
            "n_prompts": Samples(_by_row(mass, sink, keys >= 0), torch.where((state >= 0).any(-1), noise, -1)),
        }


def key_states(measure: Measure, visit: Visit) -> Int[Tensor, "batch position"]:
    """The state of every position so far: with a cache a step computes the newest alone, and attends to all."""
    state = visit.cells.state
    if visit.keys is not None:
        return visit.keys
    if visit.layers.start == 0:
        whole = visit.step == 0 or state.shape[-1] > 1
        visit.kept[measure] = state if whole else torch.cat([visit.kept[measure], state], 1)
    return visit.kept[measure]


def mass_of(
    pattern: Float[Tensor, "layer batch head query key"],
    queries: Bool[Tensor, "batch query"],
    keys: Bool[Tensor, "batch key"],
) -> Float[Tensor, "layer batch key"]:
    """What each key receives, 1 on average; 0 where a key is not measured."""
    counted = queries[:, None, :, None] & keys[:, None, None, :]
    received = torch.where(counted, wide(pattern), 0).mean(2).sum(2)
    return received * (keys.sum(-1) / queries.sum(-1).clamp(min=1))[:, None]


def sinks_of(
    mass: Float[Tensor, "layer batch key"], keys: Bool[Tensor, "batch key"], margin: float
) -> Float[Tensor, "layer batch key"]:
    """1 where a key is a sink; NaN where its mass is, and none where a key has no others."""
    others = (mass.sum(-1, keepdim=True) - mass) / (keys.sum(-1)[:, None] - 1)
    return torch.where(mass.isnan(), torch.nan, (keys & (mass > others + margin)).to(mass))


def _by_row(
    mass: Float[Tensor, "layer batch key"], sink: Float[Tensor, "layer batch key"], keys: Bool[Tensor, "batch key"]
) -> dict[str, Float[Tensor, "layer batch"]]:
    """What is averaged over prompts."""
    first = keys.long().argmax(-1)[None, :, None].expand(len(mass), -1, -1)
    total = mass.sum(-1)
    return {
        "sinks": sink.sum(-1),
        "sink_mass": (mass * sink).sum(-1) / total,
        "first_mass": mass.gather(-1, first)[..., 0],
        "largest": mass.amax(-1),
    }
