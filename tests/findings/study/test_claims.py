"""Verdicts follow from intervals, and every claim is decided for every model."""

from __future__ import annotations

import re
from dataclasses import replace
from math import isnan

import numpy as np
import pytest

from dlens.findings.study.bars import Bar
from dlens.findings.study.claims import CLAIMS, COMPRESSION_CLAIMS, claims
from dlens.findings.study.results import KINDS, ModelKind
from dlens.findings.study.study import QUICK
from tests.findings.studies import ANSWERED, EVEN, TRIO, made_model, made_study, small


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
    assert list(cell) == [
        "model",
        "kind",
        "says",
        "bar",
        "effect",
        "verdict",
        "claimed",
        "reported",
        "limit",
        "inferred",
    ]
    assert list(cell["effect"]) == ["value", "low", "high", "why", "beside", "shown"]
    words, beside = cell["effect"]["beside"][0]
    assert words == "channel 6, in all blocks but the last" and beside["value"] == pytest.approx(0.1, abs=0.01)


def solved(**changed: str) -> dict[str, str]:
    """All of 36 problems solved, but by some changes."""
    return dict.fromkeys(ANSWERED, "1" * 36) | {name.replace("_", " "): digits for name, digits in changed.items()}


def test_less_than_native_diffusion_is_decided_against_native_diffusion() -> None:
    """0.58 is less than 0.9, and more than 0.25: "less is kept than in native diffusion" does not hold."""
    dllm = made_model("diffusion", EVEN, solved=solved(apart="1" * 9 + "0" * 27))
    init = made_model("ar-init", EVEN, solved=solved(apart="1" * 21 + "0" * 15))
    cells = {cell.model: cell for cell in claims(made_study({"dllm": dllm, "init": init}))[3].cells}
    cell = cells["init"]
    assert (cell.says, cell.bar) == ("less is kept than in native diffusion", "< 0")
    assert cell.effect.value == pytest.approx(21 / 36 - 9 / 36) and cell.effect.low > 0
    assert cell.verdict == "does not hold"
    shown = {words: own.value for words, own in cell.effect.shown}
    assert (shown["kept by init"], shown["kept by dllm"]) == pytest.approx((21 / 36, 9 / 36))
    turned = claims(made_study({"dllm": made_model("diffusion", EVEN, solved=solved()), "init": init}))[3].cells[1]
    assert turned.verdict == "holds" and turned.effect.high < 0
    alone = claims(made_study({"init": init}))[3].cells[0]
    assert alone.verdict == "undecided" and "no native diffusion model to compare with" in alone.effect.why
    assert [words for words, _ in alone.effect.shown][0] == "kept"


def test_a_sentence_names_the_margin_that_decides_it() -> None:
    """Every number of a sentence is its margin; a margin that the sentence does not name says more or less."""
    for claim in (*CLAIMS, *COMPRESSION_CLAIMS):
        for kind, bar in claim.bars.items():
            numbers = re.findall(r"\d+(?:\.\d+)?", bar.says)
            expected = {f"{bar.margin:g}", f"{100 * bar.margin:g}"}
            assert set(numbers) <= expected, (claim.title, kind)
            if bar.claimed and not numbers:
                assert bar.margin in (0.0, 0.5) and not bar.ours, (claim.title, kind)
                assert re.search("nearer|less|more|smaller", bar.says), (claim.title, kind)


def test_a_bar_is_ours_unless_a_paper_names_it_or_the_sentence_compares() -> None:
    others = {
        (claim.title, kind)
        for claim in (*CLAIMS, *COMPRESSION_CLAIMS)
        for kind, bar in claim.bars.items()
        if not bar.ours and bar.margin and "nearer" not in bar.says
    }
    assert others == {
        ("Skipping 18.75 % of the blocks, no two neighbours", "diffusion"),
    }
    assert str(Bar("", "<", 0.25, ours=True)) == "< 0.25 (our bar)" and str(Bar("", ">", 0.9)) == "> 0.9"


def test_what_collapses_keeps_less_than_half() -> None:
    """Where 0.69 is kept, less than 0.9 is, and nothing collapsed."""
    model = made_model("ar", EVEN, solved=solved(apart="1" * 25 + "0" * 11, early_run="1" * 5 + "0" * 31))
    apart, run = (row.cells[0] for row in claims(made_study({"ar": model}))[3:5])
    assert apart.says == run.says == "not kept, it collapses: less than 50 % is left"
    assert apart.bar == "< 0.5 (our bar)"
    assert (apart.verdict, run.verdict) == ("does not hold", "holds")


