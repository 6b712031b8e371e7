import re

import numpy as np
import pytest

from dlens.widgets.panel import Panel, corrected, css, esm, heat_html, numbers_html, packed


class Words(Panel):
    """A widget whose picture is a word."""

    _esm = "export default { render() {} }"

    def html(self) -> str:
        return "<i>word</i>"


def test_numbers_travel_as_bytes() -> None:
    half = packed(np.array([[0.5, 1.5]]))
    assert (half["shape"], half["dtype"], np.frombuffer(half["data"], "<f4").tolist()) == (
        [1, 2],
        "float32",
        [0.5, 1.5],
    )
    whole = packed(np.array([True, False]))
    assert (whole["dtype"], np.frombuffer(whole["data"], "<i4").tolist()) == ("int32", [1, 0])


def test_what_was_corrected_is_said_once() -> None:
    assert corrected("step", 9, 3) == "There is no step 9: step 3 is shown." and corrected("step", 3, 3) == ""


@pytest.mark.parametrize("name", ["denoising", "layer_collapse", "token_recency", "skip_planner"])
def test_scripts_and_styles_follow_what_all_share(name: str) -> None:
    assert esm(name).startswith(esm("shared").split("\n")[0]) and "export default" in esm(name)
    assert css(name).startswith(css("shared").split("\n")[0])


def test_a_matrix_is_coloured_cells_from_low_to_high() -> None:
    html = heat_html(packed(np.array([[0.0, 1.0], [np.nan, 0.5]])), "a <b>")
    assert re.findall(r"background:(#\w+)", html) == ["#123570", "#fdea45", "#808080", "#8c8678"]
    assert "<p>a &lt;b&gt;: from 0 (blue) to 1 (yellow)</p>" in html
    assert 'aria-label="a &lt;b&gt;: from 0 (blue) to 1 (yellow)"' in html
    assert "grid-template-columns:repeat(2,160px)" in html and heat_html({}, "nothing") == ""


def test_a_large_matrix_shows_means_of_neighbours() -> None:
    html = heat_html(packed(np.arange(128.0)[:, None] * np.ones((1, 3))), "m")
    assert html.count("<i ") == 64 * 3
    assert "m (means of neighbours, 128 by 3 in all): from 0.5 (blue) to 126 (yellow)" in html


def test_a_table_in_a_picture_is_rounded_to_three_digits() -> None:
    html = numbers_html(["share"], [[0.12345], [float("nan")]])
    assert '<td style="padding-right:1em">0.123</td>' in html and '<td style="padding-right:1em">–</td>' in html
    assert '<th scope="col" style="text-align:left;padding-right:1em">share</th>' in html


def test_the_picture_is_shown_before_the_widget(monkeypatch: pytest.MonkeyPatch) -> None:
    import IPython.display

    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda data, **_: shown.append(data))
    widget = Words(picture="named")
    widget._ipython_display_()
    assert shown[0]["text/html"] == '<div data-dlens-picture="named"><i>word</i></div>'
    assert shown[1]["text/html"] == "" and "application/vnd.jupyter.widget-view+json" in shown[1]
    assert widget._repr_mimebundle_()[0]["text/html"] == "<i>word</i>"


def test_every_widget_has_a_name_for_its_picture() -> None:
    first, second = Words().picture, Words().picture
    assert re.fullmatch("[0-9a-f]{32}", first) and first != second
