"""What stands on top of a report and at its end."""

from __future__ import annotations

import re
from dataclasses import replace
from html import escape as html_of

import pytest
from markupsafe import escape

from dlens.caches import Blocks, Cache, Delayed
from dlens.findings.scores.estimate import Estimate
from dlens.findings.study import study as studies
from dlens.findings.study.claims import claims
from dlens.findings.study.study import Study
from dlens.show.report.published import UNTESTED
from dlens.show.report.report import report_page
from dlens.show.report.summary import lead, method, number
from tests.findings.studies import ANSWERED, made_model, made_study

EARLY = [0.1, 0.99, 0.99, 0.95, 0.9, 0.9, 0.8]
EVEN = [0.1, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]


@pytest.fixture
def found() -> Study:
    return made_study({"one/ar": made_model("ar", EVEN, 0.3), "<b>dllm": made_model("diffusion", EARLY, share=0.6)})


@pytest.fixture
def html(found: Study) -> str:
    return report_page(found, claims(found))


def test_the_summary_has_a_verdict_and_numbers_for_every_model(html: str, found: Study) -> None:
    table = html.split('<table class="claims">')[1].split("</table>")[0]
    cells = table.split("<td ")[1:]
    assert len(cells) == 8 * 2
    for cell, own in zip(cells, [cell for row in claims(found) for cell in row.cells], strict=True):
        assert f">{own.answer}</span>" in cell
        assert f"{number(own.effect, own.margin)}, {own.unit}</span>" in cell and html_of(own.effect.why) in cell
        word = "inferred" if own.inferred else "claimed"
        assert html_of(f"{word} of {'AR' if own.kind == 'ar' else 'native diffusion'}: {own.says}\u00a0— ") in cell
        assert all(f"<small>{escape(line)}</small>" in cell for line in own.asides)
    assert "not training runs" in html.split('<table class="claims">')[0]


def test_rows_ask_and_cells_say_what_is_claimed_before_the_verdict(html: str, found: Study) -> None:
    table = html.split('<table class="claims">')[1].split("</table>")[0]
    assert all(f'<th scope="row">{html_of(row.question)}<small>' in table for row in claims(found))
    assert all(row.question.endswith("?") and row.title != row.question for row in claims(found))
    for cell in table.split("<td ")[1:]:
        assert (
            min(place for word in ("claimed of", "inferred of") if (place := cell.find(word)) >= 0)
            < cell.index('class="verdict')
            < cell.index('class="number"')
        )


def test_what_is_claimed_of_no_such_model_is_judged_without_colour() -> None:
    study = made_study({"init": made_model("ar-init", EVEN, share=0.6)})
    dominates = claims(study)[6].cells[0]
    assert (dominates.verdict, dominates.claimed) == ("holds", False)
    html = report_page(study, claims(study))
    cell = html.split("no claim; judged as native diffusion\u00a0— ")[1].split("</td>")[0]
    assert '<span class="verdict unclaimed">yes</span>' in cell and "judged by &gt; 0.25" in cell
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


def test_counts_leave_out_what_no_paper_claims() -> None:
    found = made_study({"ar": made_model("ar", EVEN, 0.3), "init": made_model("ar-init", EVEN, share=0.6)})
    rows = claims(found)
    claimed = [cell.verdict for row in rows for cell in row.cells if cell.claimed]
    words = lead(found, rows)
    counts = [claimed.count(verdict) for verdict in ("holds", "does not hold", "undecided")]
    assert len(claimed) == 14 == sum(counts) and "Of 14 verdicts on what they claim" in words
    assert re.findall(r"(\d+) (?:holds?|does not hold|do not hold|is undecided|are undecided)", words) == [
        str(n) for n in counts
    ]
    assert words.count("2 more cells are about what the papers do not claim.") == 1
    alone = made_study({"ar": made_model("ar", EVEN)})
    assert "more cell" not in lead(alone, claims(alone))


def test_what_so_few_problems_cannot_decide_and_what_is_reported_is_in_the_cell() -> None:
    study = made_study({"dllm": made_model("diffusion", EARLY, solved=dict.fromkeys(ANSWERED, "1" * 12))})
    cell = report_page(study, claims(study)).split('<table class="claims">')[1].split("<td ")[4]
    limit = (
        "cannot be confirmed with 12 problems of which 12 are solved without the change, whatever the answers with it"
    )
    limit += ": it takes 45 solved ones that all stay solved"
    assert f"<small>{limit}</small><small>more problems, with --problems, narrow the interval</small>" in cell
    assert "<small>reported: LLaDA-8B, 6 of 32 blocks: 91.8 % of GSM8K" in cell
    assert "our bar" not in cell
    page = report_page(study, claims(study))
    assert "(our bar)" in page.split("<td ")[1]
    assert "Our bar: a number that dlens chose; the papers give\nnone." in page and "called ours" not in page


def test_what_is_not_tested_is_open_and_in_the_contents(html: str) -> None:
    assert '<li><a href="#what-is-not-tested">What is not tested</a></li>' in html
    section = html.split('<section id="what-is-not-tested">')[1].split("</section>")[0]
    assert "<details" not in section and all(str(escape(words)) in section for _, words in UNTESTED)