def test_twelve_of_twelve_cannot_confirm_that_more_than_nine_tenths_are_kept() -> None:
    limits = []
    for n in (12, 44, 45):
        study = made_study({"dllm": made_model("diffusion", EVEN, solved=dict.fromkeys(ANSWERED, "1" * n))})
        cell = claims(study)[3].cells[0]
        limits.append((cell.verdict, cell.limit))
    takes = "whatever the answers with it: it takes 45 solved ones that all stay solved"
    assert limits == [
        ("undecided", f"cannot be confirmed with 12 problems of which 12 are solved without the change, {takes}"),
        ("undecided", f"cannot be confirmed with 44 problems of which 44 are solved without the change, {takes}"),
        ("holds", ""),
    ]


def test_blocks_in_words_are_those_that_were_skipped() -> None:
    study = made_study({"ar": made_model("ar", EVEN), "deep": made_model("diffusion", [0.1, *[0.99] * 4, *[0.8] * 4])})
    rows = claims(study)
    for row in rows[3:5]:
        assert row.question.startswith("Skipping 1 of 7 blocks (14.29 %) or 1 of 9 blocks (11.11 %), ")
    assert "without 1 of 7 blocks (14.29 %) or 1 of 9 blocks (11.11 %) in a row" in rows[5].effect
    assert not any("16" in row.question + row.effect for row in rows)


def test_bits_and_zeros_are_decided_where_they_were_asked() -> None:
    models = {
        "ar": small(made_model("ar", EVEN), ["1" + "0" * 7, *["10000000"] * 2, "11110000"], [1, 1, 2, 1], [3.0] * 7),
        "dllm": small(
            made_model("diffusion", EVEN), ["11110000", "11110000", "1" * 8, "0" * 8], [0] * 4, [2, 2, 2.5, 3, 3, 4, 4]
        ),
    }
    assert len(claims(made_study({"ar": made_model("ar", EVEN)}))) == len(CLAIMS)
    bits, zeros, spectra = claims(made_study(models))[len(CLAIMS) :]
    assert [cell.effect.value for cell in bits.cells] == [0.25, 1.0]
    assert bits.cells[1].verdict == "undecided" and "with 8 problems of which 4 are solved" in bits.cells[1].limit
    assert [cell.effect.value for cell in zeros.cells] == [-3 / 8, 1.0]
    assert [cell.verdict for cell in zeros.cells][1] == "holds"
    beside = dict(zeros.cells[0].effect.beside)
    assert beside["the same of the loss, nats a token"].value == pytest.approx(1.0)
    assert beside["kept with sparser late layers"].value == 1.0
    assert [round(cell.effect.value, 6) for cell in spectra.cells] == [0.0, -2.0]
    assert [cell.claimed for cell in spectra.cells] == [False, True] and spectra.cells[1].verdict == "holds"


def test_undecided_cells_say_whether_texts_or_problems_would_decide() -> None:
    """The cosine of text is even, with an interval around the bar; half of the answers are kept."""
    model = made_model("ar", EVEN, solved=solved(apart="10" * 18))
    cosine = model.reading.clean.cosine.copy()
    cosine[:, 1:3] += np.array([[-0.2], [0.2]] * 3)
    read = replace(model.reading, noise={0.0: replace(model.reading.clean, cosine=cosine)})
    found = made_study({"ar": replace(model, reading=read)})
    full, quick = (claims(each) for each in (found, replace(found, settings=QUICK)))
    assert [rows[0].cells[0].verdict for rows in (full, quick)] == ["undecided"] * 2
    assert full[0].cells[0].more == "over the 24 texts of a full report; problems do not matter here"
    assert quick[0].cells[0].more.startswith("more than 8 texts, without --quick, ")
    assert (full[3].cells[0].verdict, full[3].cells[0].more) == (
        "undecided",
        "more problems, with --problems, narrow the interval",
    )
    assert all(cell.more == "" for row in full for cell in row.cells if cell.verdict != "undecided")


