"""Pages open in Chromium without a network: no error, no request, readable on wide and on narrow screens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dlens.findings.layers.profile import Profile
from dlens.findings.study.claims import claims
from dlens.show.report.page import profile_page, save_page
from dlens.show.report.report import report_page
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


def opened(chromium: Any, path: Path, width: int, scheme: str = "light") -> Any:
    """A page, with what went wrong while it was opened in `page.wrong`."""
    page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.wrong = []
    page.on(
        "console", lambda message: page.wrong.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("request", lambda asked: None if asked.url == path.as_uri() else page.wrong.append(asked.url))
    page.goto(path.as_uri())
    page.locator(".js-plotly-plot .main-svg").last.wait_for()
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_the_page(chromium: Any, report_file: Path, scheme: str) -> None:
    page = opened(chromium, report_file, 1280, scheme)
    behind = luminance(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert (behind < 0.5) == (scheme == "dark")
    for what, property in ((".verdict", "color"), (".claims small", "color"), (".xtick text", "fill")):
        ink = luminance(page.locator(what).first.evaluate(f"e => getComputedStyle(e).{property}"))
        assert (max(ink, behind) + 0.05) / (min(ink, behind) + 0.05) > 4.5, what
    page.close()


def luminance(colour: str) -> float:
    """Relative luminance of "rgb(r, g, b)", as WCAG 2 defines it."""
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_a_profile_opens_offline(chromium: Any, profiles: list[Profile], tmp_path: Path) -> None:
    page = opened(chromium, save_page(profile_page(profiles), tmp_path / "profile.html"), 390)
    assert page.wrong == [] and page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()
