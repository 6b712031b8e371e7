import numpy as np
import pytest
import torch

from dlens.measures import Cosine
from dlens.measures.base.measure import Span
from tests.measures.runs import SPANS, Run, assert_close, observe, random_run


def two_pass(run: Run, drop: tuple[int, ...] = ()) -> tuple[np.ndarray, np.ndarray]:
    """The same mean, cell by cell, from all values at once."""
    span = run.span
    mean = np.full((span.n_steps, span.n_cells, span.n_layers), np.nan)
    n = np.zeros(mean.shape, dtype=int)
    keep = [c for c in range(span.d_model) if c not in drop]
    for step, cell, layer in np.ndindex(mean.shape):
        inside = (run.cell[step] == cell) & ~run.skipped[step, layer][:, None]
        pre = run.resid_pre[step, layer].double().numpy()[inside][:, keep]
        post = run.resid_post[step, layer].double().numpy()[inside][:, keep]
        n[step, cell, layer] = len(pre)
        if len(pre):
            norms = np.linalg.norm(pre, axis=-1) * np.linalg.norm(post, axis=-1)
            mean[step, cell, layer] = ((pre * post).sum(-1) / norms).mean()
    return mean, n


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("drop", [(), (1, 3)])
def test_equals_a_two_pass_reference(span: Span, drop: tuple[int, ...]) -> None:
    run = random_run(span, skipped=True)
    mean, n = two_pass(run, drop)
    data = observe(Cosine(drop=drop), run)
    assert data["cosine"].dims == ("step", *span.cell_dims, "layer")
    assert_close(data["cosine"], mean)
    np.testing.assert_array_equal(data["n"].values.reshape(n.shape), n)
    assert data.attrs["channels_left_out"] == list(drop)
    assert data.attrs["n"] == n.sum((0, 1)).max()


def test_a_layer_skipped_in_every_row_is_nan_and_counts_nothing() -> None:
    run = random_run(SPANS[0])
    run.skipped[:, 1] = True
    data = observe(Cosine(), run)
    assert data["cosine"].sel(layer=1).isnull().all()
    assert (data["n"].sel(layer=1) == 0).all()
    assert data["cosine"].sel(layer=0).notnull().any()


def test_cells_without_positions_are_nan() -> None:
    data = observe(Cosine(), random_run(SPANS[0]))
    empty = data["n"] == 0
    assert empty.any() and not empty.all()
    assert (data["cosine"].isnull() == empty).all()


def test_runs_merge_in_any_order() -> None:
    span = SPANS[0]
    measure = Cosine()
    runs = [random_run(span, seed=seed) for seed in range(3)]
    sums = [observe(measure, run, sums=True) for run in runs]
    forwards = measure.merge(measure.merge(sums[0], sums[1]), sums[2])
    backwards = measure.merge(sums[2], measure.merge(sums[1], sums[0]))
    assert_close(measure.result(forwards, span)["cosine"], measure.result(backwards, span)["cosine"].values)
    total, n = 0.0, 0
    for run in runs:
        mean, count = two_pass(run)
        total, n = total + np.nan_to_num(mean) * count, n + count
    expected = np.where(n > 0, total / np.maximum(n, 1), np.nan)
    assert_close(measure.result(forwards, span)["cosine"], expected)


def test_half_precision_is_read_in_float32() -> None:
    span = Span(n_steps=1, n_layers=1, d_model=64, has_noise=False, device=torch.device("cpu"))
    run = random_run(span)
    run.resid_pre = run.resid_pre.bfloat16()
    run.resid_post = run.resid_post.bfloat16()
    assert_close(observe(Cosine(), run)["cosine"], two_pass(run)[0])


def test_a_channel_that_does_not_exist_is_refused_before_the_run() -> None:
    span = SPANS[0]
    with pytest.raises(IndexError, match=f"channel {span.d_model}; expected 0 to {span.d_model - 1}; give"):
        Cosine(drop=[span.d_model]).start(span)
