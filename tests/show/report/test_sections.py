"""Sections show the numbers of the study, and their tables hold what the figures show."""

from __future__ import annotations

from dataclasses import replace
from math import isnan
from typing import Any

import numpy as np
import pytest

from dlens.findings.scores.intervals import mean_interval
from dlens.findings.study.asking import COMPRESSED
from dlens.findings.study.claims import claims
from dlens.findings.study.estimates import overall
from dlens.findings.study.results import Disrupted, Solved, Thirds
from dlens.findings.study.study import Study
from dlens.ops.base.scope import Third
from dlens.show.report.page import Section
from dlens.show.report.sections import sections
from tests.findings.studies import made_model, made_study, small

DEEP = [0.1, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]
EVEN = [0.1, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]
SHORT = [0.1, 0.99, 0.99, 0.95, 0.9, 0.9, 0.8]


@pytest.fixture(scope="module")
def study() -> Study:
    ar, diffusion = made_model("ar", EVEN), made_model("diffusion", SHORT)
    cosine, low = (np.array([[value + shift] * 7 for shift in (0, 0.1)]) for value in (0.5, 0.25))
    ar = replace(ar, disruption=Disrupted(cosine, low, np.full((2, 7), 0.75), (0.0, 0.5), 8))
    solved = Solved((True,) * 4, (True, False, True, False))
    kept: dict[Third, Solved] = {"early": solved, "middle": solved, "late": solved}
    diffusion = replace(diffusion, thirds=Thirds(kept, ("a", "b")))
    return made_study({"ar": ar, "dllm": diffusion})


@pytest.fixture(scope="module")
def shown(study: Study) -> dict[str, Section]:
    return {section.title: section for section in sections(study, claims(study))}


def test_the_page_has_its_order(shown: dict[str, Section]) -> None:
    assert list(shown) == [
        "What each block changes",
        "What each block changes, half of the text masked",
        "Similarity by distance",
        "Recency by layer",
        "The largest channel",
        "What is kept of the accuracy",
        "What it costs in loss",
        "The same skip at a matched point",
        "The same skip in one third of decoding",
        "The numbers behind the summary",
    ]


def drawn(section: Section) -> Any:
    """The lines of a figure, without the edges of their bands."""
    assert section.figure is not None
    return [line for line in section.figure.data if line.name is not None]  # pyright: ignore


def test_a_figure_by_layer_begins_at_layer_1_and_its_table_at_0(shown: dict[str, Section], study: Study) -> None:
    section = shown["What each block changes"]
    mean, low, high = mean_interval(study.models["dllm"].reading.clean.cosine)
    line = drawn(section)[1]
    assert (line.name, list(line.x)) == ("dllm", [1, 2, 3, 4, 5, 6])
    np.testing.assert_array_equal(line.y, mean[1:])
    np.testing.assert_array_equal(line.customdata, np.stack([low, high], -1)[1:])
    assert section.columns == ["layer", "ar", "ar low", "ar high", "dllm", "dllm low", "dllm high"]
    assert section.rows[3][0] == 3 and section.rows[3][4:] == [mean[3], low[3], high[3]]


def test_masks_and_other_positions_have_the_colour_of_their_model(shown: dict[str, Section]) -> None:
    masks, others = drawn(shown["What each block changes, half of the text masked"])
    assert (masks.name, others.name) == ("dllm, masks", "dllm, other positions")
    assert (masks.line.dash, others.line.dash) == ("solid", "dash")
    # Which of them turns the stream more is in the numbers, not in the caption.
    assert shown["What each block changes, half of the text masked"].text.endswith(
        "Masks enter all alike, so they are shown apart from other positions."
    )
    assert masks.line.color == others.line.color == drawn(shown["What each block changes"])[1].line.color


