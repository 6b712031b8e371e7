"""On paper a widget's own file is light and whole, whatever the screen was, and nothing asks to be clicked."""

from pathlib import Path
from typing import Any

import pytest

import dlens
from dlens.widgets import Denoising
from tests.browser import faults
from tests.widgets.records import WINDOWS, denoised, top_tokens
from tests.widgets.test_keyboard import STOPS, widget

# A4 without margins of 14 mm, at 96 pixels to an inch.
WIDTH, HEIGHT = 688, 1017
SEEN = """(selector) => [...document.querySelectorAll(selector)].filter((each) => each.checkVisibility())
    .map((each) => each.ariaLabel ?? each.textContent)"""
CUT = """() => [...document.querySelectorAll(".dlens *")].filter((each) => each.checkVisibility()).filter((each) => {
    const style = getComputedStyle(each), box = each.getBoundingClientRect();
    const more = each.scrollHeight > each.clientHeight + 1 || each.scrollWidth > each.clientWidth + 1;
    return (more && style.overflow !== "visible") || box.right > innerWidth + 1;
}).map((each) => each.outerHTML.slice(0, 80))"""
# How many pixels of all maps and plots have exactly one colour.
DRAWN = """(colour) => [...document.querySelectorAll(".dlens canvas")].filter((each) => each.checkVisibility())
    .filter((each) => each.height > 1).map((canvas) => {
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        let n = 0;
        for (let i = 0; i < data.length; i += 4) n += [...colour, 255].every((part, k) => data[i + k] === part);
        return n;
    })"""
ON_LIGHT, ON_DARK = (27, 31, 36), (230, 233, 237)


def saved(page: Any, widget: Any, folder: Path) -> None:
    """A widget's own file, open on a dark screen."""
    page.emulate_media(media="screen", color_scheme="dark")
    page.goto(widget.save_html(folder / "widget.html").as_uri())
    page.locator(".dlens").wait_for()


def on_paper(page: Any) -> None:
    page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
    page.emulate_media(media="print", color_scheme="dark")
    # Two frames: one for the sizes, one for the canvases that follow them.
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


@pytest.mark.parametrize("name", STOPS)
def test_a_saved_widget_is_whole_and_light_on_paper(name: str, page: Any, tmp_path: Path, ar: dlens.Model) -> None:
    saved(page, widget(name, ar), tmp_path)
    on_screen = page.evaluate(DRAWN, ON_DARK)
    on_paper(page)
    assert page.evaluate(SEEN, ".dlens :is(input, progress)") == []
    assert page.evaluate(SEEN, ".dlens button:not(.strip button, td button)") == []
    assert page.evaluate(CUT) == []
    style = (
        "(place) => { const { backgroundColor, color } = getComputedStyle(place); return [backgroundColor, color]; }"
    )
    assert page.locator(".dlens").evaluate(style) == ["rgb(255, 255, 255)", "rgb(27, 31, 36)"]
    assert page.locator("body").evaluate(style)[0] == "rgb(255, 255, 255)"
    assert page.locator(".dlens").evaluate("(place) => getComputedStyle(place).printColorAdjust") == "exact"
    drawn = page.evaluate(DRAWN, ON_LIGHT)
    assert len(drawn) == len(on_screen) and all(drawn) and not any(page.evaluate(DRAWN, ON_DARK))
    # Back on the screen all is as it was.
    page.emulate_media(media="screen", color_scheme="dark")
    page.wait_for_function(f"() => ({DRAWN})([{', '.join(map(str, ON_DARK))}]).every(Boolean)")
    assert page.evaluate(SEEN, ".dlens button") != [] or name in ("recency", "heads")


@pytest.mark.parametrize("name", STOPS)
def test_maps_keep_their_size_once_pages_are_laid_out(name: str, page: Any, tmp_path: Path, ar: dlens.Model) -> None:
    page.set_viewport_size({"width": 1280, "height": 900})
    saved(page, widget(name, ar), tmp_path)
    box = "const { width, height } = each.getBoundingClientRect(); return [width, height];"
    sizes = f"maps => maps.map((each) => {{ {box} }})"
    maps, before = page.locator(".dlens canvas:visible"), "(name) => window.dispatchEvent(new Event(name))"
    page.evaluate(before, "beforeprint")
    laid = maps.evaluate_all(sizes)
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator(".dlens").bounding_box()["width"] == WIDTH
    assert maps.evaluate_all(sizes) == [pytest.approx(each, abs=1) for each in laid]
    page.emulate_media(media="screen", color_scheme="dark")
    page.evaluate(before, "afterprint")
    assert page.locator(".dlens").bounding_box()["width"] > WIDTH


def test_what_was_chosen_stands_as_words(page: Any, tmp_path: Path, ar: dlens.Model) -> None:
    saved(page, Denoising(denoised(40, measures={"t": top_tokens(40, 2, 41)})), tmp_path)
    page.get_by_label("Step", exact=True).fill("12")
    page.get_by_text("before 12 of 40").wait_for()
    on_paper(page)
    assert page.locator(".dlens .controls output").inner_text() == "before 12 of 40"
    assert page.get_by_label("Colour by").input_value() == "commit" and page.get_by_label("Colour by").is_visible()
    tokens = page.locator(".tokens")
    assert tokens.evaluate("(list) => list.scrollHeight <= list.clientHeight + 1")
    saved(page, widget("planner", ar), tmp_path)
    code = page.locator(".code").input_value()
    assert page.locator(".printed").is_hidden()
    on_paper(page)
    assert page.locator(".printed").inner_text() == code and page.locator(".printed").is_visible()


def test_a_closed_table_stays_away_and_an_open_one_is_whole(page: Any, tmp_path: Path, ar: dlens.Model) -> None:
    saved(page, widget("collapse", ar), tmp_path)
    page.get_by_text("The numbers").first.click()
    page.locator("details[open] table").wait_for()
    on_paper(page)
    assert page.locator("details:visible").count() == 1
    assert page.evaluate(CUT) == []


def test_what_a_step_does_not_compute_can_be_read(page: Any, tmp_path: Path) -> None:
    saved(page, Denoising(denoised(3, computed=WINDOWS)), tmp_path)
    page.get_by_label("Step", exact=True).fill("2")
    page.get_by_text("this step computes 2 of 4 positions").wait_for()
    still = page.locator(".tokens .still")
    assert still.count() == 2 and faults(page) == []
    # axe asks only for what it can tell: ink on the page itself, at full strength, above a line of the token's colour.
    looks = still.evaluate_all(
        "spans => spans.map((s) => { const c = getComputedStyle(s); return [c.opacity, c.color, c.backgroundColor]; })"
    )
    assert looks == [["1", "rgb(163, 172, 182)", "rgba(0, 0, 0, 0)"]] * 2
    own = still.evaluate_all("spans => spans.map((s) => s.style.getPropertyValue('--own'))")
    assert own[0] == "" and own[1].startswith("rgb(")
