"""The table of known models."""

from __future__ import annotations

import pytest

import dlens
from dlens.models.families.known import known_models
from dlens.models.family import Family

pytestmark = pytest.mark.usefixtures("only_our_own")


def test_known_models() -> None:
    rows = {row.name: row for row in known_models()}
    assert list(rows) == [
        "trio/ar", "trio/diffusion", "trio/ar-init", "autoregressive", "masked", "masked-shifted", "llada", "dream",
        "llada2", "sdar", "fast-dllm-v2", "llada-moe", "rnd1", "bd3lm", "mdlm",
    ]  # fmt: skip
    assert (rows["trio/ar-init"].family, rows["trio/ar-init"].layers, rows["trio/ar-init"].width) == (
        "masked-shifted",
        16,
        192,
    )
    assert rows["dream"].layers is None and rows["dream"].shift == 1


def test_a_family_of_ones_own_is_the_last_row() -> None:
    dlens.register_family(Family(name="mine", objective="diffusion", shift=1))
    row = known_models()[-1]
    assert (row.name, row.family, row.objective, row.shift) == ("mine", "mine", "diffusion", 1)
    assert (row.layers, row.note) == (None, "registered by you")


def test_every_row_says_what_it_is() -> None:
    assert all(row.note and row.note != "registered by you" for row in known_models())
