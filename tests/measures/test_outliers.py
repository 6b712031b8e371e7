import numpy as np
import pytest

from dlens.measures import Outliers
from dlens.measures.base.measure import Span
from tests.measures.runs import SPANS, Run, assert_close, observe, random_run
from tests.unchecked import unchecked


def states(run: Run, layer: int, cell: int | None = None) -> np.ndarray:
    """Every measured row of a layer, of one cell or of all."""
    inside = run.cell >= 0 if cell is None else run.cell == cell
    return run.resid_post[:, layer].double().numpy()[inside]


def energy_share(rows: np.ndarray) -> np.ndarray:
    if not len(rows):
        return np.full(rows.shape[-1], np.nan)
    return (rows**2).sum(0) / (rows**2).sum()


@pytest.mark.parametrize("span", SPANS)
def test_equals_a_two_pass_reference(span: Span) -> None:
    run = random_run(span)
    data = observe(Outliers(top=3), run)
    pooled = np.stack([energy_share(states(run, layer)) for layer in range(span.n_layers)])
    channels = np.argsort(-pooled[: max(1, span.n_layers - 1)].mean(0))[:3]
    np.testing.assert_array_equal(data["channel"], channels)
    np.testing.assert_array_equal(data["top_channel"], pooled.argmax(-1))
    assert_close(data["top_share"], pooled.max(-1))
    for cell, layer in np.ndindex(span.n_cells, span.n_layers):
        rows = states(run, layer, cell)
        at = np.unravel_index(cell, data["n"].shape[:-1])
        assert data["n"].values[at][layer] == len(rows)
        assert_close(data["energy_share"][at][layer], energy_share(rows)[channels])
        mean = np.abs(rows).mean(0) if len(rows) else np.full(span.d_model, np.nan)
        assert_close(data["max_median"][at][layer], mean.max() / np.median(mean))


@pytest.mark.parametrize("span", SPANS)
def test_persistence_equals_a_two_pass_reference(span: Span) -> None:
    run = random_run(span)
    data = observe(Outliers(top=4), run, layers=2)
    largest = run.resid_post.abs().numpy().argmax(-1)
    for number, channel in enumerate(data["channel"].values):
        led = np.zeros((span.n_layers, *run.cell.shape[:2]))
        some = (run.cell >= 0).any(2)
        for layer, step, row in np.ndindex(led.shape):
            inside = run.cell[step, row] >= 0
            led[layer, step, row] = (largest[step, layer, row][inside] == channel).mean() if inside.any() else 0
        assert_close(data["steps_led"][:, number], (led[:, some] > 0.5).mean(-1))
        inside = np.broadcast_to((run.cell >= 0)[:, None], largest.shape)
        share = ((largest == channel) & inside).sum((0, 2, 3)) / inside.sum((0, 2, 3))
        assert float(data["layers_led"][number]) == (share > 0.5).mean()
        for cell, layer in np.ndindex(span.n_cells, span.n_layers):
            at = np.unravel_index(cell, data["n"].shape[:-1])
            inside = run.cell == cell
            expected = (largest[:, layer][inside] == channel).mean() if inside.any() else np.nan
            assert_close(data["peak_share"][at][layer, number], expected)


@pytest.mark.parametrize("span", SPANS)
def test_massive_activations_equal_a_two_pass_reference(span: Span) -> None:
    run = random_run(span)
    data = observe(Outliers(massive=4), run)
    for cell, layer in np.ndindex(span.n_cells, span.n_layers):
        values = np.abs(states(run, layer, cell))
        ratios = values.max(-1) / np.median(values, -1) if len(values) else np.array([np.nan])
        at = np.unravel_index(cell, data["n"].shape[:-1])
        assert_close(data["mmr"][at][layer], ratios.mean())
        assert_close(data["massive_share"][at][layer], (ratios > 4).mean() if len(values) else np.nan)
    assert data.attrs["massive"] == "above 4 x the median of the same position"


