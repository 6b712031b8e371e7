"""One change of a model that is compared with the model as it is, and the channels that stand as controls."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dlens.findings.effects.weights import Side, without_weights
from dlens.findings.scores.batches import rng
from dlens.tracing.chain import Trace

__all__ = ["Change", "Where", "equal_energy", "random_channel", "random_channels"]

Where = Literal["nowhere", "activations", "rows", "columns"]
_ENOUGH_ENERGY = 0.9


@final
@dataclass(frozen=True)
class Change:
    """One change of a model: blocks that are skipped, or channels that are taken out.

    Args:
        name: how it is called in tables and claims.
        words: what is done, for a reader.
        layers: the blocks that are skipped.
        channels: the channels that are taken out: in the activations after every block but the last, or in weights.
        value: what the activations are set to.
        weights: which weights of the channel are zero instead, in every block; None leaves them.

    Examples:
        >>> [Change("", channels=(5,), weights=side).where for side in (None, "rows")], Change("").where
        (['activations', 'rows'], 'nowhere')
    """

    name: str
    words: str = ""
    layers: tuple[int, ...] = ()
    channels: tuple[int, ...] = ()
    value: Literal["zero", "mean"] = "zero"
    weights: Side | None = None

    @property
    def where(self) -> Where:
        """Where channels are taken out."""
        return self.weights or ("activations" if self.channels else "nowhere")

    def applied(self, chain: Trace) -> Trace:
        """The model with the change, while `holding` holds."""
        if self.layers:
            return chain.skip(self.layers)
        if self.where == "activations":
            return chain.ablate(range(chain.target.n_layers - 1), self.channels, self.value)
        return chain

    def holding(self, chain: Trace) -> AbstractContextManager[None]:
        """While it is open, the weights that the change sets to zero are."""
        return nullcontext() if self.weights is None else without_weights(chain.model, self.channels[0], self.weights)


def equal_energy(shares: Float[Tensor, " d_model"], channel: int, besides: Collection[int] = ()) -> tuple[int, ...]:
    """The largest channels but one, as many as come closest to its share of the energy.

    Those of `besides` are not among them. Empty where half of all channels hold less than nine tenths of it together:
    without so many, nothing is left to compare with.

    Examples:
        >>> equal_energy(torch.tensor([0.1, 0.4, 0.3, 0.15, 0.05]), 1)
        (2, 3)
    """
    others = _others({channel, *besides}, shares.argsort(descending=True).tolist())
    total = shares[others].cumsum(0)[: max(1, len(shares) // 2)]
    if total[-1] < _ENOUGH_ENERGY * shares[channel]:
        return ()
    return tuple(others[: int((total - shares[channel]).abs().argmin()) + 1])


def random_channels(channel: int, d_model: int, n: int, seed: int) -> tuple[int, ...]:
    """Channels drawn at random from all but one, in the order drawn.

    Examples:
        >>> random_channels(2, 5, 4, seed=0)
        (0, 1, 4, 3)
    """
    others = torch.tensor(_others({channel}, range(d_model)))
    return tuple(others[torch.randperm(len(others), generator=rng(seed))[:n]].tolist())


def random_channel(channel: int, d_model: int, seed: int, besides: Collection[int] = ()) -> int:
    """One channel drawn at random from all but one and those of `besides`; that one where there is no other.

    A draw of its own, not the first of `random_channels`: reports of every version name the same channel.

    Examples:
        >>> random_channel(2, 5, seed=0)
        4
    """
    others = _others({channel, *besides}, range(d_model))
    return others[int(np.random.default_rng(seed).integers(len(others)))] if others else channel


def _others(left_out: Collection[int], channels: Sequence[int]) -> list[int]:
    return [other for other in channels if other not in left_out]
