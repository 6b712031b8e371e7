import numpy as np
import pytest
import torch

import dlens
from dlens.measures import Norms, pool
from dlens.measures.base.measure import Span
from tests.measures.runs import CPU, SPANS, Run, assert_close, observe, random_run


def two_pass(run: Run, drop: tuple[int, ...] = ()) -> dict[str, np.ndarray]:
    """The same means, cell by cell, from all values at once."""
    span = run.span
    shape = (span.n_steps, span.n_cells, span.n_layers)
    found = {key: np.full(shape, np.nan) for key in ("norm", "rms", "change")}
    found |= {key: np.zeros(shape, dtype=int) for key in ("n", "n_acted")}
    for at in np.ndindex(shape):
        step, cell, layer = at
        inside = run.cell[step] == cell
        acted = np.broadcast_to(~run.skipped[step, layer][:, None], inside.shape)[inside]
        pre, post = (
            np.delete(values[step, layer].double().numpy()[inside], drop, axis=-1)
            for values in (run.resid_pre, run.resid_post)
        )
        found["n"][at], found["n_acted"][at] = len(post), acted.sum()
        if len(post):
            found["norm"][at] = np.linalg.norm(post, axis=-1).mean()
            found["rms"][at] = np.sqrt((post**2).mean())
        if acted.any():
            change = np.linalg.norm(post - pre, axis=-1) / np.linalg.norm(pre, axis=-1)
            found["change"][at] = change[acted].mean()
    return found


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("drop", [(), (1, 3)])
def test_equals_a_two_pass_reference(span: Span, drop: tuple[int, ...]) -> None:
    run = random_run(span, skipped=True)
    for layers in (None, 3):
        data = observe(Norms(drop=drop), run, layers=layers)
        for key, expected in two_pass(run, drop).items():
            assert_close(data[key], expected)
    assert data["norm"].dims == ("step", *span.cell_dims, "layer")
    assert data.attrs["channels_left_out"] == list(drop)


def test_runs_merge_in_any_order() -> None:
    span, measure = SPANS[0], Norms()
    a, b, c = (observe(measure, random_run(span, seed=seed), sums=True) for seed in range(3))
    forwards = measure.result(measure.merge(measure.merge(a, b), c), span)
    backwards = measure.result(measure.merge(c, measure.merge(b, a)), span)
    for variable in forwards.data_vars:
        assert_close(forwards[variable], backwards[variable].values)


def test_a_skipped_layer_changes_nothing_but_has_a_length() -> None:
    run = random_run(SPANS[0])
    run.skipped[:, 1] = True
    data = observe(Norms(), run).sel(layer=1)
    assert data["change"].isnull().all() and data["norm"].notnull().any()


def test_the_change_is_pooled_over_the_positions_at_which_the_block_acted() -> None:
    run = random_run(SPANS[0], skipped=True)
    data, expected = observe(Norms(), run), two_pass(run)
    weighted = np.nan_to_num(expected["change"]) * expected["n_acted"]
    pooled = pool(data, "change", ["step", "noise", "state"])
    assert_close(pooled, weighted.sum((0, 1)) / expected["n_acted"].sum((0, 1)))


def test_values_that_are_not_finite_stay_in_their_layer_and_cell() -> None:
    run = random_run(SPANS[0])
    bad = run.cell[0, 0, -1]
    run.resid_post[0, 1, 0, -1] = torch.nan
    clean, data = two_pass(random_run(SPANS[0])), observe(Norms(), run)
    hit = np.zeros(clean["norm"].shape, dtype=bool)
    hit[0, bad, 1] = bad >= 0
    assert hit.any()
    expected = np.where(hit, np.nan, clean["norm"])
    assert_close(data["norm"], expected)


@pytest.mark.parametrize("name", ["ar", "diffusion"])
def test_on_the_trio_equals_float64(name: str, request: pytest.FixtureRequest) -> None:
    model: dlens.Model = request.getfixturevalue(name)
    ids = torch.randint(8, model.vocab_size, (2, 20), generator=torch.Generator().manual_seed(0))
    record = dlens.trace(model).capture("resid_pre", "resid_post").measure(Norms()).forward(ids)
    span = Span(1, model.n_layers, model.d_model, model.family.objective == "diffusion", CPU)
    pre, post = record["resid_pre"][None], record["resid_post"][None]
    run = Run(span, pre, post, np.zeros((1, 2, 20), dtype=int), np.zeros((1, span.n_layers, 2), dtype=bool))
    for key, expected in two_pass(run).items():
        assert_close(record.measures["norms"][key], expected)
