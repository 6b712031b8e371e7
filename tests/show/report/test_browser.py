"""Pages open in Chromium without a network: no error, no request, readable on wide and on narrow screens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dlens.findings.layers.profile import Profile
from dlens.findings.study.claims import claims
from dlens.show.report.page import Section, profile_page, save_page
from dlens.show.report.page import page as page_of
from dlens.show.report.report import report_page
from tests.browser import faults
from tests.findings.studies import made_model, made_study

EARLY = [0.1, 0.99, 0.99, 0.95, 0.9, 0.9, 0.8]
EVEN = [0.1, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]


@pytest.fixture(scope="module")
def report_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = made_study(
        {
            "trio/ar": made_model("ar", EVEN, 0.3),
            "trio/diffusion": made_model("diffusion", EARLY, share=0.6),
            "an-organisation/a-model-with-a-very-long-name": made_model("ar-init", EVEN),
        }
    )
    return save_page(report_page(study, claims(study)), tmp_path_factory.mktemp("report") / "report.html")


def opened(chromium: Any, path: Path, width: int, drawn: bool = True) -> Any:
    """A page, with what went wrong while it was opened in `page.wrong`."""
    page = chromium.new_page(viewport={"width": width, "height": 900})
    page.wrong = []
    page.on(
        "console", lambda message: page.wrong.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("request", lambda asked: None if asked.url == path.as_uri() else page.wrong.append(asked.url))
    page.goto(path.as_uri())
    if drawn:
        page.locator("figure svg").last.wait_for(state="attached")
    return page


@pytest.mark.parametrize("width", [1280, 390])
def test_a_report_opens_offline_and_fits(chromium: Any, report_file: Path, width: int) -> None:
    page = opened(chromium, report_file, width)
    assert page.wrong == []
    for at in ("before", "after"):
        assert page.evaluate("document.documentElement.scrollWidth") <= width, at
        for fold in page.locator("details").all():
            fold.evaluate("fold => { fold.open = true }")
    cells = page.locator(".claims td")
    assert cells.count() == 8 * 3
    for cell in (cells.first, cells.last):
        box = cell.bounding_box()
        assert cell.is_visible() and box["x"] >= 0 and box["x"] + box["width"] <= width
    # The name of the model is above each column, or where there is no room, in each cell.
    assert page.locator(".claims thead").is_visible() == (width == 1280)
    page.close()


def test_axe_finds_no_fault_and_figures_can_be_read(chromium: Any, report_file: Path) -> None:
    page = opened(chromium, report_file, 1280)
    assert faults(page) == []
    # Of words within a drawing axe says nothing.
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        behind = luminance(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        ink = luminance(page.locator("figure text").first.evaluate("words => getComputedStyle(words).fill"))
        assert (behind < 0.5) == (scheme == "dark")
        assert (max(ink, behind) + 0.05) / (min(ink, behind) + 0.05) > 4.5
    page.close()


def luminance(colour: str) -> float:
    """Relative luminance of "rgb(r, g, b)", as WCAG 2 defines it."""
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_what_holds_is_on_the_first_screen(chromium: Any, report_file: Path) -> None:
    page = opened(chromium, report_file, 1280)
    verdicts = page.locator(".matrix tbody td .verdict")
    assert verdicts.count() == 8 * 3
    box = verdicts.last.bounding_box()
    assert box["y"] + box["height"] < 900
    page.locator(".matrix a[href='#question-4']").click()
    row = page.locator("#question-4").bounding_box()
    assert -1 < row["y"] < 900
    page.close()


def test_nothing_of_a_cell_lies_under_its_question_on_a_narrow_screen(chromium: Any, report_file: Path) -> None:
    page = opened(chromium, report_file, 390)
    page.locator(".matrix").evaluate("table => { table.parentElement.scrollLeft = 10000 }")
    covered = page.evaluate("""[...document.querySelectorAll(".matrix tbody tr")].flatMap((row) => {
        const question = row.querySelector("th").getBoundingClientRect();
        return [...row.querySelectorAll("td")].map((cell) => {
            const range = document.createRange();
            range.selectNodeContents(cell);
            const own = range.getBoundingClientRect();
            return own.left < question.right && own.right > question.left && own.top < question.bottom - 1
                || own.left < 0 || own.right > innerWidth;
        });
    })""")
    assert covered == [False] * 8 * 3
    # A cell says of which model it is.
    assert not page.locator(".matrix thead").is_visible()
    named = page.locator(".matrix td").first.evaluate("cell => getComputedStyle(cell, '::before').content")
    assert named == '"trio/ar"'
    page.close()


def test_the_numbers_of_a_table_with_sentences_are_on_the_screen(chromium: Any, tmp_path: Path) -> None:
    words = "the most similar by the cosine averaged over 25, 50 and 75 % of the tokens masked, no two neighbours " * 2
    columns = ["model", "change", "what", "accuracy", "kept", "low", "high", "problems", "repeated", "an answer"]
    row = ["trio/diffusion", "skip 3 apart", words, 0.5, 0.83, 0.51, 1.28, 12, 0.1, words]
    section = Section("Accuracy", "What is kept.", None, columns, [row], folded=False)
    page = opened(chromium, save_page(page_of("Page", "", [section], ""), tmp_path / "page.html"), 1280, drawn=False)
    cells = page.locator("section#accuracy td")
    places = [cell.bounding_box() for cell in cells.all()]
    assert all(box["x"] + box["width"] <= 1280 for box in places[:8])
    assert cells.nth(2).evaluate("cell => getComputedStyle(cell).textAlign") == "left"
    page.close()


def test_contents_lead_to_every_heading(chromium: Any, report_file: Path) -> None:
    page = opened(chromium, report_file, 1280)
    missing = page.evaluate("""[...document.querySelectorAll('a[href^="#"]')]
        .map((link) => link.getAttribute("href").slice(1)).filter((id) => !document.getElementById(id))""")
    assert missing == [] and page.locator("nav li").count() == page.locator("main section > h2").count()
    page.close()


def test_a_point_says_what_it_is_and_a_key_hides_its_line(chromium: Any, report_file: Path) -> None:
    page = opened(chromium, report_file, 1280)
    chart = page.locator("figure .wide svg").first
    dot = chart.locator("circle[data-words]").nth(2)
    dot.scroll_into_view_if_needed()
    box = dot.bounding_box()
    page.mouse.move(box["x"] + 3, box["y"] - 4)
    assert page.locator("#said").inner_text() == dot.get_attribute("data-words")
    chart.locator(".key").first.click()
    assert not chart.locator(".series[data-series='0']").is_visible()
    assert chart.locator(".series[data-series='1']").is_visible()
    page.close()


def test_figures_and_numbers_are_files(chromium: Any, report_file: Path) -> None:
    page = opened(chromium, report_file, 1280)
    section = page.locator("section#what-each-block-changes")
    held = {}
    for name in ("SVG", "PNG", "CSV"):
        with page.expect_download() as waiting:
            section.get_by_text(name, exact=True).click()
        assert waiting.value.suggested_filename == f"what-each-block-changes.{name.lower()}"
        held[name] = Path(waiting.value.path()).read_bytes()
    assert (
        held["SVG"].startswith(b"<svg ")
        and b'xmlns="http://www.w3.org/2000/svg"' in held["SVG"]
        and b"trio/diffusion" in held["SVG"]
    )
    assert held["PNG"].startswith(b"\x89PNG") and len(held["PNG"]) > 10_000
    assert held["CSV"].startswith(b"layer,trio/ar,trio/ar low,")
    page.close()


def test_on_paper_nothing_is_folded_or_cut(chromium: Any, report_file: Path) -> None:
    page = opened(chromium, report_file, 690)
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("document.documentElement.scrollWidth") <= 690
    assert page.locator("details:not([open])").count() == 0 and not page.locator("nav").is_visible()
    assert (
        page.locator("figure .wide svg").first.is_visible()
        and not page.locator("figure .narrow svg").first.is_visible()
    )
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0
    page.close()


def test_eight_models_of_thirty_two_layers_fit_a_phone(chromium: Any, tmp_path: Path) -> None:
    line = [0.1, *(0.9 + layer / 1000 for layer in range(31))]
    kinds: list[Any] = ["diffusion", "ar", "ar-init"]
    study = made_study({f"org/model-{i}": made_model(kinds[i % 3], line, 0.1 * i) for i in range(8)})
    path = save_page(report_page(study, claims(study)), tmp_path / "report.html")
    html = path.read_text(encoding="utf-8")
    assert len(html) < 1_300_000 and 'class="claims many"' in html
    page = opened(chromium, path, 390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()


def test_a_profile_opens_offline(chromium: Any, profiles: list[Profile], tmp_path: Path) -> None:
    page = opened(chromium, save_page(profile_page(profiles), tmp_path / "profile.html"), 390)
    assert page.wrong == [] and page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()