def test_the_early_channel_is_removed_and_what_the_largest_leaves_stands_with_it() -> None:
    kept = solved(no_outlier="1" * 9 + "0" * 27, no_largest="1" * 27 + "0" * 9)
    model = made_model("diffusion", EVEN, solved=kept, losses={"no largest": 0.25})
    same = replace(model, reading=replace(model.reading, channel=6))
    rows = claims(made_study({"other": model, "same": same}))
    assert [cell.note for cell in rows[6].cells] == ["channel 6", "channel 6"]
    notes = ["channel 6 removed, not 5, larger over all", "channel 6 removed"]
    assert [cell.note for cell in rows[7].cells] == notes
    assert all(
        ", the largest of the first third of the blocks on calibration texts; " in cell.effect.why
        for cell in rows[7].cells
    )
    assert [cell.effect.value for cell in rows[7].cells] == [0.25, 0.25]
    other, alike = (dict(cell.effect.shown) for cell in rows[7].cells)
    which = "without channel 5, the largest over all blocks but the last on calibration texts"
    assert other[f"kept {which}"].value == 0.75
    assert other[f"rise of the loss {which}, nats a token"].value == pytest.approx(0.25)
    assert other.items() - dict(rows[7].cells[0].effect.beside).items() == alike.items()
    assert list(alike) == ["rise of the loss, nats a token"]


def test_every_effect_has_a_unit() -> None:
    rows = claims(made_study(TRIO | {"init": made_model("ar-init", EVEN)}))
    assert all(cell.unit for row in rows for cell in row.cells)
    assert [cell.unit for cell in rows[3].cells] == ["share of the accuracy"] * 2 + ["difference of shares"]
    assert rows[5].cells[0].unit == "nats a token"


def test_what_follows_from_other_claims_is_inferred() -> None:
    """No paper says it of these kinds of models."""
    study = made_study(TRIO | {"init": made_model("ar-init", EVEN)})
    inferred = {(n, cell.kind): cell for n, row in enumerate(claims(study)) for cell in row.cells if cell.inferred}
    assert set(inferred) == {(4, "ar"), (5, "ar-init")}
    assert inferred[5, "ar-init"].inferred == "the claim that such models keep AR dynamics"
    held = made_model("ar", EVEN, solved=solved(early_run="0" * 36))
    assert claims(made_study({"ar": held}))[4].cells[0].answer == "not kept, as inferred"


def test_a_papers_own_share_beyond_the_bar_is_named() -> None:
    study = made_study(TRIO)
    assert [cell.asides for cell in claims(study)[3].cells] == [
        ("the papers' own 64.7 % of HumanEval is not below this bar",),
        ("the papers' own 88.2 % of HumanEval is not above this bar",),
    ]


def test_recency_says_than_what() -> None:
    rows = claims(made_study(TRIO | {"init": made_model("ar-init", EVEN)}))
    assert [cell.answer for cell in rows[1].cells[:2]] == [
        "more than in native diffusion, as claimed",
        "less than in AR, as claimed",
    ]


def test_the_cells_of_recency_say_the_index_of_the_model_itself() -> None:
    cells = claims(made_study(TRIO))[1].cells
    for cell in cells:
        itself = dict(cell.effect.beside)["the index itself"]
        assert cell.note == f"its own index: {itself.value:.3f}" and itself.value != cell.effect.value


def test_each_question_says_which_blocks_are_early() -> None:
    own = made_model("ar", [0.1, *[0.9] * 15])
    runs = {"apart": (7, 9, 12), "early run": (2, 3, 4), "late run": (11, 12, 13)}
    changes = {name: replace(change, layers=runs.get(name, ())) for name, change in own.changes.items()}
    rows = claims(made_study({"ar": replace(own, changes=changes)}))
    questions = [row.question for row in rows]
    assert questions[0] == "Are early layers (blocks 1 to 5) redundant?"
    assert ", consecutive and early (blocks 2 to 4): " in questions[4]
    assert questions[5] == "Are early layers (blocks 2 to 4) easier to skip than late ones (blocks 11 to 13)?"
    assert all("(blocks 0 to 4)?" in question for question in questions[6:])
    assert rows[3].cells[0].note == "blocks 7, 9, 12"
    shallow = made_study({"ar": replace(own, changes=changes), "other": made_model("ar", EVEN)})
    assert "(blocks 0 to 4 or blocks 0, 1)" in claims(shallow)[6].question


def test_a_model_breaks_or_does_not_and_accuracy_is_kept_or_not() -> None:
    """So that "no" is not harm in one row and health in another."""
    kinds: tuple[ModelKind, ...] = ("ar", "diffusion", "ar-init")
    rows = claims(made_study({kind: made_model(kind, EVEN, solved=solved()) for kind in kinds}))
    answers = {cell.answer.partition(",")[0] for row in (*rows[3:5], rows[7]) for cell in row.cells}
    assert not answers & {"yes", "no"} and rows[7].cells[2].answer == "does not break"
