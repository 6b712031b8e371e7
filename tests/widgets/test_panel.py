import base64
import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import traitlets

from dlens.widgets.panel import Asked, Panel, corrected, css, esm, heat_html, numbers_html, packed


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


@pytest.mark.parametrize("name", ["denoising", "heads", "layer_collapse", "skip_planner", "token_recency"])
def test_no_class_is_one_that_hides_in_marimo(name: str) -> None:
    classes = {word for found in re.findall(r'class: "([^"]*)"', esm(name)) for word in found.split()}
    # Marimo's page has Tailwind's classes.
    assert "dlens" in classes and not classes & {"collapse", "hidden", "invisible", "sr-only"}


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


class Counted(Panel):
    """A widget whose square follows its number, which is at most 3."""

    _esm = "export default { render() {} }"
    number = traitlets.Int(2).tag(sync=True)
    square = traitlets.Dict().tag(sync=True)
    message = traitlets.Unicode("as it was").tag(sync=True)

    @traitlets.validate("number")
    def _small(self, proposal: Any) -> int:
        self.message = "set"
        return min(3, proposal.value)

    @traitlets.observe("number")
    def _follow(self, change: Any) -> None:
        self.square = packed(np.array([self.number**2 + 1 / 3]))

    def _asked(self) -> list[Asked]:
        return [Asked({"number": range(5)}, ["square"])]

    def html(self) -> str:
        return "<i>picture</i>"


def held(html: str) -> dict[str, Any]:
    """What a page without a kernel knows."""
    (packed_state,) = re.findall(r'"([A-Za-z0-9+/=]{50,})", render\)', html)
    return json.loads(gzip.decompress(base64.b64decode(packed_state)))


def test_a_file_holds_the_answers_to_every_choice_and_the_widget_stays_as_it_was() -> None:
    widget = Counted()
    found = held(str(widget.html_alone()))
    assert found["state"]["number"] == 2 and found["state"]["message"] == "as it was"
    (table,) = found["tables"]
    # Four is no choice: it would be corrected.
    assert table["keys"] == ["number"] and list(table["rows"]) == ["[0]", "[1]", "[2]", "[3]"]
    (square,) = np.frombuffer(base64.b64decode(table["rows"]["[3]"]["square"]["data"]["$bytes"]), "<f4")
    assert square == pytest.approx(9 + 1 / 3, rel=2**-12) and square != np.float32(9 + 1 / 3)
    assert (widget.number, widget.message) == (2, "as it was")


def test_the_same_widget_makes_the_same_file_but_for_its_name() -> None:
    first, second = (held(str(Counted(picture="p").html_alone())) for _ in range(2))
    assert first == second


def test_a_file_is_a_page_and_needs_the_right_name(tmp_path: Path) -> None:
    html = Counted().save_html(tmp_path / "a" / "run.html").read_text(encoding="utf-8")
    assert html.startswith("<!DOCTYPE html>") and "<title>dlens: Counted</title>" in html and "<i>picture</i>" in html
    assert "src=" not in html and "@import" not in html
    with pytest.raises(ValueError, match=r"expected a name that ends in \.html"):
        Counted().save_html(tmp_path / "run.txt")
