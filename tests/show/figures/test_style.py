import plotly.graph_objects as go

from dlens.show.figures import COLOURS, Statistic, bands, lines, noise_words, points, styled
from dlens.show.figures.style import faint, nth_colour, spelt


def test_colours_begin_anew() -> None:
    assert [nth_colour(number) for number in range(7)] == [*COLOURS, COLOURS[0]]


def test_a_faint_colour_is_the_same_one() -> None:
    assert faint("#D55E00") == "rgba(213, 94, 0, 0.18)"


def test_bins_of_noise_in_words() -> None:
    assert noise_words(0.05) == "0% to 10% masked"
    assert noise_words(0.35, 0.95) == "30% to 100% masked"


def test_a_figure_has_axes_and_a_legend_where_it_has_two_lines() -> None:
    one, two = (styled(go.Figure([go.Scatter(y=[1])] * n), "layer", "loss", yaxis={"type": "log"}) for n in (1, 2))
    assert (one.layout.xaxis.title.text, one.layout.yaxis.title.text) == ("layer", "loss")
    assert (one.layout.yaxis.type, one.layout.yaxis.automargin) == ("log", True)
    assert (one.layout.showlegend, two.layout.showlegend) == (False, True)
    assert one.layout.paper_bgcolor == one.layout.plot_bgcolor == "rgba(0,0,0,0)"


def test_names_are_text_and_no_markup() -> None:
    assert spelt("a<b>c</b> & d") == "a&lt;b&gt;c&lt;/b&gt; &amp; d" and spelt(3.5) == 3.5
    wild = Statistic("<b>x</b>", "loss <i>", "layer", ["<b>p</b>"], [1.0], [0.5], [1.5], notes=["<b>n</b>"])
    for figure in (lines([wild]), bands([wild]), points([wild])):
        shown = str(figure.to_dict())
        assert "<b>" not in shown and "<i>" not in shown and "&lt;b&gt;x" in shown