def test_both_largest_channels_are_drawn_and_named(shown: dict[str, Section], study: Study) -> None:
    section = shown["The largest channel"]
    assert [(line.name, line.line.dash) for line in drawn(section)] == [
        ("ar, channel 5", "solid"),
        ("ar, channel 6, early", "dash"),
        ("dllm, channel 5", "solid"),
        ("dllm, channel 6, early", "dash"),
    ]
    np.testing.assert_array_equal(drawn(section)[3].y, study.models["dllm"].reading.clean.early_share.mean(0))
    model = made_model("ar", EVEN)
    same = made_study({"ar": replace(model, reading=replace(model.reading, channel=6))})
    alone = sections(same, claims(same))[3]
    assert [line.name for line in drawn(alone)] == ["ar, channel 6"]
    assert "Dashed: " in section.text and "Dashed: " not in alone.text
    for name, own in study.models.items():
        assert f" {name}: {overall(own.reading)}." in section.text
    assert "calibration texts" not in alone.text


def test_no_interval_of_a_share_goes_below_nothing() -> None:
    model = made_model("ar", EVEN)
    share = np.zeros((6, 7))
    share[0] = 0.4
    read = replace(model.reading.clean, share=share, early_share=share)
    found = made_study({"ar": replace(model, reading=replace(model.reading, noise={0.0: read}))})
    assert mean_interval(share)[1].max() < 0
    assert {row[2] for row in sections(found, claims(found))[3].rows} == {0.0}
    assert claims(found)[6].cells[0].effect.low == 0.0


def test_captions_explain_what_is_drawn(shown: dict[str, Section]) -> None:
    kept, costs = shown["What is kept of the accuracy"].text, shown["What it costs in loss"].text
    assert "Skip 1 apart: 1 of 7 blocks (14.29 %), no two neighbours; largest early channel to zero: of the " in kept
    assert "next ones to zero: " not in kept and "next ones to zero: the next largest" in costs


def test_bands_are_explained_once(shown: dict[str, Section]) -> None:
    words = "Bands, here and below: 95 % intervals over 6 texts; wide where one text differs"
    assert [title for title, section in shown.items() if words in section.text] == ["What each block changes"]


def test_models_that_skip_several_numbers_of_blocks_share_a_row() -> None:
    own = made_model("ar", SHORT)
    changes = {name: replace(change, layers=(1, 3) * bool(change.layers)) for name, change in own.changes.items()}
    study = made_study({"a": own, "b": replace(own, changes=changes)})
    section = next(each for each in sections(study, claims(study)) if each.title == "What is kept of the accuracy")
    assert [line.customdata[0][0] for line in drawn(section)] == ["skip blocks apart"] * 2


def test_distances_count_from_1(shown: dict[str, Section]) -> None:
    section = shown["Similarity by distance"]
    assert list(drawn(section)[0].x) == [row[0] for row in section.rows] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert section.columns[:2] == ["distance", "ar"]


def test_models_of_unlike_depth_share_an_axis_of_depth() -> None:
    study = made_study({"short": made_model("ar", SHORT), "deep": made_model("ar", DEEP)})
    section = next(each for each in sections(study, claims(study)) if each.title == "Recency by layer")
    assert section.figure is not None and section.figure.layout.xaxis.title.text == "relative depth"  # pyright: ignore
    assert [list(line.x) for line in drawn(section)] == [
        pytest.approx(np.arange(7) / 6),
        pytest.approx(np.arange(9) / 8),
    ]
    assert section.columns[0] == "layer" and len(section.rows) == 9
    assert all(value != value for value in section.rows[8][1:4])


def test_what_is_kept_is_drawn_without_the_model_as_it_is(shown: dict[str, Section]) -> None:
    section = shown["What is kept of the accuracy"]
    line = drawn(section)[0]
    assert [name for name, *_ in line.customdata] == [
        "skip 1 apart",
        "skip 1 in a row, early",
        "largest early channel to zero",
        "random channel to zero",
        "largest channel to zero",
    ]
    assert [row[:2] for row in section.rows[:2]] == [["ar", "as it is"], ["ar", "skip 1 apart"]]
    assert section.rows[0][3:5] == [0.5, 1.0] and section.rows[0][7] == 8
    # All of the model as it is, is kept: there is nothing to be unsure of.
    assert [isnan(end) for end in section.rows[0][5:7]] == [True] * 2 and section.rows[1][5] < section.rows[1][4]