def test_numbers_in_words_are_those_of_the_study(found: Study) -> None:
    few = replace(found, settings=replace(found.settings, texts=5, problems=30))
    words = method(few)
    assert "Texts: 5 of the 24" in words and "the first 24 tokens of 5 texts by 32 tokens" in words
    assert "Thirds: 15 of the problems" in words
    page = report_page(found, claims(found)).split("How it was measured")[0]
    assert "of 16 blocks" not in page and "1 of 7 blocks (14.29 %) or 1 of 9 blocks (11.11 %)" in page


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


def test_a_model_that_solves_nothing_is_said_so() -> None:
    solved = dict.fromkeys(("whole", "apart", "early run", "no outlier", "no random"), "00")
    study = made_study({"ar": made_model("ar", EVEN, solved=solved)})
    assert "not measurable: baseline solves 0 of 2" in report_page(study, claims(study))


@pytest.mark.parametrize(
    ("effect", "margin", "shown"),
    [
        (Estimate(0.042, 0.0004, 0.05), 0.0, "0.0420 [0.0004, 0.0500]"),
        (Estimate(-0.36, -0.7, -0.004), 0.0, "−0.360 [−0.700, −0.004]"),
        (Estimate(0.95, 0.9004, 1.0), 0.9, "0.9500 [0.9004, 1.0000]"),
        (Estimate(0.02, 0.0196, 0.0204), 0.02, "0.0200 [0.0196, 0.0204]"),
        (Estimate(0.5, 0.0, 0.9), 0.0, "0.50 [0.00, 0.90]"),
        (Estimate(0.5, 1e-9, 0.9), 0.0, "0.500000 [0.000000, 0.900000]"),
        (Estimate(0.5, 0.2, 0.9), 0.0, "0.50 [0.20, 0.90]"),
    ],
)
def test_an_end_that_decides_is_not_rounded_onto_the_margin(effect: Estimate, margin: float, shown: str) -> None:
    assert number(effect, margin) == shown


@pytest.mark.parametrize(
    ("cache", "numbers"), [(Delayed(4), "is an approximation"), (Blocks(), "leaves the numbers as they are")]
)
def test_a_cache_is_named_on_top_and_in_the_method(found: Study, cache: Cache, numbers: str) -> None:
    cached = replace(found, settings=replace(found.settings, cache=cache))
    assert lead(cached, claims(cached)).endswith(f"of trio-code, decoded by diffusion models with {cache}.")
    assert f"with {cache}, which {numbers}. Texts are read without it" in method(cached)
    assert cached.numbers()["settings"]["cache"] == str(cache)
    assert "decoded by" not in lead(found, claims(found)) and "Cache: " not in method(found)


def test_the_count_says_which_verdicts_share_a_number_or_are_so_by_construction() -> None:
    models = {"ar": made_model("ar", EVEN, 0.3), "dllm": made_model("diffusion", EARLY)}
    both = made_study(models)
    rows = claims(both)
    assert [cell.verdict for row in rows[1:3] for cell in row.cells] == ["holds"] * 4
    words = lead(both, rows)
    recency, dynamics = (row.question for row in rows[1:3])
    assert (
        f"Two verdicts on “{recency}” are one number with its sign turned. "
        f"Two verdicts on “{dynamics}” are trivial, as the two models define the ends." in words
    )
    # Neither is so where there are two of a kind and the texts decide, nor of one model alone.
    for study in (made_study({"ar": models["ar"]}), made_study(models | {"other": made_model("diffusion", EARLY)})):
        assert "sign turned" not in (said := lead(study, claims(study))) and "Two verdicts" not in said
    turned = made_study({"ar": made_model("ar", EVEN, 0.1), "dllm": made_model("diffusion", EARLY, 0.3)})
    assert f"Two verdicts on “{recency}” are one number with its sign turned." in lead(turned, claims(turned))
    two_of_one = made_study(models | {"other": made_model("diffusion", EARLY)})
    said = lead(two_of_one, claims(two_of_one))
    assert f"One verdict on “{dynamics}” is trivial, as the model defines an end." in said


def test_what_is_inferred_says_from_what_and_is_counted() -> None:
    study = made_study({"ar": made_model("ar", EVEN), "init": made_model("ar-init", EVEN)})
    rows = claims(study)
    assert " 2 of these 14 verdicts are on what follows from other claims." in lead(study, rows)
    cells = report_page(study, rows).split('<table class="claims">')[1].split("<td ")[1:]
    assert "inferred of AR: not kept, it collapses" in cells[8] and "inferred &lt; 0.5 (our bar)" in cells[8]
    assert "<small>inferred from the claim that such models keep AR dynamics</small>" in cells[11]
    assert sum("inferred" in cell.split("</td>")[0] for cell in cells[: 8 * 2]) == 2


def test_masks_are_apart_and_nothing_is_said_of_what_they_do(found: Study) -> None:
    """On trio/diffusion masks have the lower cosine in early blocks, not the higher one."""
    words = method(found)
    assert "masks enter all alike, so they are shown apart" in words and "look alike" not in words
    # No more is read of the text to find the largest channel.
    assert "of the first 64 tokens of 12 of the 24 texts together" in words and "whole calibration" not in words
    assert "Of so few texts as 8 an end of an interval may lie beyond all the values" in words
