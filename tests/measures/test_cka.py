from typing import Literal

import numpy as np
import pytest
import torch
import xarray as xr

import dlens
from dlens.measures import CKA
from dlens.measures.base.measure import Span
from dlens.measures.cka import hsic, rbf
from tests.measures.runs import CPU, SPANS, Run, assert_close, observe, random_run
from tests.unchecked import unchecked

ANGLES = np.arange(1, 13)[:, None]
X = np.sin(ANGLES * np.arange(1, 6))
Y = X[:, :4] + np.cos(ANGLES * np.arange(2, 6)) / 2


def linear_kernel(x: np.ndarray) -> np.ndarray:
    return x @ x.T


def rbf_kernel(x: np.ndarray) -> np.ndarray:
    squares = ((x[:, None] - x[None]) ** 2).sum(-1)
    distances = np.sort(np.sqrt(squares[~np.eye(len(x), dtype=bool)]))
    return np.exp(-squares / (2 * (distances[(len(distances) - 1) // 2] / 2) ** 2))


def hsic0(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
    n = len(k)
    h = np.eye(n) - 1 / n
    return np.trace(k @ h @ l @ h) / (n - 1) ** 2


def hsic1(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
    """As a mean over distinct rows: the U-centred matrices multiplied."""
    n = len(k)
    k, l = (m - np.diag(np.diag(m)) for m in (k, l))  # noqa: E741
    a, b = (
        (m - m.sum(0) / (n - 2) - m.sum(1)[:, None] / (n - 2) + m.sum() / ((n - 1) * (n - 2))) * (1 - np.eye(n))
        for m in (k, l)
    )
    return (a * b).sum() / (n * (n - 3))


def two_pass(run: Run, kernel, estimator, drop: tuple[int, ...] = ()) -> tuple[np.ndarray, np.ndarray]:
    """CKA [noise, group, layer, layer_b] with all positions as the last group, and n, from all values at once."""
    span = run.span
    keep = [c for c in range(span.d_model) if c not in drop]
    bins = 10 if span.has_noise else 1
    terms = np.zeros((bins, 4, span.n_layers, span.n_layers))
    n = np.zeros((bins, 4), dtype=int)
    for step, row in np.ndindex(run.cell.shape[:2]):
        cell = run.cell[step, row]
        bin_ = max(cell.max(), 0) // 3
        for group in range(4):
            inside = (cell >= 0) & ((cell % 3 == group) | (group == 3))
            if inside.sum() < 4:
                continue
            x = run.resid_post[step, :, row].double().numpy()[:, inside][..., keep]
            grams = [kernel(layer - layer.mean(0)) for layer in x]
            terms[bin_, group] += [[estimator(k, m) for m in grams] for k in grams]
            n[bin_, group] += 1
    with np.errstate(invalid="ignore"):
        terms = terms / n[..., None, None]
        norms = np.diagonal(terms, axis1=-2, axis2=-1)
        norms = np.sqrt(np.where(norms > 0, norms, np.nan))
    return terms / norms[..., :, None] / norms[..., None, :], n


def assert_equals(data: xr.Dataset, expected: np.ndarray, n: np.ndarray, has_noise: bool) -> None:
    assert data["cka"].dims == (*(("noise",) if has_noise else ()), "state", "layer", "layer_b")
    assert_close(data["cka"], expected[:, :3])
    assert_close(data["cka_all"], expected[:, 3])
    np.testing.assert_array_equal(data["n"].values.reshape(n[:, :3].shape), n[:, :3])
    np.testing.assert_array_equal(data["n_all"].values.reshape(n[:, 3].shape), n[:, 3])


SPAN = Span(n_steps=2, n_layers=3, d_model=9, has_noise=True, device=CPU)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
@pytest.mark.parametrize("debiased", [True, False])
@pytest.mark.parametrize("drop", [(), (1, 3)])
def test_equals_a_two_pass_reference(kernel: str, debiased: bool, drop: tuple[int, ...]) -> None:
    run = random_run(SPAN, width=24)
    measure = CKA(kernel=kernel, debiased=debiased, drop=drop)  # pyright: ignore[reportArgumentType]
    of = linear_kernel if kernel == "linear" else rbf_kernel
    expected, n = two_pass(run, of, hsic1 if debiased else hsic0, drop)
    assert n.max() > 0 and np.isfinite(expected).any()
    for layers in (None, 2):
        assert_equals(observe(measure, run, layers=layers), expected, n, True)


@pytest.mark.parametrize("span", SPANS)
def test_few_rows_are_nan(span: Span) -> None:
    run = random_run(span)
    assert_equals(observe(CKA(), run), *two_pass(run, linear_kernel, hsic1), span.has_noise)


def test_a_channel_that_dominates_costs_no_precision() -> None:
    run = random_run(SPAN, width=24)
    run.resid_post[..., 5] += 3000 * (1 + torch.tensor(run.cell % 3))[:, None]
    assert_equals(observe(CKA(), run), *two_pass(run, linear_kernel, hsic1), True)


def matrices(*rows: np.ndarray) -> torch.Tensor:
    """[layer, batch, position, position_b] of one prompt."""
    return torch.tensor(np.stack([linear_kernel(x - x.mean(0)) for x in rows]))[:, None]


def ratio(terms: torch.Tensor) -> float:
    return float(terms[0, 1] / (terms[0, 0] * terms[1, 1]).sqrt())


def test_numbers_of_a_fixed_example() -> None:
    k, every = matrices(X, Y), torch.ones(1, 12, 1, dtype=torch.float64)
    terms = hsic(k, every)[0, 0]
    values = [float(terms[0, 1]), float(terms[0, 0]), float(terms[1, 1])]
    np.testing.assert_allclose(values, [0.8579326002678587, 0.9893816479024119, 1.6541680988141605], rtol=1e-12)
    assert ratio(terms) == pytest.approx(0.6706276030527453, rel=1e-12)
    assert ratio(hsic(k, every, debiased=False)[0, 0]) == pytest.approx(0.7380483434947869, rel=1e-12)
    halves = torch.zeros(1, 12, 2, dtype=torch.float64)
    halves[0, :6, 0] = halves[0, 6:, 1] = 1
    assert ratio(hsic(k, halves)[0].sum(0)) == pytest.approx(0.6413993556669304, rel=1e-12)
    kernels = rbf(k, every, 0.5)
    assert ratio(hsic(kernels, every, debiased=False)[0, 0]) == pytest.approx(0.9044158763317339, rel=1e-12)


def test_equals_ckatorch_and_pytorch_cka() -> None:
    from cka.hsic import hsic as pytorch_cka_hsic
    from ckatorch.core import cka_base, cka_batch

    k, every = matrices(X, Y), torch.ones(1, 12, 1, dtype=torch.float64)
    x, y = torch.tensor(X), torch.tensor(Y)
    assert ratio(hsic(k, every, debiased=False)[0, 0]) == pytest.approx(float(cka_base(x, y, method="hsic")), rel=1e-12)
    rng = np.random.default_rng(0)
    a, b = (torch.tensor(rng.normal(size=(5, 9, d))) for d in (30, 20))
    centred = [v - v.mean(1, keepdim=True) for v in (a, b)]
    terms = hsic(torch.stack([v @ v.mT for v in centred]), torch.ones(5, 9, 1, dtype=torch.float64))[:, 0].mean(0)
    assert ratio(terms) == pytest.approx(float(cka_batch(a, b)), rel=1e-10)
    cross, first, second = (value.mean() for value in pytorch_cka_terms(pytorch_cka_hsic, a, b))
    assert ratio(terms) == pytest.approx(float(cross / (first * second).sqrt()), rel=1e-10)


def pytorch_cka_terms(of, a: torch.Tensor, b: torch.Tensor) -> list[torch.Tensor]:
    """HSIC(K, L), (K, K) and (L, L) of each prompt."""
    each = [of((x @ x.mT)[None], (y @ y.mT)[None]) for x, y in zip(a, b, strict=True)]
    return [torch.stack([terms[i].flatten()[0] for terms in each]) for i in range(3)]


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_a_layer_of_zeros_leaves_the_others_as_they_are(kernel: Literal["linear", "rbf"]) -> None:
    run = random_run(SPANS[0], width=12)
    expected = observe(CKA(kernel=kernel), run)["hsic_all"].drop_sel(layer=2, layer_b=2)
    run.resid_post[:, 2] = 0
    found = observe(CKA(kernel=kernel), run)["hsic_all"]
    assert (found.sel(layer=2).dropna("noise") == 0).all() and found.sel(layer=2).notnull().any()
    xr.testing.assert_allclose(found.drop_sel(layer=2, layer_b=2), expected)


def test_unrelated_data_reads_zero_debiased_and_high_biased() -> None:
    draws = 60
    span = Span(n_steps=draws, n_layers=2, d_model=100, has_noise=False, device=CPU)
    run = random_run(span, width=30)
    run.cell[:] = 0
    run.resid_post = torch.tensor(np.random.default_rng(0).normal(size=run.resid_post.shape))
    standard_error = 0.05 / np.sqrt(2 * draws)
    assert abs(float(observe(CKA(), run)["cka_all"][0, 1])) < 4 * standard_error
    assert float(observe(CKA(debiased=False), run)["cka_all"][0, 1]) == pytest.approx(0.770, abs=0.02)


def test_turning_and_scaling_change_nothing() -> None:
    run = random_run(SPAN, width=24)
    turn = torch.linalg.qr(torch.randn(9, 9, generator=torch.Generator().manual_seed(0))).Q
    before = observe(CKA(), run)["cka_all"].values
    run.resid_post[:, 1] = 3 * run.resid_post[:, 1] @ turn
    np.testing.assert_allclose(observe(CKA(), run)["cka_all"].values, before, atol=1e-6)
    np.testing.assert_allclose(np.diagonal(before, axis1=-2, axis2=-1)[np.isfinite(before[:, 0, 0])], 1, atol=1e-12)
    np.testing.assert_allclose(before, before.swapaxes(-1, -2), atol=1e-7)


def test_runs_merge_in_any_order() -> None:
    measure = CKA()
    a, b, c = (observe(measure, random_run(SPAN, seed=seed, width=24), sums=True) for seed in range(3))
    forwards = measure.result(measure.merge(measure.merge(a, b), c), SPAN)
    backwards = measure.result(measure.merge(c, measure.merge(b, a)), SPAN)
    for variable in forwards.data_vars:
        assert_close(forwards[variable], backwards[variable].values)


def test_layers_that_do_not_vary_are_nan_and_the_attributes_say_so() -> None:
    run = random_run(SPAN, width=24)
    run.resid_post[:, 1] = 2.5
    data = observe(CKA(), run)
    assert data["cka_all"].sel(layer=1).isnull().all() and data["cka_all"].sel(layer_b=1).isnull().all()
    assert data["cka_all"].sel(layer=0, layer_b=2).notnull().any()
    assert "NaN where the average of HSIC(K, K) is <= 0" in data.attrs["pooling"]


def test_values_that_are_not_finite_give_nan_at_their_layer_and_noise_alone() -> None:
    run = random_run(SPAN, width=24)
    run.cell[0], run.cell[1] = run.cell[0] % 3, 27 + run.cell[1] % 3
    run.resid_post[0, 1, 0, 3] = torch.nan
    data = observe(CKA(), run)["cka_all"]
    assert data[0].sel(layer=1).isnull().all()
    assert data[0].sel(layer=0, layer_b=2).notnull() and data[9].notnull().all()


def test_memory_does_not_grow_with_steps_or_positions() -> None:
    short, long = (Span(n, 2, 8, True, CPU) for n in (1, 256))
    assert {k: v.shape for k, v in CKA().start(short).items()} == {k: v.shape for k, v in CKA().start(long).items()}


@pytest.mark.parametrize("settings", [{"kernel": "cosine"}, {"fraction": 0.0}])
def test_wrong_settings_are_refused(settings: dict) -> None:
    with unchecked(), pytest.raises(ValueError, match="; expected"):
        CKA(**settings)


def test_a_canvas_of_masks_alone_has_nothing_to_compare(diffusion: dlens.Model) -> None:
    chain = dlens.trace(diffusion).measure(CKA())
    data = chain.forward([[diffusion.family.mask_token_id] * 24]).measures["cka"]
    assert data["n_all"].sum() == 1 and data["cka_all"].isnull().all() and data["cka"].isnull().all()
    one_word = chain.forward([[diffusion.family.mask_token_id] * 23 + [300]]).measures["cka"]
    assert one_word["cka_all"].notnull().any()


def test_on_the_trio_equals_float64(diffusion: dlens.Model) -> None:
    ids = torch.randint(8, diffusion.vocab_size, (2, 40), generator=torch.Generator().manual_seed(0))
    ids[:, 25:] = diffusion.family.mask_token_id
    record = dlens.trace(diffusion).capture("resid_post").measure(CKA()).forward(ids)
    values = record["resid_post"]
    cell = np.where(ids.numpy() == diffusion.family.mask_token_id, 1, 0)
    cell = (np.ceil((cell == 1).mean(-1, keepdims=True) * 10).astype(int) - 1) * 3 + cell
    span = Span(1, diffusion.n_layers, diffusion.d_model, True, CPU)
    run = Run(span, values[None], values[None], cell[None], np.zeros((1, span.n_layers, 2), dtype=bool))
    assert_equals(record.measures["cka"], *two_pass(run, linear_kernel, hsic1), True)


def test_a_prompt_of_one_token(ar: dlens.Model) -> None:
    record = dlens.trace(ar).measure(CKA()).forward(torch.tensor([[9]]))
    assert record.measures["cka"]["cka_all"].isnull().all()
    assert int(record.measures["cka"]["n_all"]) == 0
