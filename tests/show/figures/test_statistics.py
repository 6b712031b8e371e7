from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from dlens.show.figures import COLOURS, Statistic, bands, lines, points, statistics_table
from dlens.show.figures.statistics import whiskers
from dlens.show.figures.style import faint, styled
from tests.refusing import WRONG, assert_three_parts
from tests.unchecked import unchecked

AR = Statistic("ar", "loss", "layer", [3, 5], [2.5, 2.25], [2.25, 2.0], [3.0, 2.5], unit="nats a token")
DLLM = Statistic("dllm", "loss", "layer", [3, 5, 7], [1.5, 1.25, 1.0], unit="nats a token")
KEPT = Statistic("ar", "kept", "", ["apart", "in a row"], [0.9, 0.5], [0.8, 0.25], [1.0, 0.75], notes=["", "few"])


def test_a_statistic_says_what_it_is_of() -> None:
    assert (AR.axis, KEPT.axis) == ("loss, nats a token", "kept")
    with pytest.raises(FrozenInstanceError):
        AR.name = "other"  # pyright: ignore


def test_the_first_places_can_be_left_out() -> None:
    later = AR.after(1)
    assert (later.places, later.values, later.low, later.high) == ([5], [2.25], [2.0], [2.5])
    assert (later.name, later.unit) == ("ar", "nats a token")
    assert DLLM.after(1).low is None and KEPT.after(1).notes == ["few"]


@pytest.mark.parametrize(
    "given",
    [
        {"values": [1.0]},
        {"values": [1.0, 2.0], "low": [0.0], "high": [2.0, 3.0]},
        {"values": [1.0, 2.0], "low": [0.0, 1.0]},
        {"values": [1.0, 2.0], "notes": ["one"]},
    ],
)
def test_parts_that_do_not_fit_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError) as caught:
        Statistic("ar", "loss", "layer", [0, 1], **given)
    assert_three_parts(str(caught.value), "ar has 2 places and ")


def test_a_table_has_every_number_once() -> None:
    columns, rows = statistics_table([AR, DLLM])
    assert columns == ["layer", "ar", "ar low", "ar high", "dllm"]
    assert rows[:2] == [[3, 2.5, 2.25, 3.0, 1.5], [5, 2.25, 2.0, 2.5, 1.25]]
    assert rows[2][0] == 7 and rows[2][4] == 1.0 and all(value != value for value in rows[2][1:4])


def test_a_band_lies_behind_its_line() -> None:
    low, high, line, other = bands([AR, DLLM]).data
    assert (low.y, high.y, line.y, other.y) == ((2.25, 2.0), (3.0, 2.5), (2.5, 2.25), (1.5, 1.25, 1.0))
    assert low.x == high.x == line.x == (3, 5)
    assert (high.fill, high.fillcolor, low.showlegend) == ("tonexty", faint(COLOURS[0]), False)
    assert list(map(tuple, line.customdata)) == [(2.25, 3.0), (2.0, 2.5)] and other.customdata is None
    assert line.hovertemplate.startswith("layer %{x:.3g}: %{y:.3f} (%{customdata[0]:.3f} to %{customdata[1]:.3f})<")
    assert other.hovertemplate.startswith("layer %{x:.3g}: %{y:.3f}<")
    layout = bands([AR, DLLM]).layout
    assert (layout.xaxis.title.text, layout.yaxis.title.text) == ("layer", "loss, nats a token")


def test_colours_and_dashes_are_given_by_number() -> None:
    drawn = bands([DLLM, DLLM, DLLM], [0, 0, 7], [0, 1, 5]).data
    assert [line.line.color for line in drawn] == [COLOURS[0], COLOURS[0], COLOURS[1]]
    assert [line.line.dash for line in drawn] == ["solid", "dash", "dash"]


def test_lines_have_whiskers_notes_and_digits() -> None:
    thirds = Statistic("ar", "kept", "third", ["early", "late"], [0.9, 0.5], [0.8, 0.25], [1.0, 0.75], digits=2)
    [line] = lines([thirds]).data
    assert line.error_y.array == pytest.approx((0.1, 0.25)) and line.error_y.arrayminus == pytest.approx((0.1, 0.25))
    assert line.hovertemplate.startswith("%{x}: %{y:.2f} (%{customdata[0]:.2f}")
    noted = Statistic("ar", "share", "layer", [0, 1], [0.5, 0.25], notes=["channel 3", "channel 5"])
    first, second = lines([noted, noted], ["#000000", "#ffffff"]).data
    assert first.text == ("channel 3", "channel 5") and first.hovertemplate.startswith(
        "layer %{x:.3g}: %{y:.3f} %{text}<"
    )
    assert (first.line.color, second.line.color) == ("#000000", "#ffffff") and first.error_y.array is None


def test_points_have_a_row_for_each_name() -> None:
    other = Statistic("dllm", "kept", "", ["in a row", "late"], [0.75, 1.0])
    figure = points([KEPT, other], at=1)
    one, two = figure.data
    assert figure.layout.yaxis.ticktext == ("apart", "in a row", "late")
    assert one.y == pytest.approx((-0.11, 0.89)) and two.y == pytest.approx((1.11, 2.11))
    assert list(map(tuple, one.customdata)) == [("apart", 0.8, 1.0, ""), ("in a row", 0.25, 0.75, "few")]
    assert one.error_x.array == pytest.approx((0.1, 0.25)) and two.error_x.array is None
    assert figure.layout.shapes[0].x0 == 1 and not points([KEPT]).layout.shapes


def test_whiskers_are_distances() -> None:
    found = whiskers(AR)
    assert found is not None and (found["array"], found["arrayminus"]) == ([0.5, 0.25], [0.25, 0.25])
    assert whiskers(DLLM) is None


def test_numbers_of_different_kinds_are_not_drawn_together() -> None:
    for draw in (bands, lines, points, statistics_table):
        with pytest.raises(ValueError) as caught:
            draw([AR, KEPT])
        assert_three_parts(str(caught.value), "a figure got statistics of kept and loss, nats a token by layer")


def test_nothing_is_an_empty_figure() -> None:
    assert bands([]).data == lines([]).data == points([]).data == ()


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_what_is_no_statistic_is_refused(wrong: Any) -> None:
    for draw in (bands, lines, points, statistics_table):
        with unchecked(), pytest.raises(ValueError) as caught:
            draw(wrong)
        assert_three_parts(str(caught.value), "the figure got ")


def test_colours_dashes_and_lines_of_other_kinds_are_refused() -> None:
    for what, draw in {
        "colours": lambda wrong: bands([AR], colours=wrong),
        "dashes": lambda wrong: bands([AR], dashes=wrong),
        "colours ": lambda wrong: lines([AR], wrong),
        "at": lambda wrong: points([KEPT], wrong),
        "name": lambda wrong: Statistic(wrong, "loss", "layer", [3], [2.5]),
        "values": lambda wrong: Statistic("ar", "loss", "layer", [3], wrong),
    }.items():
        for wrong in ("x" if what == "at" else 3, [], {}, object()):
            with unchecked(), pytest.raises(ValueError) as caught:
                draw(wrong)
            if what != "values" or wrong != []:
                assert_three_parts(str(caught.value), f"{what.strip()}=")


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_what_is_no_figure_has_no_look(wrong: Any) -> None:
    with unchecked(), pytest.raises(ValueError) as caught:
        styled(wrong, "layer", "loss")
    assert_three_parts(str(caught.value), "figure=")
