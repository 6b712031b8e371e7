"""Queries, keys and values are told apart by what they do, whatever they are called and in whatever order they run."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dlens.models.layout.halves import Halves, find_halves
from dlens.models.layout.inside import Inside, find_inside
from dlens.models.layout.roles import Roles
from tests.models.layout.toy import parallel, seen, sequential


@torch.no_grad()
def inside(run: Any = sequential, heads: tuple[int, int] | None = (2, 2), **attention: Any) -> Inside:
    forward, block = seen(run, **attention)
    halves = find_halves(forward, block, ())
    assert isinstance(halves, Halves)
    return find_inside(forward, block, halves, heads, Roles())


@pytest.mark.parametrize("order", ["qkv", "vqk", "kvq"])
def test_projections_in_any_order(order: str) -> None:
    found = inside(order=order)
    assert {role: found.sites[role].path for role in "qkv"} == {r: f"m1.parts.a{order.index(r)}" for r in "qkv"}


@pytest.mark.parametrize("fused", ["part first", "head first"])
def test_one_projection_is_cut_the_way_that_attention_cuts_it(fused: str) -> None:
    found = inside(fused=fused)
    spelled = {"part first": "batch position (part head d_head)", "head first": "batch position (head part d_head)"}
    assert [found.sites[role].part for role in "qkv"] == [0, 1, 2]
    assert {found.sites[role].spelled for role in "qkv"} == {spelled[fused]}


def test_norms_neurons_and_what_reads_and_writes_the_stream() -> None:
    found = inside()
    paths = {point: site.path for point, site in found.sites.items() if point not in "qkv"}
    assert paths == {"ln1_scale": "n1", "ln2_scale": "n2", "z": "m1.last", "mlp_post": "m2.two", "mlp_pre": "m2.one"}
    assert found.reads == ("m1.parts.a0", "m1.parts.a1", "m1.parts.a2", "m2.one")
    assert found.writes == ("m1.last", "m2.two")
    assert inside(parallel).sites["ln2_scale"].path == "n2"


def test_without_heads_there_is_no_z() -> None:
    found = inside(heads=None)
    assert "z" not in found.sites and "whole heads" in found.absent["z"] and "attention is not" in found.absent["q"]
    assert "z" in inside(heads=(3, 3)).absent
