"""What may look contradictory is said, and nothing where nothing does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dlens.findings.study.study import Study
from dlens.show.report.remarks import remarks
from tests.findings.studies import EVEN, made_model, made_study

LEVEL = [0.1, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]


def test_nothing_is_said_of_what_agrees() -> None:
    assert remarks(made_study({"ar": made_model("ar", LEVEL)})) == []


def test_a_dearer_loss_with_all_problems_solved_is_explained() -> None:
    solved = {"whole": "1" * 8, "apart": "1" * 8, "early run": "0" * 8}
    model = made_model("ar", EVEN, losses={"apart": 0.5, "early run": 0.5}, solved=solved)
    (line,) = remarks(made_study({"ar": model}))
    assert line.startswith(
        "ar: the loss of text rises and the accuracy on trio-code stays with apart <in words> (rise 0.50"
    )
    assert "early run" not in line


def test_another_order_by_loss_than_by_accuracy_is_explained() -> None:
    dear = made_model("ar", EVEN, losses={"apart": 0.5}, solved={"whole": "1" * 8, "apart": "11111100"})
    cheap = made_model("diffusion", EVEN, losses={"apart": 0.1}, solved={"whole": "1" * 8, "apart": "11000000"})
    (line,) = remarks(made_study({"a": dear, "b": cheap}))
    assert "apart" not in line and ", no two neighbours, ranks the models in one way by the rise of the loss" in line
    assert "kept: a pays more than b and keeps more (a 0.50 [" in line
    assert "kept: b pays more than a" in remarks(made_study({"a": cheap, "b": dear}))[0]
    both = made_model("ar", EVEN, losses={"apart": 0.3}, solved={"whole": "1" * 8, "apart": "11110000"})
    (line,) = remarks(made_study({"a": dear, "b": cheap, "c": both}))
    assert "kept: a pays more than b and c and keeps more; c pays more than b and keeps more (" in line
    # Of the same loss, or of the same accuracy, no order is odd.
    assert remarks(made_study({"a": dear, "b": replace(cheap, answers=dear.answers)})) == []
    assert remarks(made_study({"a": dear, "b": replace(cheap, losses=dear.losses)})) == []


def shares(share: np.ndarray) -> Study:
    """Of one model, whose largest channel has these shares."""
    model = made_model("ar", EVEN)
    read = replace(model.reading, noise={0.0: replace(model.reading.clean, share=share)})
    return made_study({"ar": replace(model, reading=read)})


def test_a_jump_is_named_with_its_layers() -> None:
    share = np.tile([0.5, 0.1, 0.1, 0.12, 0.4, 0.42, 0.4], (6, 1))
    (line,) = remarks(shares(share))
    assert "channel 5, the largest of ar, jumps from 0.12 after layer 3 to 0.40 after layer 4" in line


def test_a_jump_of_one_text_alone_is_none() -> None:
    share = np.tile([0.5, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1], (6, 1))
    share[0, 4:] = 0.9
    assert remarks(shares(share)) == []
