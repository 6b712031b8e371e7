"""Families that users add."""

from __future__ import annotations

import pytest

import dlens
from dlens.models.families import registry
from dlens.models.families.decoder import llama_like
from dlens.models.family import Family
from tests.models.conftest import build

pytestmark = pytest.mark.usefixtures("only_our_own")


def test_a_registered_family_is_found_by_name_and_by_model_type() -> None:
    family = Family(
        name="mine",
        objective="autoregressive",
        shift=1,
        layout=llama_like(),
        model_types=("qwen2",),
        end_token_ids=(5, 500),
    )
    assert dlens.register_family(family) is family
    assert dlens.register_family(family) is family
    assert dlens.load(build("qwen2")).family.name == "mine"
    assert dlens.load(build("llama"), family="mine").family.end_token_ids == (5,)


def test_a_name_that_is_taken() -> None:
    with pytest.raises(ValueError, match="a family named 'llada' is known already; expected .*; give another name"):
        dlens.register_family(Family(name="llada", objective="diffusion", shift=0))


def test_the_example_of_a_family_is_under_twenty_lines() -> None:
    lines = [
        line
        for line in (registry.register_family.__doc__ or "").splitlines()
        if line.strip().startswith((">>>", "..."))
    ]
    assert 5 < len(lines) < 20