def test_the_loss_rises_from_the_model_as_it_is(shown: dict[str, Section]) -> None:
    rows = shown["What it costs in loss"].rows
    assert rows[0][:3] == ["ar", "as it is", "as it is"] and rows[0][7] == 0.0
    assert rows[1][:2] == ["ar", "skip 1 apart"] and rows[1][3:5] == [rows[0][3], 0.0] and rows[1][7] == 0.125


def test_the_matched_point_is_where_half_is_decided(shown: dict[str, Section]) -> None:
    section = shown["The same skip at a matched point"]
    assert section.rows[2] == [2, 0.6, 0.35, 0.75]
    assert [line.name for line in drawn(section)] == ["ar"]


def test_thirds_have_their_problems_and_notes(shown: dict[str, Section]) -> None:
    rows = shown["The same skip in one third of decoding"].rows
    assert [row[:3] for row in rows] == [["dllm", third, 0.5] for third in ("early", "middle", "late")]
    assert rows[0][5:] == [4, "a b"]


def test_every_effect_of_the_summary_is_behind_it(shown: dict[str, Section], study: Study) -> None:
    rows = shown["The numbers behind the summary"].rows
    judged = [row for row in rows if row[6]]
    cells = [cell for row in claims(study) for cell in row.cells]
    assert [row[6] for row in judged] == [cell.verdict for cell in cells] and len(rows) > len(judged) == 16


def test_where_nothing_is_claimed_the_side_of_the_bar_is_said() -> None:
    study = made_study({"init": made_model("ar-init", SHORT, share=0.1)})
    rows = [row for row in sections(study, claims(study))[-1].rows if row[6]]
    assert [row[6] for row in rows[6:8]] == ["no claim; not above 0.25", "no claim; undecided"]
    assert "no claim" not in "".join(row[6] for row in rows[:6])


def test_the_seeds_are_those_of_the_trio() -> None:
    titles = [
        [section.title for section in sections(study, claims(study))]
        for study in (made_study({name: made_model("ar", SHORT)}) for name in ("trio/ar", "other/ar"))
    ]
    model = made_model("ar", SHORT)
    removed = replace(
        model, changes=model.changes | {"no outlier": replace(model.changes["no outlier"], channels=(7,))}
    )
    study = made_study({"trio/ar": removed})
    (seeds,) = [each for each in sections(study, claims(study)) if each.title == "The trio over training seeds"]
    assert seeds.text.endswith("; the report removes 7 from trio/ar, where it is 1 here.")
    assert "The trio over training seeds" in titles[0] and "The trio over training seeds" not in titles[1]


def test_fewer_bits_and_weights_have_their_sections() -> None:
    model = small(made_model("diffusion", EVEN), ["11110000", "11100000", "11000000", "10000000"], [0.5] * 4, [3.0] * 7)
    study = made_study({"dllm": model})
    shown = {section.title: section for section in sections(study, claims(study))}
    kept, spectra = shown["What is kept with fewer bits and weights"], shown["Spectra of the weights"]
    assert [row[:6] for row in kept.rows] == [
        ["dllm", name, f"{name} <in words>", 0, n / 8, n / 4] for name, n in zip(COMPRESSED, (4, 3, 2, 1), strict=True)
    ]
    assert [row[9] for row in kept.rows] == pytest.approx([0.5] * 4)
    assert kept.figure is not None and spectra.figure is not None
    assert [row[list(spectra.columns).index("dllm")] for row in spectra.rows] == pytest.approx([3.05] * 7)
