"""A drawing becomes SVG mark by mark."""

from __future__ import annotations

from xml.etree import ElementTree

from dlens.show.figures.drawing import Area, Box, Dot, Drawing, Key, Line, Series, Words, svg

WILD = "<b>&\"'"
DRAWING = Drawing(
    100,
    50,
    [Line([(0, 0), (10, 5)], "line", 1), Words(5, 6, f"a {WILD}", 12, "end", turned=True)],
    [
        Series("ar", [Area([(0, 0), (1, 1), (0, 1)], "#0072B2"), Dot(3, 4, 2, "#0072B2", f"said {WILD}")]),
        Series("b", []),
    ],
    [Key(0, [Box(1, 2, 3, 4, "#D55E00")])],
)


def test_every_mark_is_an_element_with_its_place_and_colour() -> None:
    root = ElementTree.fromstring(str(svg(DRAWING, f"of {WILD}")))
    assert root.attrib == {"class": "chart", "viewBox": "0 0 100 50", "role": "img", "aria-label": f"of {WILD}"}
    line, words = root[0][0], root[0][1]
    assert (line.tag, line.get("points"), line.get("stroke")) == ("polyline", "0,0 10,5", "#d8dee4")
    assert (words.text, words.get("text-anchor"), words.get("transform")) == (f"a {WILD}", "end", "rotate(-90 5 6)")
    series = root[0][2]
    assert (series.get("class"), series.get("data-series")) == ("series", "0")
    area, dot = series
    assert (area.tag, area.get("fill-opacity")) == ("polygon", "0.18")
    assert (dot.get("cx"), dot.get("r"), dot.get("data-words")) == ("3", "2", f"said {WILD}")
    key = root[0][4]
    assert key.get("class") == "key" and key[0].attrib == {
        "x": "1",
        "y": "2",
        "width": "3",
        "height": "4",
        "fill": "#D55E00",
    }


def test_furniture_has_a_class_that_a_page_may_colour() -> None:
    root = ElementTree.fromstring(str(svg(DRAWING)))
    assert [mark.get("class") for mark in root[0][:2]] == ["stroke-line", "fill-ink"]


def test_a_file_of_its_own_names_its_kind_and_size() -> None:
    text = str(svg(DRAWING, alone=True))
    assert 'xmlns="http://www.w3.org/2000/svg" width="100" height="50"' in text
    assert "xmlns" not in str(svg(DRAWING))
