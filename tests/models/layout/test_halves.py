"""What each half adds, in every way in which a block can put its halves together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dlens.models.family import Fill, Site, Zeros
from dlens.models.layout.halves import Halves, fills_of, find_halves, site_of
from tests.models.layout.toy import alone, flat, normed, other, parallel, scaled, seen, sequential

WAYS: dict[str, tuple[Callable[..., Any], str, Site, Site]] = {
    "sequential": (sequential, "sequential", Site("m1"), Site("m2")),
    "parallel": (parallel, "parallel", Site("m1"), Site("m2")),
    "scaled": (scaled, "sequential", Site("m1", scale=0.22), Site("m2", scale=0.22)),
    "normed": (normed, "normed sums", Site("m1"), Site("m2")),
    "flat": (flat, "sequential", Site("m1"), Site("m2", spelled="(batch position) d_model")),
}


@pytest.mark.parametrize("way", WAYS)
def test_halves(way: str) -> None:
    run, order, attn, mlp = WAYS[way]
    forward, block = seen(run)
    found = find_halves(forward, block, (0.22, 3.0))
    assert isinstance(found, Halves) and found.order == order
    assert (site_of(block, found.attn), site_of(block, found.mlp)) == (attn, mlp)
    assert (found.middle is None) == (order != "sequential")
    joined = way == "flat"
    assert fills_of(forward, block, found) == ((Fill("m1", Zeros(2)),), (Fill("m2", Zeros(flat=joined)),))


def test_what_are_no_halves_says_why() -> None:
    assert "it is one sub-layer" in str(find_halves(*seen(alone), ()))
    assert "no two of its modules' outputs add up" in str(find_halves(*seen(other), ()))
