"""Similarity beside the measures, and beside references in two passes in float64."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dlens
from dlens.findings.layers import similarity as module
from dlens.findings.layers.similarity import similarity
from tests.measures.test_cka import hsic0, hsic1, linear_kernel, rbf_kernel
from tests.reference import shallow
from tests.unchecked import unchecked

PROMPTS = ["Once upon a time there was a fox", "The little dog ran", "A", "Tom has 3 red apples and 2 green ones."]


@pytest.fixture(scope="module")
def one(ar: dlens.Model) -> dlens.Model:
    return shallow(ar, 3)


@pytest.fixture(scope="module")
def other(ar_init: dlens.Model) -> dlens.Model:
    return shallow(ar_init, 2)


def rows_of(model: dlens.Model) -> list[np.ndarray]:
    """resid_post of each prompt by itself, [layer, position, d_model], in float64."""
    return [
        dlens.trace(model).capture("resid_post").forward(text)["resid_post"][:, 0].double().numpy() for text in PROMPTS
    ]


def test_one_record_is_what_the_measure_says(diffusion: dlens.Model) -> None:
    trace = dlens.trace(shallow(diffusion, 3)).capture("resid_post").measure(dlens.CKA(), dlens.measures.CosinePairs())
    record = trace.forward(PROMPTS)
    found, cosine = similarity(record), similarity(record, method="cosine")
    measured = record.measures["cka"]
    (noise,) = np.flatnonzero(measured["n_all"].values)
    assert abs(found["cka"].values - measured["cka_all"].values[noise]).max() < 1e-6
    assert int(found["n"]) == int(measured["n_all"].sum()) == 3
    pairs = record.measures["cosine_pairs"].isel(noise=noise).sel(state="prompt")
    assert abs(cosine["cosine"].values - pairs["cosine"].values).max() < 1e-6 and int(cosine["n"]) == int(pairs["n"])


def test_a_run_is_what_the_measure_says_over_its_noise(diffusion: dlens.Model) -> None:
    trace = dlens.trace(shallow(diffusion, 3)).capture("resid_post").measure(dlens.CKA())
    record = trace.generate(PROMPTS, 6, sampler=dlens.samplers.LLaDA(steps=3))
    data = record.measures["cka"]
    for tokens in ("all", "masked", "prompt"):
        hsic, n = (
            (data["hsic_all"], data["n_all"])
            if tokens == "all"
            else (
                data["hsic"].sel(state=tokens),
                data["n"].sel(state=tokens),
            )
        )
        terms = (hsic.fillna(0) * n).sum("noise").values / int(n.sum())
        norms = np.sqrt(np.diag(terms))
        found = similarity(record, tokens=tokens)
        assert abs(found["cka"].values - terms / np.outer(norms, norms)).max() < 1e-6
        assert int(found["n"]) == int(n.sum()) > 0


@pytest.mark.parametrize(
    ("settings", "kernel", "estimator"),
    [
        ({}, linear_kernel, hsic1),
        ({"debiased": False}, linear_kernel, hsic0),
        ({"kernel": "rbf"}, rbf_kernel, hsic1),
    ],
)
def test_two_models_beside_a_reference(
    one: dlens.Model, other: dlens.Model, settings: dict[str, Any], kernel: Callable, estimator: Callable
) -> None:
    found = similarity(one, other, prompts=PROMPTS, batch_size=2, **settings)
    a, b = ([own for own in rows_of(model) if own.shape[1] > 3] for model in (one, other))
    terms = np.zeros((3, 5, 5))
    for number, (x, y) in enumerate(zip(a, b, strict=True)):
        grams = [kernel(own) for own in (*x, *y)]
        terms[number] = [[estimator(k, l) for l in grams] for k in grams]  # noqa: E741
    mean = terms.mean(0)
    expected = mean[:3, 3:] / np.sqrt(np.outer(np.diag(mean)[:3], np.diag(mean)[3:]))
    assert found["cka"].dims == ("layer", "layer_b") and dict(found.sizes) == {"layer": 3, "layer_b": 2}
    assert abs(found["cka"].values - expected).max() < 1e-5
    assert found.attrs["a"] == one.name and found.attrs["n"] == 3 and "HSIC" in found.attrs["estimator"]


def test_procrustes_and_cosine_beside_a_reference(one: dlens.Model, other: dlens.Model) -> None:
    a, b = (np.concatenate(rows_of(model), 1) for model in (one, other))
    found = similarity(one, other, "procrustes", prompts=PROMPTS, layers_b=[1])
    for i, x in enumerate(a):
        x, y = x - x.mean(0), b[1] - b[1].mean(0)
        nuclear = np.linalg.svd(x.T @ y, compute_uv=False).sum()
        assert abs(float(found["procrustes"][i, 0]) - nuclear / np.linalg.norm(x) / np.linalg.norm(y)) < 1e-6
    assert int(found["n"]) == a.shape[1] and found["layer_b"].values.tolist() == [1]
    found = similarity(one, other, "cosine", prompts=PROMPTS, layers=[0, 2], layers_b=slice(None))
    for i, layer in enumerate((0, 2)):
        for j in range(2):
            x, y = a[layer], b[j]
            cosines = (x * y).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)
            assert abs(float(found["cosine"][i, j]) - cosines.mean()) < 1e-5


def test_procrustes_of_a_turned_shape_is_one() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 4, dtype=torch.float64, generator=generator)
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=generator)).Q
    y = 3 * x @ turn + 7
    assert abs(similarity(x, y, "procrustes")["procrustes"].item() - 1) < 1e-9
    assert similarity(x, torch.randn(50, 4, generator=generator), "procrustes")["procrustes"].item() < 0.5


def test_tensors_have_the_numbers_of_the_formulas() -> None:
    angles = torch.arange(1, 13, dtype=torch.float64)[:, None]
    x = (angles * torch.arange(1, 6)).sin()
    y = x[:, :4] + (angles * torch.arange(2, 6)).cos() / 2
    assert abs(similarity(x, y)["cka"].item() - 0.6706276030527453) < 1e-9
    assert abs(similarity(x, y, debiased=False)["cka"].item() - 0.7380483434947869) < 1e-9
    assert abs(similarity(x, y, debiased=False, kernel="rbf")["cka"].item() - 0.9044158763317339) < 1e-9
    assert abs(similarity(x)["cka"].item() - 1) < 1e-9


def test_steps_of_a_run(diffusion: dlens.Model) -> None:
    record = dlens.trace(shallow(diffusion, 2)).capture("resid_post").generate(PROMPTS[:2], 4)
    found = similarity(record, by="step", layers=1)
    assert found["cka"].dims == ("step", "step_b") and found["step"].values.tolist() == [0, 1, 2, 3]
    rows = [record["resid_post"][:, 1, row, ~record.is_pad[row]].double().numpy() for row in range(2)]
    terms = np.mean([[[hsic1(x @ x.T, y @ y.T) for y in own] for x in own] for own in rows], 0)
    norms = np.sqrt(np.diag(terms))
    assert abs(found["cka"].values - terms / np.outer(norms, norms)).max() < 1e-5


def test_streams_are_read_as_models_are(one: dlens.Model, other: dlens.Model, tmp_path: Path) -> None:
    kept = [
        dlens.trace(model).capture("resid_post").stream(PROMPTS, tmp_path / name, batch_size=3, shard_bytes=size)
        for model, name, size in ((one, "one", 10**5), (other, "other", 2 * 10**4))
    ]
    assert len(kept[0].shards) != len(kept[1].shards)
    found, expected = similarity(*kept), similarity(one, other, prompts=PROMPTS)
    assert abs(found["cka"] - expected["cka"]).max() < 1e-5 and int(found["n"]) == int(expected["n"])
    with pytest.raises(ValueError, match="have prompt 3, 0 and prompt 0, 0 side by side; expected the same"):
        similarity(kept[0], other, prompts=PROMPTS)


def test_a_record_beside_a_model_of_masks(one: dlens.Model, diffusion: dlens.Model) -> None:
    small = shallow(diffusion, 2)
    mask = small.family.mask_token_id
    clean, masked = [[5, 6, 7, 8, 9, 10]], [[5, mask, 7, mask, 9, 10]]
    record = dlens.trace(one).capture("resid_post").forward(clean)
    assert similarity(record, small, prompts=masked)["cka"].shape == (3, 2)
    with pytest.raises(ValueError, match="prompt 0 has token 7 in one and 8 in the other at position 2"):
        similarity(record, small, prompts=[[5, 6, 8, 8, 9, 10]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: similarity(m, method="cca"), "method='cca'; expected one of cka, cosine, procrustes"),
        (lambda m: similarity(m, by="head"), "by='head'; expected one of layer, step"),
        (lambda m: similarity(m, tokens="mask"), "tokens='mask'; expected one of all, prompt, masked, decoded"),
        (lambda m: similarity(m, batch_size=0), "batch_size=0; expected at least 1"),
        (lambda m: similarity(m, debiased="no"), "debiased='no'; expected True or False"),
        (lambda m: similarity(m, kernel="poly"), "kernel='poly'; expected 'linear' or 'rbf'"),
        (lambda m: similarity(torch.ones(5, 2), torch.ones(5, 3), "cosine"), r"widths \[2, 3\] with method='cosine'"),
        (lambda m: similarity(torch.ones(5, 2), torch.ones(1, 0, 3)), "expected real numbers"),
    ],
)
def test_bad_input(one: dlens.Model, call: Callable[[Any], Any], message: str) -> None:
    with unchecked(), pytest.raises(ValueError, match=message):
        call(one)


def test_products_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PROCRUSTES_BYTES", 100)
    with pytest.raises(MemoryError, match="the products of 1 x 1 entries need .* GiB; expected at most .*; name fewer"):
        similarity(torch.rand(5, 4), torch.rand(5, 4), "procrustes")
