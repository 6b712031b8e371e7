import numpy as np
import pytest
import torch
import xarray as xr

import dlens
from dlens.measures import CKA, Recency
from dlens.measures.base.measure import Span, Visit
from dlens.measures.recency import by_distance
from tests.measures.runs import CPU, SPANS, Run, assert_close, cells_of, observe, random_run

SPAN = Span(n_steps=2, n_layers=3, d_model=9, has_noise=True, device=CPU)


def padded(run: Run) -> Run:
    """Left padding of its own length in every row, and an end before the last position in the first."""
    for row in range(run.cell.shape[1]):
        run.cell[:, row] = run.cell[:, row, -1:].clip(min=0)
        run.cell[:, row, : 2 * row] = -1
    run.cell[:, 0, -3:] = -1
    return run


def two_pass(run: Run, far: int, drop: tuple[int, ...] = ()) -> dict[str, np.ndarray]:
    """The same numbers, pair by pair, from all values at once."""
    span = run.span
    bins, layers = 10 if span.has_noise else 1, span.n_layers
    pairs: dict = {}
    means: dict = {}
    for step, row in np.ndindex(run.cell.shape[:2]):
        inside = run.cell[step, row] >= 0
        bin_ = max(run.cell[step, row].max(), 0) // 3
        for layer in range(layers):
            h = np.delete(run.resid_post[step, layer, row].double().numpy()[inside], drop, axis=-1)
            n = len(h)
            if n < 2:
                continue
            s = h @ h.T / np.linalg.norm(h, axis=-1) / np.linalg.norm(h, axis=-1)[:, None]
            profile = [np.diagonal(s, d).mean() for d in range(1, n)]
            index = profile[0] - np.mean([p for d, p in enumerate(profile, 1) if d >= n / 2])
            means.setdefault((bin_, layer), []).append((s[~np.eye(n, dtype=bool)].mean(), index))
            for i in range(n):
                for j in range(i):
                    pairs.setdefault((bin_, layer, i - j), []).append((s[i, j], i == n - 1))
    found = {
        "similarity": np.full((bins, layers, far), np.nan),
        "to_last": np.full((bins, layers, far), np.nan),
        "off_diagonal": np.full((bins, layers), np.nan),
        "recency_index": np.full((bins, layers), np.nan),
    }
    for (bin_, layer, distance), seen in pairs.items():
        if distance <= far:
            found["similarity"][bin_, layer, distance - 1] = np.mean([value for value, _ in seen])
            found["to_last"][bin_, layer, distance - 1] = np.mean([value for value, last in seen if last])
    for (bin_, layer), seen in means.items():
        found["off_diagonal"][bin_, layer], found["recency_index"][bin_, layer] = np.mean(seen, axis=0)
    return found | {"adjacent": found["similarity"][..., 0]}


def assert_equals(data: xr.Dataset, expected: dict[str, np.ndarray]) -> None:
    for name, values in expected.items():
        assert_close(data[name], values)


@pytest.mark.parametrize("drop", [(), (1, 3)])
@pytest.mark.parametrize("far", [4, 64])
def test_equals_a_reference_pair_by_pair(far: int, drop: tuple[int, ...]) -> None:
    run = padded(random_run(SPAN, width=13))
    for layers in (None, 2):
        data = observe(Recency(max_distance=far, drop=drop), run, layers=layers)
        assert_equals(data, two_pass(run, far, drop))
    assert data["similarity"].dims == ("noise", "layer", "distance")
    assert data["distance"].values.tolist() == list(range(1, far + 1))
    assert int(data["n"].sum()) == 4


def test_without_noise_the_axis_is_not_there() -> None:
    run = padded(random_run(SPANS[1]))
    data = observe(Recency(), run)
    assert data["similarity"].dims == ("layer", "distance") and data["n"].dims == ()
    assert_equals(data, {key: values[0] for key, values in two_pass(run, 128).items()})


def test_beside_cka_it_reads_the_same_gram_matrix() -> None:
    run = padded(random_run(SPAN, width=13))
    visit = Visit(0, range(3), {"resid_post": run.resid_post[0]}, cells_of(run.cell[0]))
    for measure in (Recency(), CKA()):
        measure.update(measure.start(SPAN), visit)
    assert len(visit.shared) == 1
    alone, beside = Recency().start(SPAN), Recency().start(SPAN)
    Recency().update(alone, Visit(0, range(3), visit.values, visit.cells))
    Recency().update(beside, visit)
    assert all(torch.equal(alone[key], beside[key]) for key in alone)


