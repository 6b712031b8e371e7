"""What may look contradictory is said, and nothing where nothing does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dlens.findings.study.results import ModelStudy
from dlens.findings.study.study import Study
from dlens.show.report.remarks import remarks, reversed_by_accuracy
from tests.findings.studies import EVEN, made_model, made_study

LEVEL = [0.1, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]


def test_nothing_is_said_of_what_agrees() -> None:
    assert remarks(made_study({"ar": made_model("ar", LEVEL)})) == []


def test_a_dearer_loss_with_all_problems_solved_is_explained() -> None:
    solved = {"whole": "1" * 8, "apart": "1" * 8, "early run": "0" * 8}
    model = made_model("ar", EVEN, losses={"apart": 0.5, "early run": 0.5}, solved=solved)
    (line,) = remarks(made_study({"ar": model}))
    assert line.startswith(
        "ar: the loss of text rises while problems of trio-code stay solved with apart <in words> (rise 0.50"
    )
    # An interval that begins at 0.60 says less than that all stays.
    assert "; 8 of 8 stay solved, which leaves room for a loss of 40 % of the accuracy)" in line
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
    assert "channel 5 of ar jumps from 0.12 after layer 3 to 0.40 after layer 4" in line


def test_a_jump_of_one_text_alone_is_none() -> None:
    share = np.tile([0.5, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1], (6, 1))
    share[0, 4:] = 0.9
    assert remarks(shares(share)) == []


def test_problems_that_are_solved_besides_are_counted() -> None:
    solved = {"whole": "1" * 7 + "0", "apart": "0" + "1" * 7}
    (line,) = remarks(made_study({"ar": made_model("ar", EVEN, losses={"apart": 0.5}, solved=solved)}))
    assert "; 6 of 7 stay solved, 1 more are, which" in line


def runs(early: float, late: float, **solved: str) -> ModelStudy:
    answers = {"whole": "1" * 16} | {name.replace("_", " "): digits for name, digits in solved.items()}
    return made_model("diffusion", LEVEL, losses={"early run": early, "late run": late}, solved=answers)


def test_loss_and_accuracy_that_name_other_ends_are_said() -> None:
    half, none = "1" * 10 + "0" * 6, "0" * 16
    (line,) = remarks(made_study({"dllm": runs(0.5, 0.3, early_run=half, late_run=none)}))
    assert line.startswith("dllm: by the loss of text early blocks cost more than late ones (late minus early −0.20 [")
    assert "by the accuracy on trio-code less: kept is 0.62 [" in line
    assert " without late ones in this report (16 problems). The verdict is about the loss." in line
    (line,) = remarks(made_study({"dllm": runs(0.3, 0.5, early_run=none, late_run=half)}))
    assert line.startswith("dllm: by the loss of text late blocks cost more than early ones")
    # Both say the same; the loss does not decide; intervals overlap; nothing was answered.
    for model in (
        runs(0.5, 0.3, early_run=none, late_run=half),
        runs(0.5, 0.5, early_run=half, late_run=none),
        runs(0.5, 0.3, early_run=half, late_run="1" * 9 + "0" * 7),
        runs(0.5, 0.3),
    ):
        assert remarks(made_study({"dllm": model})) == []


def test_the_trio_is_compared_with_its_own_table_of_seeds() -> None:
    model = runs(0.5, 0.3)
    (line,) = remarks(made_study({"trio/diffusion": model}))
    assert "kept is 0.17 [" in line and "in the table of training seeds (500 problems, another sampler)." in line
    # trio/ar keeps less without early blocks, as its loss says; other tasks are not in the table.
    assert remarks(made_study({"trio/ar": model})) == []
    assert remarks(replace(made_study({"trio/diffusion": model}), task="trio-math")) == []
    assert reversed_by_accuracy(made_study({"trio/diffusion": model, "trio/ar": model})) == ["trio/diffusion"]


def test_other_blocks_of_the_same_question_are_named_where_they_keep_another_share() -> None:
    own = made_model("ar", LEVEL, solved={"whole": "1" * 12, "apart": "1" * 11 + "0"})
    changes = own.changes | {"apart": replace(own.changes["apart"], layers=(7, 9, 12))}
    chosen = replace(own, changes=changes)
    (line,) = remarks(made_study({"trio/ar": chosen}))
    assert "in the table of training seeds they are blocks 1, 3, 5. trio/ar keeps 0.92 [" in line
    assert "] without blocks 7, 9, 12 and 0.000 [" in line
    (both,) = remarks(made_study({"trio/ar": chosen, "trio/ar-init": replace(chosen, kind="ar-init")}))
    assert "; trio/ar-init keeps 0.92 [" in both
    # The same blocks, another model, another task, nothing answered, or too few problems to tell.
    same = replace(own, changes=own.changes | {"apart": replace(own.changes["apart"], layers=(1, 3, 5))})
    few = made_model("ar", LEVEL, solved={"whole": "11", "apart": "00"}).answers
    none = replace(chosen, answers={"whole": own.answers["whole"]})
    for study in (
        made_study({"trio/ar": same}),
        made_study({"other": chosen}),
        replace(made_study({"trio/ar": chosen}), task="trio-math"),
        made_study({"trio/ar": none}),
        made_study({"trio/ar": replace(chosen, answers=few)}),
    ):
        assert remarks(study) == []
