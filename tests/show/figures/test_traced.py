"""What traces show on a page, in numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from dlens.show.figures.drawing import Area, Box, Dot, Line
from dlens.show.figures.scales import Scale
from dlens.show.figures.traced import MARKS, Page, colour_bars, name_of, values_of

NAN = float("nan")
# A hundred pixels for ten units along both axes.
PAGE = Page(0, 0, 100, 100, Scale("", 0, 10, []), Scale("", 0, 10, []), 12)


def marks(*traces: Any, page: Page = PAGE, number: int = -1) -> list[Any]:
    figure = go.Figure(list(traces))
    own: Any = figure.data
    number = number % len(own)
    return list(MARKS[own[number].type](page, own, number))


def test_a_line_breaks_where_nothing_is_known() -> None:
    line = go.Scatter(
        x=[0, 1, 2, 3, 4], y=[0, 10, NAN, 5, 5], mode="lines+markers", line={"color": "red", "dash": "dash"}
    )
    drawn = marks(line)
    lines, dots = ([each for each in drawn if isinstance(each, kind)] for kind in (Line, Dot))
    assert [each.points for each in lines] == [[(0, 100), (10, 0)], [(30, 50), (40, 50)]]
    assert lines[0].colour == "red" and lines[0].dash == (7, 4)
    assert [(dot.x, dot.y) for dot in dots] == [(0, 100), (10, 0), (30, 50), (40, 50)]


def test_what_lies_beyond_the_axes_is_not_drawn() -> None:
    drawn = marks(go.Scatter(x=[0, 1, 2], y=[-5, 5, 5], mode="lines"))
    assert [each.points for each in drawn] == [[(10, 50), (20, 50)]]


def test_a_band_lies_between_two_lines() -> None:
    low = go.Scatter(x=[0, 1], y=[1, 2], mode="lines", line={"width": 0})
    high = go.Scatter(
        x=[0, 1], y=[3, 4], mode="lines", line={"width": 0}, fill="tonexty", fillcolor="rgba(0, 114, 178, 0.18)"
    )
    assert marks(low, high, number=0) == []
    (band,) = marks(low, high)
    assert band == Area([(0, 90), (10, 80), (10, 60), (0, 70)], "rgb(0, 114, 178)")


def test_whiskers_reach_the_ends_of_intervals() -> None:
    point = go.Scatter(
        x=[5], y=[5], mode="markers", marker={"size": 8, "color": "red"}, error_x={"array": [2], "arrayminus": [1]}
    )
    drawn = marks(point)
    assert [each.points for each in drawn[:3]] == [[(40, 50), (70, 50)], [(40, 46), (40, 54)], [(70, 46), (70, 54)]]
    assert drawn[3] == Dot(50, 50, 4, "red", drawn[3].words)


def test_bars_of_two_traces_stand_side_by_side() -> None:
    page = Page(0, 0, 100, 100, Scale("", 0, 10, []), Scale("", 1.5, -0.5, [], ("a", "b")), 12)
    bars = [go.Bar(x=[5, 10], y=["a", "b"], orientation="h", name=name) for name in ("one", "two")]
    first, second = (marks(*bars, page=page, number=number) for number in (0, 1))
    assert [(box.x, box.y, box.width, box.height) for box in first] == [(0, 45 - 40, 50, 20), (0, 55, 100, 20)]
    assert [box.y for box in second] == [25, 75]


def test_a_heat_map_has_a_box_for_each_number_and_a_bar_for_its_colours() -> None:
    page = Page(0, 0, 100, 100, Scale("", -0.5, 1.5, []), Scale("", -0.5, 0.5, [], ("0",)), 12)
    heat = go.Heatmap(z=[[-1, None]], x=[0, 1], y=["0"], zmid=0, colorscale=[[0, "rgb(0,0,255)"], [1, "rgb(255,0,0)"]])
    drawn = marks(heat, page=page)
    assert [(box.x, box.y) for box in drawn] == [(0, 0), (50, 0)]
    assert [box.colour for box in drawn] == ["rgb(0, 0, 255)", "line"]
    bars = list(colour_bars(page, go.Figure(heat).data))  # pyright: ignore
    assert sum(isinstance(each, Box) for each in bars) == 40
    assert [each.text for each in bars if not isinstance(each, Box)] == ["−1", "1", ""]


def test_a_point_says_what_its_template_says() -> None:
    template = "%{y}: %{x:.2f}<br>of %{customdata[1]:.1f}, %{text}<extra>%{fullData.name}</extra>"
    line = go.Scatter(
        x=[-1.5], y=[2], customdata=[[1, 2.25]], text=["a&lt;b"], name="m&lt;n", mode="markers", hovertemplate=template
    )
    page = Page(0, 0, 100, 100, Scale("", -10, 10, []), Scale("", 0, 10, []), 12)
    (dot,) = marks(line, page=page)
    assert dot.words == "m<n: 2: −1.50, of 2.2, a<b"


def test_names_and_places() -> None:
    heat = go.Figure(go.Heatmap(z=[[1, 2, 3]])).data[0]  # pyright: ignore
    assert (list(values_of(heat, "x")), list(values_of(heat, "y"))) == ([0, 1, 2], [0])
    assert name_of(go.Scatter(name="a<br>b")) == "a, b"
