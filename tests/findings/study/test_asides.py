"""Sentences beside a verdict are those of the numbers, and none where there is nothing to say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dlens.findings.study.asides import MIRRORED, PLACED
from dlens.findings.study.claims import claims
from dlens.findings.study.results import ModelStudy
from dlens.findings.study.study import Study
from tests.findings.studies import ANSWERED, EARLY, EVEN, TRIO, made_model, made_study

# Like trio/diffusion: blocks 2 to 11 and 13 of 16 are above 0.95, and block 1 is far below.
SHAPE = [0.15, 0.893, *[0.954, 0.959, 0.969, 0.977, 0.97, 0.981, 0.98, 0.984, 0.979, 0.971], 0.942, 0.959, 0.94, 0.904]


def read(cosine: list[float]) -> ModelStudy:
    """A diffusion model whose texts all have these cosines."""
    model = made_model("diffusion", cosine)
    own = replace(model.reading.clean, cosine=np.tile(cosine, (6, 1)))
    return replace(model, reading=replace(model.reading, noise=dict(model.reading.noise) | {0.0: own}))


def test_the_block_that_makes_the_no_is_named() -> None:
    cell = claims(made_study({"dllm": read(SHAPE)}))[0].cells[0]
    assert cell.verdict == "does not hold" and cell.asides == (
        "block 1 alone, of a cosine of 0.893, keeps it below the bar: without that block the difference is 0.022. "
        "Blocks 2 to 11 and 13 of 16 are above 0.95: nearly the shape that is reported",
    )


@pytest.mark.parametrize(
    "cosine",
    [
        # It holds; no block alone keeps it from that; few blocks are above 0.95.
        [*SHAPE[:1], 0.99, *SHAPE[2:]],
        [*SHAPE[:11], *[0.97] * 5],
        [*SHAPE[:7], *[0.9] * 9],
    ],
)
def test_no_block_is_named_where_none_makes_it(cosine: list[float]) -> None:
    assert claims(made_study({"dllm": read(cosine)}))[0].cells[0].asides == ()


def test_only_the_answers_stand_where_the_loss_rises() -> None:
    def aside(rise: float, kept: str) -> tuple[str, ...]:
        solved = dict.fromkeys(ANSWERED, "1" * 12) | {"no outlier": kept}
        model = made_model("ar-init", EVEN, solved=solved, losses={"no outlier": rise})
        return claims(made_study({"init": model}))[7].cells[0].asides

    words = "only the answers to these 12 problems stand: the loss of running text rises by 1.33"
    assert aside(1.33, "1" * 12) == (words,)
    solved = dict.fromkeys(ANSWERED, "1" * 12) | {"no outlier": "1" * 6 + "0" * 6, "no largest": "1" * 12}
    model = made_model("ar-init", EVEN, solved=solved, losses={"no outlier": 0.2, "no largest": 0.5})
    largest = replace(model.changes["no largest"], channels=(5,))
    named = replace(model, changes=dict(model.changes) | {"no largest": largest})
    assert claims(made_study({"init": named}))[7].cells[0].asides == (
        "without channel 5 only the answers to these 12 problems stand: the loss of running text rises by 0.50",
    )
    assert aside(0.0, "1" * 12) == aside(1.33, "1" * 6 + "0" * 6) == ()


def tied(study: Study) -> list[list[str]]:
    return [[cell.tied for cell in row.cells] for row in claims(study)]


def test_one_number_and_ends_of_a_line_are_known() -> None:
    init = {"init": made_model("ar-init", EARLY)}
    found = tied(made_study(TRIO | init))
    assert found[1] == [MIRRORED, MIRRORED, ""] and found[2] == [PLACED, PLACED, ""]
    assert not any(cell for row in (found[0], *found[3:]) for cell in row)
    row = claims(made_study(TRIO | init))[1]
    assert row.cells[0].effect.value == -row.cells[1].effect.value
    # Against the mean of two, each has a number of its own; the end of a line is the mean of two.
    found = tied(made_study(TRIO | {"other": made_model("diffusion", EVEN)}))
    assert found[1] == ["", "", ""] and found[2] == [PLACED, "", ""]
    assert not any(cell for row in tied(made_study({"ar": TRIO["ar"]})) for cell in row)
