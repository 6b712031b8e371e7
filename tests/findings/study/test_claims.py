"""Verdicts follow from intervals, and every claim is decided for every model."""

from __future__ import annotations

from math import isnan, nan

import pytest

from dlens.findings.scores.estimate import Estimate
from dlens.findings.study.claims import CLAIMS, Bar, claims, verdict_of
from dlens.findings.study.results import KINDS
from tests.findings.studies import EVEN, TRIO, made_model, made_study


@pytest.mark.parametrize(
    ("low", "high", "above", "below"),
    [
        (0.6, 0.7, "holds", "does not hold"),
        (0.2, 0.4, "does not hold", "holds"),
        (0.4, 0.6, "undecided", "undecided"),
        (0.5, 0.7, "undecided", "undecided"),
        (nan, nan, "undecided", "undecided"),
    ],
)
def test_a_verdict_needs_the_whole_interval(low: float, high: float, above: str, below: str) -> None:
    effect = Estimate(0.5, low, high)
    assert verdict_of(effect, Bar("", ">", 0.5)) == above
    assert verdict_of(effect, Bar("", "<", 0.5)) == below


def test_every_claim_says_something_of_every_kind_and_every_model() -> None:
    study = made_study(TRIO | {"init": made_model("ar-init", EVEN)})
    rows = claims(study)
    assert len(rows) == len(CLAIMS) == 8
    for claim, row in zip(CLAIMS, rows, strict=True):
        assert set(claim.bars) == set(KINDS)
        assert [cell.model for cell in row.cells] == ["ar", "dllm", "init"]
        assert all(isnan(cell.effect.value) or cell.effect.low <= cell.effect.high for cell in row.cells)


def test_rows_are_plain_data_whose_effects_keep_their_fields() -> None:
    row = claims(made_study({"dllm": made_model("diffusion", EVEN)}))[6].to_json()
    assert list(row) == ["title", "source", "effect", "cells", "question"]
    [cell] = row["cells"]
    assert list(cell) == ["model", "kind", "says", "bar", "effect", "verdict", "claimed"]
    assert list(cell["effect"]) == ["value", "low", "high", "why", "beside", "shown"]
    words, beside = cell["effect"]["beside"][0]
    assert words == "in all blocks but the last" and beside["value"] == pytest.approx(0.1, abs=0.01)
