"""The page says what the study found, strictly offline; the numbers are strict JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from html import escape as html_of
from pathlib import Path
from typing import Any

import pytest

import dlens
from dlens.findings.study import study as studies
from dlens.findings.study.claims import claims
from dlens.findings.study.study import Study
from dlens.show.report import report as reports
from dlens.show.report.report import report, report_page
from dlens.show.report.sections import sections
from dlens.show.report.seeds import seeds_section
from dlens.show.report.summary import number
from tests.findings.studies import deep, made_model, made_study
from tests.show.report.test_page import Loads

EARLY = [0.1, 0.99, 0.99, 0.95, 0.9, 0.9, 0.8]
EVEN = [0.1, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]


@pytest.fixture
def found() -> Study:
    return made_study({"one/ar": made_model("ar", EVEN, 0.3), "<b>dllm": made_model("diffusion", EARLY, share=0.6)})


@pytest.fixture
def html(found: Study) -> str:
    return report_page(found, claims(found))


def test_the_page_asks_for_nothing_and_carries_plotly_once(html: str) -> None:
    page = Loads()
    page.feed(html)
    assert page.fetched == [] and "<b>dllm" not in html
    assert html.count("plotly.js v") == 1


def test_the_summary_has_a_verdict_and_numbers_for_every_model(html: str, found: Study) -> None:
    table = html.split('<table class="claims">')[1].split("</table>")[0]
    cells = table.split("<td ")[1:]
    assert len(cells) == 8 * 2
    for cell, own in zip(cells, [cell for row in claims(found) for cell in row.cells], strict=True):
        assert f">{own.verdict}</span>" in cell
        assert number(own.effect) in cell and html_of(own.effect.why) in cell
        assert html_of(f"claimed of {'AR' if own.kind == 'ar' else 'native diffusion'}: {own.says}\u00a0— ") in cell
    assert "not training runs" in html.split('<table class="claims">')[0]


def test_rows_ask_and_cells_say_what_is_claimed_before_the_verdict(html: str, found: Study) -> None:
    table = html.split('<table class="claims">')[1].split("</table>")[0]
    assert all(f'<th scope="row">{html_of(row.question)}<small>' in table for row in claims(found))
    assert all(row.question.endswith("?") and row.title != row.question for row in claims(found))
    for cell in table.split("<td ")[1:]:
        assert cell.index("claimed of") < cell.index('class="verdict') < cell.index('class="number"')


def test_what_is_claimed_of_no_such_model_is_judged_without_colour() -> None:
    study = made_study({"init": made_model("ar-init", EVEN, share=0.6)})
    dominates = claims(study)[6].cells[0]
    assert (dominates.verdict, dominates.claimed) == ("holds", False)
    html = report_page(study, claims(study))
    cell = html.split("no claim; judged as native diffusion\u00a0— ")[1].split("</td>")[0]
    assert '<span class="verdict unclaimed">holds</span>' in cell and "judged by &gt; 0.25" in cell
    assert "claimed &gt; 0.25" not in html and "nothing is claimed" not in html


def test_what_a_verdict_leaves_out_is_in_its_cell() -> None:
    def cells(next_share: float) -> list[str]:
        study = made_study({"dllm": made_model("diffusion", EARLY, share=0.6, next_share=next_share)})
        return report_page(study, claims(study)).split('<table class="claims">')[1].split("<td ")[1:9]

    *_, dominates, breaks = cells(0.31)
    assert all(f"with {rate} of the tokens masked: 0.60 [" in dominates for rate in ("25%", "50%", "75%"))
    assert "channel 7, the next: 0.31 [" in dominates
    assert "the next" not in cells(0.29)[6]
    assert "rise of the loss, nats a token: " in breaks
    assert "the verdict is about 8 problems; baseline solves 4 of 8" in breaks


def test_the_page_leads_with_the_question_and_the_outcome() -> None:
    found = made_study({"ar": made_model("ar", EARLY), "dllm": made_model("diffusion", EVEN)})
    html = report_page(found, claims(found))
    lead = html.split("<h1>")[1].split("<p>")[1].split("</p>")[0]
    verdicts = [cell.verdict for row in claims(found) for cell in row.cells]
    n = {verdict: verdicts.count(verdict) for verdict in ("holds", "does not hold", "undecided")}
    assert n["holds"] > 1 and n["does not hold"] > 1 and n["undecided"] > 1
    assert f"{n['holds']} hold, {n['does not hold']} do not hold and {n['undecided']} are undecided." in lead
    assert "Of 16 verdicts" in lead and "24 texts and 64 problems of trio-code" in lead and "--quick" not in lead
    for paper in ("Layer-wise Representational Capacity", "2603.07475", "Layer Collapse", "2605.06366"):
        assert paper in lead
    quick = replace(found, settings=studies.QUICK)
    assert "quick run: 8 texts and 12 problems of trio-code; run without --quick" in report_page(quick, claims(quick))


def test_it_says_how_it_was_measured(html: str) -> None:
    method = html.split("How it was measured")[1]
    for part in (
        "64 test problems of trio-code",
        "24 of the 24",
        "Seed 0",
        "dlens 0",
        "LLaDA",
        "apart &lt;in words&gt;",
    ):
        assert part in method, part


def test_a_deep_study_has_the_same_skip_at_matched_points_and_in_thirds() -> None:
    ar, dllm = made_model("ar", EVEN), made_model("diffusion", EARLY)
    cosine = [1.0, 1.0, 0.75, 0.5, 0.5, 0.5, 0.5]
    kept = {"early": "1000", "middle": "1100", "late": "1110"}
    study = made_study({"one/ar": ar, "<b>dllm": deep(dllm, cosine, kept)})
    shown = {section.title: section for section in sections(study, claims(study))}
    matched = shown["The same skip at a matched point"]
    assert matched.columns == ["layer", "<b>dllm", "<b>dllm low", "<b>dllm high"]
    assert [row[1] for row in matched.rows] == cosine
    assert matched.rows[2] == pytest.approx([2, 0.75, 0.7, 0.8])
    thirds = shown["The same skip in one third of decoding"]
    assert [row[:3] for row in thirds.rows] == [
        ["<b>dllm", *own] for own in (("early", 0.5), ("middle", 1), ("late", 1.5))
    ]
    assert [row[5:] for row in thirds.rows] == [[4, "thirds <of> steps"]] * 3
    html = report_page(study, claims(study))
    assert "Matched points: the model as it is continues" in html and "thirds &lt;of&gt; steps" in html
    assert html.count("<h2>The same skip") == 2 and "<b>dllm" not in html
    plain = made_study({"one/ar": ar})
    assert "<h2>The same skip" not in report_page(plain, claims(plain))


def test_a_model_that_solves_nothing_is_said_so() -> None:
    solved = dict.fromkeys(("whole", "apart", "early run", "no outlier", "no random"), "00")
    study = made_study({"ar": made_model("ar", EVEN, solved=solved)})
    assert "not measurable: baseline solves 0 of 2" in report_page(study, claims(study))


def _effects(accuracy: float) -> dict[str, Any]:
    cosine = {"mean": EARLY, "low": EARLY, "high": EARLY}
    changed = ("skip early non-adjacent", "skip early consecutive", "skip late consecutive", "zero top channel")
    solved: dict[str, Any] = {"none": {"value": accuracy, "n": 300}} | {
        name: {"value": accuracy / 2} for name in changed
    }
    depth = {"top_channel": [5] * 7, "cosine": cosine, "top_share": cosine}
    return {"depth": {"0.0": depth}, "accuracy": {"trio-code": solved}}


def test_training_seeds_are_shown_where_their_files_are(tmp_path: Path) -> None:
    assert seeds_section(tmp_path) is None
    runs = ["ar-s1", "ar", "ar-6144", "ar-init", "diffusion-s2"]
    points = {name: {"points": [{"step": 64}, {"step": 9000 + i}]} for i, name in enumerate(runs)}
    (tmp_path / "training.json").write_text(json.dumps(points))
    (tmp_path / "effects.json").write_text(json.dumps({name: _effects(0.8) for name in runs}))
    section = seeds_section(tmp_path)
    assert section is not None
    assert [row[:2] for row in section.rows] == [
        ["trio/ar, as shipped", 9001],
        ["trio/ar, on the way", 6144],
        ["trio/ar, seed 1", 9000],
        ["trio/ar-init, as shipped", 9003],
        ["trio/diffusion, seed 2", 9004],
    ]
    assert "300 problems of trio-code" in section.text and "same questions" not in section.text
    first = dict(zip(section.columns, section.rows[0], strict=True))
    assert first["trio-code accuracy"] == 0.8 and first["kept, early consecutive"] == 0.5
    assert first["cosine, early minus late"] == pytest.approx(0.99 - 0.85)


def test_a_report_is_written_with_its_numbers(ar: dlens.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "QUICK", replace(studies.QUICK, texts=2, draws=1, problems=2))
    out, numbers = tmp_path / "a" / "report.html", tmp_path / "b" / "numbers.json"
    assert report([ar], out, quick=True, json=numbers, progress=False) == out
    assert out.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    entry = json.loads(numbers.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert len(entry["claims"]) == 8 and entry["models"]["trio/ar"]["kind"] == "ar"
    assert entry["claims"][0]["cells"][0]["effect"]["value"] is not None
    assert list((tmp_path / "a" / "report.parts").glob("*.json"))


def test_what_cannot_be_written_is_refused_before_anything_is_computed(ar: dlens.Model, tmp_path: Path) -> None:
    calls: list[int] = []
    handle = ar.module.register_forward_pre_hook(lambda *_: calls.append(1))
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(ValueError, match=r"expected a name that ends in \.html"):
        report([ar], tmp_path / "x.pdf")
    with pytest.raises(ValueError, match=r"expected a name that ends in \.json"):
        report([ar], tmp_path / "x.html", json=tmp_path / "x.txt")
    for taken in (tmp_path / "folder.html", tmp_path / "file" / "x.html"):
        with pytest.raises(PermissionError, match="cannot be written; expected a file"):
            report([ar], taken)
    with pytest.raises(ValueError, match="task 'math'; expected one of"):
        report([ar], tmp_path / "x.html", task="math")
    handle.remove()
    assert not calls
