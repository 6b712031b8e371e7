"""A change skips blocks, sets channels or zeroes weights; controls are drawn from the other channels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import dlens
from dlens.findings.effects.change import Change, equal_energy, random_channel, random_channels
from dlens.findings.effects.weights import channel_weights


def test_a_change_is_applied_to_blocks_or_channels(ar: dlens.Model) -> None:
    chain = dlens.trace(ar)
    assert Change("none").applied(chain) is chain
    [skipped] = Change("", layers=(3, 5)).applied(chain).ops
    assert skipped.words() == "skip layers 3, 5"
    record = Change("", channels=(7,), value="zero").applied(chain).capture("resid_post").forward("Once")
    assert not record["resid_post"][:-1, ..., 7].any() and record["resid_post"][-1, ..., 7].all()
    mean = Change("", channels=(7,), value="mean").applied(chain).capture("resid_post", layers=2).forward("Once upon")
    assert len(set(mean["resid_post"][..., 7].flatten().tolist())) == 1


def test_weights_are_zero_while_it_is_held(ar: dlens.Model) -> None:
    chain, change = dlens.trace(ar), Change("", channels=(7,), weights="columns")
    assert change.where == "columns" and change.applied(chain) is chain
    with change.holding(chain):
        assert not any(view.any() for view in channel_weights(ar, 7, "columns"))
    assert all(view.any() for view in channel_weights(ar, 7, "columns"))


@pytest.mark.parametrize("seed", range(5))
def test_channels_are_drawn_from_the_others(seed: int) -> None:
    drawn = random_channels(3, 8, 7, seed)
    assert sorted(drawn) == [0, 1, 2, 4, 5, 6, 7] and random_channels(3, 8, 2, seed) == drawn[:2]
    others = [0, 1, 2, 4, 5, 6, 7]
    assert random_channel(3, 8, seed) == others[int(np.random.default_rng(seed).integers(7))]
    order = torch.randperm(7, generator=torch.Generator().manual_seed(seed)).tolist()
    assert list(drawn) == [others[i] for i in order]
    assert random_channel(3, 8, seed, besides=(0, 5)) in (1, 2, 4, 6, 7)


def test_where_there_is_no_other_channel() -> None:
    assert random_channel(0, 1, 0) == 0 == random_channel(0, 2, 0, besides=(1,)) and random_channels(0, 1, 0, 0) == ()


def test_the_next_channels_come_closest_in_energy() -> None:
    shares = torch.tensor([0.02, 0.30, 0.12, 0.11, 0.10, 0.05, 0.09, 0.21])
    assert equal_energy(shares, 1) == (7, 2) and equal_energy(shares, 1, besides=(7,)) == (2, 3, 4)
    assert equal_energy(shares / 0.3, 7) == (1,)
    # What the outlier holds, no set of the others does.
    assert equal_energy(torch.tensor([0.9, 0.04, 0.03, 0.02, 0.01, 0.0]), 0) == ()
