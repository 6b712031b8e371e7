"""Figures of dlens laid out: everything is on the page, and nothing lies over anything else."""

from __future__ import annotations

import plotly.graph_objects as go
import pytest

from dlens.show.figures import Statistic, bands, lines, points, styled
from dlens.show.figures.drawing import Dot, Line, Words
from dlens.show.figures.layout import drawn

LOSS = Statistic("ar", "loss", "layer", [3, 5, 7], [2.5, 2.25, 2.0], [2.25, 2.0, 1.5], [2.75, 2.5, 2.25], unit="nats")


def test_a_figure_has_its_axes_series_and_legend() -> None:
    other = Statistic("a model of a long name", "loss", "layer", [3, 5, 7], [1.0, 1.5, 2.0], unit="nats")
    drawing = drawn(bands([LOSS, other]), 720)
    assert (drawing.width, drawing.height) == (720, 380)
    assert [series.name for series in drawing.series] == ["ar", "a model of a long name"]
    words = [mark.text for mark in drawing.back if isinstance(mark, Words)]
    assert words[-2:] == ["layer", "loss, nats"] and {"3", "7"} <= set(words)
    assert [key.marks[-1].text for key in drawing.keys] == ["ar", "a model of a long name"]  # pyright: ignore


def test_one_series_needs_no_legend() -> None:
    assert drawn(lines([LOSS])).keys == []


@pytest.mark.parametrize("width", [300, 358, 720, 1040])
def test_all_is_within_the_page(width: float) -> None:
    names = [Statistic(f"org/model-{i}", "loss", "layer", [0, 31], [0.1, 0.2]) for i in range(8)]
    drawing = drawn(lines(names), width)
    dots = [mark for series in drawing.series for mark in series.marks if isinstance(mark, Dot)]
    assert len(dots) == 16 and all(0 < dot.x < width and 0 < dot.y < 380 for dot in dots)
    top = min(dot.y for dot in dots)
    # The legend ends above the numbers, and each key begins after the one before.
    keys = [key.marks[-1] for key in drawing.keys]
    assert all(isinstance(key, Words) and key.y < top for key in keys)
    rows: dict[float, list[float]] = {}
    for key in keys:
        rows.setdefault(key.y, []).append(key.x)  # pyright: ignore
    assert all(row == sorted(row) for row in rows.values())


def test_a_dotted_line_stands_at_its_number() -> None:
    kept = Statistic("ar", "kept", "", ["apart", "run"], [0.5, 1.0], [0.25, 0.5], [0.75, 1.5])
    drawing = drawn(points([kept], at=1))
    (line,) = [mark for mark in drawing.back if isinstance(mark, Line) and mark.dash]
    (x, _), _ = line.points
    dots = [mark for mark in drawing.series[0].marks if isinstance(mark, Dot)]
    assert x == dots[1].x > dots[0].x and dots[0].y < dots[1].y


def test_long_names_below_stand_upright_and_thin_out() -> None:
    names = [f"a long token {i}" for i in range(80)]
    drawing = drawn(lines([Statistic("", "loss", "token", names, [0.5] * 80)]), 720)
    words = [mark for mark in drawing.back if isinstance(mark, Words) and mark.text.startswith("a long")]
    assert 0 < len(words) < 80 and all(mark.turned for mark in words)
    assert min(b.x - a.x for a, b in zip(words, words[1:], strict=False)) >= 12


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="kind pie; expected scatter, bar, heatmap"):
        drawn(go.Figure(go.Pie(values=[1])))
    figure = styled(go.Figure(go.Heatmap(z=[[1.0]])), "", "")
    assert len(drawn(figure).series[0].marks) == 1
