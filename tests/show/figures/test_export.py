"""Figures as files, read back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import plotly.graph_objects as go
import pytest
from PIL import Image

from dlens.show.figures import Statistic, bands, lines, save_figure, styled
from dlens.show.figures.captions import captioned
from dlens.show.figures.export import Look
from tests.unchecked import unchecked

LOSS = Statistic("ar $x_1$", "loss", "layer", [3, 5], [2.5, 2.25], [2.25, 2.0], [2.75, 2.5])
SVG = "{http://www.w3.org/2000/svg}"
LOOKS: tuple[Look, ...] = ("page", "column", "slide")
OTHER = Statistic("b", "loss", "layer", [3, 5], [1.5, 1.25])


def test_svg_has_its_words_and_size(tmp_path: Path) -> None:
    root = ElementTree.parse(save_figure(bands([LOSS, OTHER]), tmp_path / "a" / "loss.svg", "column")).getroot()
    assert (root.get("width"), root.get("height")) == ("336", "230")
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"ar $x_1$", "b", "loss", "layer"} <= set(texts)
    sizes = {element.get("font-size") for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert sizes == {"10.67"}


def caption(root: Any) -> list[Any]:
    return [text for text in root.iter(f"{SVG}text") if text.get("class") == "fill-quiet"]


def test_what_a_figure_is_of_stands_below_it(tmp_path: Path) -> None:
    figure, words = lines([LOSS]), "64 problems of trio-math, seed 0; skip layers 3, 5, 9, 11, 12"
    plain = ElementTree.parse(save_figure(figure, tmp_path / "plain.svg")).getroot()
    captioned(figure, [("ar", words)])
    roots = {look: ElementTree.parse(save_figure(figure, tmp_path / f"{look}.svg", look)).getroot() for look in LOOKS}
    for root in roots.values():
        assert " ".join(str(text.text) for text in caption(root)) == words == root.get("aria-label")
        along = next(text for text in root.iter(f"{SVG}text") if text.text == "layer")
        for text in caption(root):
            assert float(along.get("y", 0)) < float(text.get("y", 0)) < float(root.get("height", 0))
    # A page grows by it, and the numbers stay where they were.
    assert float(roots["page"].get("height", 0)) > float(plain.get("height", 0)) and not caption(plain)
    places = [[line.get("points") for line in root.iter(f"{SVG}polyline")] for root in (plain, roots["page"])]
    assert places[0] == places[1]
    assert len(caption(roots["column"])) == 2 and len(caption(roots["page"])) == 1


def test_a_caption_that_is_too_long_ends_in_an_ellipsis(tmp_path: Path) -> None:
    figure = captioned(lines([LOSS]), [("ar", "a word and another, " * 40)])
    held = caption(ElementTree.parse(save_figure(figure, tmp_path / "loss.svg", "column")).getroot())
    assert len(held) == 3 and str(held[-1].text).endswith(" …")


def test_png_is_four_times_as_fine_and_not_blank(tmp_path: Path) -> None:
    figure = lines([LOSS])
    figure.add_vline(x=4)
    picture = Image.open(save_figure(figure, tmp_path / "loss.png", "column")).convert("RGB")
    assert picture.size == (336 * 4, 230 * 4)
    colours = {colour for _, colour in picture.getcolors(2**24) or []}
    assert (0x00, 0x72, 0xB2) in colours and (255, 255, 255) in colours


def test_pdf_keeps_words_as_text_and_its_size_in_points(tmp_path: Path) -> None:
    heat = styled(go.Figure(go.Heatmap(z=[[1.0, 2.0]], colorscale="Viridis")), "token", "layer")
    held = save_figure(heat, tmp_path / "heat.pdf", "slide").read_bytes()
    assert held.startswith(b"%PDF") and b"/MediaBox [ 0 0 720 405 ]" in held and b"/Type /Font" in held


def test_other_names_and_looks_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected a name that ends in .svg, .pdf, .png"):
        save_figure(lines([LOSS]), tmp_path / "loss.gif")
    with unchecked(), pytest.raises(ValueError, match="look='poster'; expected one of page, column, slide"):
        save_figure(lines([LOSS]), tmp_path / "loss.svg", "poster")  # pyright: ignore
    with unchecked(), pytest.raises(ValueError, match="a figure of plotly"):
        save_figure("loss", tmp_path / "loss.svg")  # pyright: ignore
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_svg_works_and_png_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert save_figure(lines([LOSS]), tmp_path / "loss.svg").exists()
    with pytest.raises(ImportError, match=r"pip install 'dlens\[figures\]', or save as .svg"):
        save_figure(lines([LOSS]), tmp_path / "loss.png")