def test_diagonals_are_summed() -> None:
    values = torch.arange(50.0).reshape(2, 5, 5)
    expected = [[float(np.diagonal(m, d).sum()) for d in range(1, 5)] for m in values.numpy()]
    assert by_distance(values).tolist() == expected
    assert by_distance(torch.ones(3, 1, 1)).shape == (3, 0)


def test_alike_positions_have_no_recency() -> None:
    run = padded(random_run(SPAN, width=13))
    run.resid_post = run.resid_post[:, :, :, :1].expand_as(run.resid_post).contiguous()
    data = observe(Recency(), run)
    some = data["n"].values > 0
    np.testing.assert_allclose(data["recency_index"].values[some], 0, atol=1e-6)
    np.testing.assert_allclose(data["off_diagonal"].values[some], 1, atol=1e-6)


def test_runs_merge_in_any_order() -> None:
    measure = Recency()
    a, b, c = (observe(measure, padded(random_run(SPAN, seed=seed, width=13)), sums=True) for seed in range(3))
    forwards = measure.result(measure.merge(measure.merge(a, b), c), SPAN)
    backwards = measure.result(measure.merge(c, measure.merge(b, a)), SPAN)
    for variable in forwards.data_vars:
        assert_close(forwards[variable], backwards[variable].values)


def test_values_that_are_not_finite_give_nan_at_their_layer_alone() -> None:
    run = padded(random_run(SPAN, width=13))
    run.resid_post[:, 1, :, 5] = torch.nan
    data = observe(Recency(), run)
    some = data["n"].values > 0
    assert np.isnan(data["recency_index"].values[some, 1]).all()
    assert np.isfinite(data["recency_index"].values[some][:, [0, 2]]).all()


@pytest.mark.parametrize("name", ["ar", "diffusion"])
def test_on_the_trio_equals_float64(name: str, request: pytest.FixtureRequest) -> None:
    model: dlens.Model = request.getfixturevalue(name)
    ids = torch.randint(8, model.vocab_size, (2, 40), generator=torch.Generator().manual_seed(0))
    record = dlens.trace(model).capture("resid_post").measure(Recency()).forward(ids)
    values = record["resid_post"]
    has_noise = model.family.objective == "diffusion"
    span = Span(1, model.n_layers, model.d_model, has_noise, CPU)
    run = Run(span, values[None], values[None], np.zeros((1, 2, 40), dtype=int), np.zeros((1, span.n_layers, 2)))
    expected = two_pass(run, 128)
    assert_equals(record.measures["recency"], expected if has_noise else {k: v[0] for k, v in expected.items()})


def test_a_prompt_of_one_token_has_no_pairs(ar: dlens.Model) -> None:
    data = dlens.trace(ar).measure(Recency()).forward(torch.tensor([[9]])).measures["recency"]
    assert data["recency_index"].isnull().all() and int(data["n"]) == 0


def test_decoding_with_a_cache_reads_the_pairs_of_the_prompt(ar: dlens.Model) -> None:
    ids = torch.arange(8, 20)[None]
    decoded = dlens.trace(ar).measure(Recency(), CKA()).generate(ids, 4).measures
    once = dlens.trace(ar).measure(Recency(), CKA()).forward(ids).measures
    for key in decoded:
        for variable in decoded[key].data_vars:
            assert_close(decoded[key][variable], once[key][variable].values)


def test_max_distance_must_be_positive() -> None:
    with pytest.raises(ValueError, match="max_distance=0; expected at least 1"):
        Recency(max_distance=0)


def test_positions_that_have_no_neighbour_are_left_out_of_means_that_need_one() -> None:
    run = random_run(SPAN, width=3)
    run.cell[:] = [3, -1, 3]
    data = observe(Recency(), run)
    assert int(data["n"].sum()) == 0 and data["off_diagonal"].isnull().all() and data["recency_index"].isnull().all()
    assert data["similarity"].sel(distance=2).notnull().any()