def test_the_published_ratio_takes_the_lower_median() -> None:
    span, run = SPANS[0], random_run(SPANS[0])
    lower, middle = (observe(Outliers(massive=4, median=which), run) for which in ("lower", "middle"))  # pyright: ignore
    assert span.d_model % 2 == 0
    for cell, layer in np.ndindex(span.n_cells, span.n_layers):
        values = np.abs(states(run, layer, cell))
        if not len(values):
            continue
        at = np.unravel_index(cell, lower["n"].shape[:-1])
        ordered = np.sort(values, -1)
        assert_close(lower["mmr"][at][layer], (ordered[:, -1] / ordered[:, span.d_model // 2 - 1]).mean())
        assert lower["mmr"][at][layer] > middle["mmr"][at][layer]


def test_a_median_is_the_middle_or_the_lower() -> None:
    with unchecked(), pytest.raises(ValueError, match="median='upper'; expected 'middle' or 'lower'"):
        Outliers(median="upper")  # pyright: ignore


def test_a_channel_that_leads_everywhere_persists() -> None:
    run = random_run(SPANS[0])
    run.resid_post[..., 4] = 100.0
    data = observe(Outliers(massive=10), run).sel(channel=4)
    for name in ("steps_led", "layers_led"):
        assert (data[name] == 1).all()
    assert (data["massive_share"].values[data["n"].values > 0] == 1).all()


def test_massive_must_be_a_ratio() -> None:
    with pytest.raises(ValueError, match="massive=1; expected a ratio above 1"):
        Outliers(massive=1)


def test_a_position_that_is_not_finite_peaks_nowhere_that_is_known() -> None:
    run = random_run(SPANS[0])
    run.cell[:] = -1
    run.cell[0, 0], run.cell[1, 0] = [3, 3, -1, 4, 4, 4], [6, 6, 6, 7, 7, 7]
    for value in (np.nan, np.inf):
        run.resid_post[0, 1, 0, 0, 3] = value
        shares = observe(Outliers(), run)["peak_share"]
        assert shares.sel(layer=1, noise=0.15, state="prompt").isnull().all()
        assert shares.sel(layer=1, noise=0.25, state="prompt").notnull().all()
        assert shares.sel(layer=0, noise=0.15, state="prompt").notnull().all()


def test_finds_a_planted_channel() -> None:
    run = random_run(SPANS[0])
    run.resid_post[..., 4] = 100.0
    data = observe(Outliers(), run)
    assert int(data["channel"][0]) == 4
    assert (data["top_channel"] == 4).all()
    assert (data["top_share"] > 0.99).all()


def test_the_last_layer_does_not_choose_the_channels() -> None:
    run = random_run(SPANS[0])
    run.resid_post[:, -1, ..., 2] = 1000.0
    data = observe(Outliers(top=1), run)
    assert int(data["channel"][0]) != 2
    assert int(data["top_channel"][-1]) == 2


def test_runs_merge_in_any_order() -> None:
    span, measure = SPANS[0], Outliers()
    a, b, c = (observe(measure, random_run(span, seed=seed), sums=True) for seed in range(3))
    forwards = measure.result(measure.merge(measure.merge(a, b), c), span)
    backwards = measure.result(measure.merge(c, measure.merge(b, a)), span)
    for variable in forwards.data_vars:
        assert_close(forwards[variable], backwards[variable].values)


def test_memory_does_not_grow_with_steps_or_positions() -> None:
    short = Span(1, 2, 8, True, SPANS[0].device)
    long = Span(256, 2, 8, True, SPANS[0].device)
    sizes = [{key: value.shape for key, value in Outliers().start(span).items()} for span in (short, long)]
    assert sizes[0] == sizes[1]


def test_a_skipped_layer_is_still_read() -> None:
    run = random_run(SPANS[0])
    run.skipped[:, 1] = True
    assert observe(Outliers(), run)["top_share"].notnull().all()


def test_top_must_be_positive() -> None:
    with pytest.raises(ValueError, match="top=0; expected at least 1"):
        Outliers(top=0)
