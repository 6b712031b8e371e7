"""The page says what the study found, strictly offline; the numbers are strict JSON."""

from __future__ import annotations

import json
from dataclasses import replace
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
from tests.findings.studies import deep, made_model, made_study
from tests.show.report.test_page import Loads
from tests.unchecked import unchecked

EARLY = [0.1, 0.99, 0.99, 0.95, 0.9, 0.9, 0.8]
EVEN = [0.1, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]


@pytest.fixture
def found() -> Study:
    return made_study({"one/ar": made_model("ar", EVEN, 0.3), "<b>dllm": made_model("diffusion", EARLY, share=0.6)})


@pytest.fixture
def html(found: Study) -> str:
    return report_page(found, claims(found))


def test_the_page_asks_for_nothing_and_is_small(html: str) -> None:
    page = Loads()
    page.feed(html)
    assert page.fetched == [] and "<b>dllm" not in html
    assert len(html) < 300_000


def test_names_and_answers_are_escaped() -> None:
    wild = "<b>&\"'"
    model = made_model("diffusion", EARLY)
    answers = {**model.answers, "whole": replace(model.answers["whole"], examples=(f"an answer {wild}",))}
    model = replace(model, answers=answers)
    study = replace(made_study({f"model {wild}": model}), task=f"task {wild}")
    html = report_page(study, claims(study))
    assert wild not in html and "<b>" not in html
    assert "<title>Diffusion and autoregressive models, layer by layer: model &lt;b&gt;&amp;&#34;&#39;</title>" in html
    assert '<td data-model="model &lt;b&gt;&amp;&#34;&#39;">' in html
    assert "problems of task &lt;b&gt;&amp;&#34;&#39;" in html
    assert '<td class="words">an answer &lt;b&gt;&amp;"\'</td>' in html


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
    assert html.count("<h2>The same skip") == 2 and html.count('">The same skip') == 2 and "<b>dllm" not in html
    plain = made_study({"one/ar": ar})
    assert "<h2>The same skip" not in report_page(plain, claims(plain))


def test_a_report_is_written_with_its_numbers(ar: dlens.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "QUICK", replace(studies.QUICK, texts=2, draws=1, problems=2))
    out, numbers = tmp_path / "a" / "report.html", tmp_path / "b" / "numbers.json"
    assert report([ar], out, quick=True, json=numbers, progress=False) == out
    page = out.read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>") and "denoises" not in page
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
    (tmp_path / "page.parts").write_text("mine")
    with pytest.raises(PermissionError, match="page.parts is no folder that can be written to; expected one of yours"):
        report([ar], tmp_path / "page.html")
    with pytest.raises(ValueError, match="task 'math'; expected one of"):
        report([ar], tmp_path / "x.html", task="math")
    handle.remove()
    assert not calls


def test_one_model_needs_no_list(ar: dlens.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(reports, "write_report", lambda *given, **_: [asked.append(given)])
    for one in ("trio/ar", Path("folder"), ar):
        with unchecked():
            report(one, kinds="ar")  # pyright: ignore
        assert (asked[-1][0], asked[-1][5]) == ([one], ["ar"])
    with unchecked():
        report(["trio/ar"], kinds=[None])
    assert (asked[-1][0], asked[-1][5]) == (["trio/ar"], [None])


def test_a_report_says_how_it_is_cited(html: str) -> None:
    cited = html.split('<section id="how-to-cite">')[1]
    for part in ("@software{dlens,", "version = {0}", "@misc{arXiv2603.07475,", "eprint        = {2605.06366}"):
        assert part in cited, part


def test_one_model_alone_has_its_page() -> None:
    study = made_study({"one": made_model("diffusion", EARLY)})
    html = report_page(study, claims(study))
    assert html.count('<th scope="col">one</th>') >= 2 and 'class="claims many"' not in html
