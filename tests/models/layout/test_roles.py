"""Roles are asked once of blocks that are built alike, and what cannot run again has none."""

from __future__ import annotations

from typing import Any

import torch

from dlens.models.layout.calls import Call, Forward
from dlens.models.layout.roles import Roles
from tests.models.layout.toy import seen, sequential

PLAIN = "batch position (head d_head)"


def calls(forward: Forward, block: str, *paths: str) -> list[Call]:
    found = {call.path: call for call in forward.calls}
    return [found[f"list.{block}.{path}"] for path in paths]


@torch.no_grad()
def test_projections_and_neurons() -> None:
    forward, _ = seen(sequential, order="vqk")
    around, *readers, last = calls(forward, "0", "m1", "m1.parts.a0", "m1.parts.a1", "m1.parts.a2", "m1.last")
    roles = Roles()
    assert roles.projections(around, readers, last, (2, 2)) == {
        "q": (1, PLAIN, 0),
        "k": (2, PLAIN, 0),
        "v": (0, PLAIN, 0),
    }
    assert roles.projections(around, readers[:2], last, (2, 2)) is None
    mlp, one, two = calls(forward, "0", "m2", "m2.one", "m2.two")
    assert roles.neurons(mlp, [one], two) == 0


@torch.no_grad()
def test_blocks_that_are_built_alike_are_asked_once() -> None:
    forward, _ = seen(sequential)
    roles, runs = Roles(), list[Any]()
    for block in ("0", "1"):
        around, one, two = calls(forward, block, "m2", "m2.one", "m2.two")
        around.part.register_forward_hook(lambda _m, _a, _o: runs.append(1))
        assert roles.neurons(around, [one], two) == 0
        assert len(runs) == 2


@torch.no_grad()
def test_a_module_that_does_not_run_again() -> None:
    forward, _ = seen(sequential)
    around, one, two = calls(forward, "0", "m2", "m2.one", "m2.two")
    around.part.forward = lambda *_: 1 / 0
    assert Roles().neurons(around, [one], two) is None
