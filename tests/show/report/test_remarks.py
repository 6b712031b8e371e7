"""What may look contradictory is said, and nothing where nothing does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

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
    said = remarks(made_study({"a": dear, "b": cheap}))
    assert len(said) == 1 and "raises the loss of a more than that of b" in said[0]
    assert remarks(made_study({"a": cheap, "b": dear}))[0].count("raises the loss of b more than that of a") == 1


def test_a_jump_is_named_with_its_layers() -> None:
    model = made_model("ar", EVEN)
    texts = model.reading.clean
    share = np.tile([0.5, 0.1, 0.1, 0.12, 0.4, 0.42, 0.4], (6, 1))
    clean = replace(texts, share=share)
    jumping = replace(model, reading=replace(model.reading, noise={0.0: clean}))
    (line,) = remarks(made_study({"ar": jumping}))
    assert "The energy share of ar's largest channel jumps from 0.12 after layer 3 to 0.40 after layer 4" in line
