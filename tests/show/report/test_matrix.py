"""The first screen has every verdict, on axes that a row shares."""

from __future__ import annotations

import re

from dlens.findings.study.claims import claims
from dlens.show.report.matrix import matrix, row_anchor
from tests.findings.studies import EARLY, EVEN, made_model, made_study

STUDY = made_study(
    {
        "one/ar": made_model("ar", EVEN, 0.3),
        "dllm": made_model("diffusion", EARLY, share=0.6),
        "init": made_model("ar-init", EVEN),
    }
)
ROWS = claims(STUDY)
HTML = str(matrix(ROWS))
CELLS = HTML.split("<td ")[1:]


def test_there_is_a_cell_for_every_verdict_and_a_link_for_every_row() -> None:
    assert len(CELLS) == 8 * 3
    for cell, own in zip(CELLS, (cell for row in ROWS for cell in row.cells), strict=True):
        assert f">{own.answer}</span>" in cell
    assert [f'href="#{row_anchor(number)}"' in HTML for number in range(8)] == [True] * 8
    assert HTML.count("https://arxiv.org/abs/2603.07475") == 6 and HTML.count("https://arxiv.org/abs/2605.06366") == 3


def test_the_papers_number_stands_beside_ours_and_on_its_axis() -> None:
    apart = CELLS[9 + 1]
    assert (
        ">undecided</span>" in apart
        and "claimed: kept</span>" in apart
        and "paper: 0.918 (LLaDA-8B, 6 of 32, GSM8K)" in apart
        and 'class="paper"' in apart
    )
    assert "paper: −0.245" in CELLS[9 + 2]
    # Nothing is claimed of AR-initialised models' channels.
    assert "no claim of this kind" in CELLS[20] and "claimed:" not in CELLS[20] and 'class="paper"' not in CELLS[20]


def test_each_cell_answers_in_a_word() -> None:
    answers = re.findall(r'class="verdict \w+">([^<]+)<', "".join(CELLS[:6]))
    assert answers == [
        *("no, as claimed", "yes, as claimed", "no, as claimed"),
        *("more than in native diffusion, as claimed", "less than in AR, as claimed", "undecided"),
    ]
    # An answer says the claim, so that it is not said again.
    assert "claimed:" not in CELLS[0] and "claimed: more than in native diffusion</span>" in CELLS[5]
    # What no paper says of a kind is not said to be claimed.
    assert "inferred: no</span>" in CELLS[17] and "claimed:" not in CELLS[17]


def test_units_and_channels_are_named() -> None:
    assert "share of the accuracy or difference of shares; <a " in HTML and "nats a token; <a " in HTML
    assert "channel 6</small>" in CELLS[18] and "channel 6 removed, not 5, larger over all</small>" in CELLS[21]


def test_what_only_compression_asks_is_named() -> None:
    assert "Not asked in this run, but with <code>--compression</code>: Are 3 bits a weight enough?" in HTML


def places(cell: str, pattern: str) -> list[float]:
    return [float(found) for found in re.findall(pattern, cell)]


def test_pictures_of_a_row_share_an_axis_and_shade_the_claimed_side() -> None:
    ar, dllm = CELLS[18], CELLS[19]
    (bar_ar,), (bar_dllm,) = (places(cell, r'class="bar ours" x1="([\d.]+)"') for cell in (ar, dllm))
    assert bar_ar == bar_dllm
    # Claimed to be below the bar of the AR model, and above that of the diffusion model.
    assert places(ar, r'class="side" x="([\d.]+)"') == [0.0]
    assert places(dllm, r'class="side" x="([\d.]+)"') == [bar_dllm]
    # Nothing is claimed of the third.
    assert 'class="side"' not in CELLS[20] and 'class="bar ours"' in CELLS[20]
    (low,), (high,) = (places(cell, r'cx="([\d.]+)"') for cell in (ar, dllm))
    assert low < bar_ar < high


def test_what_is_not_measurable_has_no_dot() -> None:
    nothing = dict.fromkeys(("whole", "apart", "early run", "no outlier", "no random"), "0000")
    rows = claims(made_study({"ar": made_model("ar", EVEN, solved=nothing)}))
    cell = str(matrix(rows)).split("<td ")[4]
    assert "<circle" not in cell and ">not measurable</span>" in cell


def test_where_accuracy_says_the_reverse_of_the_loss_the_cell_says_by_what_it_is() -> None:
    cells = str(matrix(ROWS, ["dllm"])).split("<td ")[1:]
    assert [number for number, cell in enumerate(cells) if "by loss; accuracy says the reverse" in cell] == [16]
    assert "accuracy says the reverse" not in HTML


def test_bars_of_ours_are_told_from_those_of_papers() -> None:
    drawn = re.findall(r'class="bar( ours)?"', "".join(CELLS))
    assert [bool(ours) for ours in drawn] == ["(our bar)" in cell.bar for row in ROWS for cell in row.cells]
    assert "dotted our bar, a number that dlens chose" in HTML


def test_the_number_of_a_paper_is_said_to_be_as_others_give_it() -> None:
    assert "as others who wrote of the paper give it" in " ".join(HTML.split())


def test_a_share_above_all_is_explained_where_there_is_one() -> None:
    words = "Where the interval of a share ends above 1"
    assert words in HTML
    nothing = dict.fromkeys(("whole", "apart", "early run", "no outlier", "no random"), "0000")
    assert words not in str(matrix(claims(made_study({"ar": made_model("ar", EVEN, solved=nothing)}))))
