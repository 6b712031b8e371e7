from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

import dlens
from dlens.measures import Cells, EffectiveRank, Visit, pool
from tests.measures.runs import CPU, SPANS, Run, assert_close, observe, random_run


def rank_of(rows: np.ndarray) -> float:
    """From singular values, without a Gram matrix."""
    sigma = np.linalg.svd(rows / np.linalg.norm(rows, axis=-1, keepdims=True), compute_uv=False)
    p = sigma**2 / (sigma**2).sum()
    p = p[p > 0]
    return float(np.exp(-(p * np.log(p)).sum()))


def two_pass(run: Run, drop: tuple[int, ...] = ()) -> dict[str, np.ndarray]:
    """The same means, prompt by prompt, from all values at once."""
    span = run.span
    h = np.delete(run.resid_post.double().numpy(), drop, axis=-1)
    bins = span.n_cells // 3
    seen: dict = {}
    for step, row in np.ndindex(run.cell.shape[:2]):
        cell = run.cell[step, row]
        groups = {("", number): cell == number for number in range(span.n_cells)}
        groups["_all", max(int(cell.max()), 0) // 3] = cell >= 0
        for (suffix, number), inside in groups.items():
            for layer in range(span.n_layers if inside.sum() >= 2 else 0):
                seen.setdefault((suffix, step, number, layer), []).append(rank_of(h[step, layer, row][inside]))
    found = {f"effective_rank{s}": np.full((span.n_steps, n, span.n_layers), np.nan) for s, n in sizes(bins)}
    found |= {f"n{s}": np.zeros((span.n_steps, n, span.n_layers), dtype=int) for s, n in sizes(bins)}
    for (suffix, *at), ranks in seen.items():
        found[f"effective_rank{suffix}"][tuple(at)], found[f"n{suffix}"][tuple(at)] = np.mean(ranks), len(ranks)
    return found


def sizes(bins: int) -> tuple[tuple[str, int], ...]:
    return ("", 3 * bins), ("_all", bins)


def assert_equals(data: xr.Dataset, expected: dict[str, np.ndarray]) -> None:
    for key, values in expected.items():
        assert_close(data[key], values)


@pytest.mark.parametrize("span", [*SPANS, replace(SPANS[0], has_noise=False)])
@pytest.mark.parametrize("drop", [(), (1, 3)])
def test_equals_singular_values_in_float64(span: dlens.measures.Span, drop: tuple[int, ...]) -> None:
    run = random_run(span, width=9)
    for layers in (None, 3):
        data = observe(EffectiveRank(drop=drop), run, layers=layers)
        assert_equals(data, two_pass(run, drop))
    assert data["effective_rank"].dims == ("step", *span.cell_dims, "layer")
    assert data["effective_rank_all"].dims == ("step", *span.noise_dims, "layer")
    assert data.attrs["channels_left_out"] == list(drop)


def of_rows(rows: torch.Tensor) -> float:
    cells = Cells(torch.zeros(1, len(rows), dtype=torch.long), torch.zeros(1, dtype=torch.long))
    visit = Visit(0, range(1), {"resid_post": rows[None, None]}, cells)
    return float(EffectiveRank().values(visit)["effective_rank"][0, 0, 0])


def test_known_numbers() -> None:
    i, j = torch.arange(1, 13, dtype=torch.float64)[:, None], torch.arange(1, 6, dtype=torch.float64)
    assert of_rows(torch.sin(i * j)) == pytest.approx(np.exp(1.5976397661490094), rel=1e-12)
    assert of_rows(torch.sin(i * j)) == pytest.approx(4.941355894692876, rel=1e-12)


def test_one_direction_is_1_and_orthogonal_ones_are_their_number_whatever_their_length() -> None:
    lengths = torch.tensor([1.0, 20, 300, 4000])
    assert of_rows(lengths[:, None] * torch.ones(4, 6)) == pytest.approx(1)
    assert of_rows(torch.diag(lengths)) == pytest.approx(4)


def test_runs_merge_in_any_order() -> None:
    span, measure = SPANS[0], EffectiveRank()
    runs = [random_run(span, seed=seed) for seed in range(3)]
    a, b, c = (observe(measure, run, sums=True) for run in runs)
    forwards = measure.result(measure.merge(measure.merge(a, b), c), span)
    backwards = measure.result(measure.merge(c, measure.merge(b, a)), span)
    parts = [two_pass(run) for run in runs]
    for suffix in ("", "_all"):
        name, n = f"effective_rank{suffix}", sum(part[f"n{suffix}"] for part in parts)
        total = sum(np.nan_to_num(part[name]) * part[f"n{suffix}"] for part in parts)
        expected = np.where(n > 0, total / np.maximum(n, 1), np.nan)
        for data in (forwards, backwards):
            assert_close(data[name], expected)


def test_values_that_are_not_finite_stay_in_their_layer_and_prompt() -> None:
    run = random_run(SPANS[0], width=9)
    run.cell[1, :, -1] = np.where(run.cell[1].max(-1) < 0, 0, run.cell[1].max(-1))
    clean = observe(EffectiveRank(), run)["effective_rank_all"]
    run.resid_post[1, 2, 0, -1] = torch.nan
    found = observe(EffectiveRank(), run)["effective_rank_all"]
    hit = found.isnull() & clean.notnull()
    assert hit.sum() == 1 and hit.isel(step=1, layer=2).any()
    assert found.where(~hit).identical(clean.where(~hit))


def test_in_a_forward(ar: dlens.Model) -> None:
    prompts = ["Once upon a time", "The little dog ran to the"]
    record = dlens.trace(ar).capture("resid_post").measure(EffectiveRank()).forward(prompts)
    run = Run(span_of(ar, 1), *[record["resid_post"][None]] * 2, np.where(record.is_pad, -1, 0)[None], np.zeros(0))
    assert record.is_pad.any()
    assert_equals(record.measures["effective_rank"], two_pass(run))


def span_of(model: dlens.Model, n_steps: int) -> dlens.measures.Span:
    return dlens.measures.Span(n_steps, model.n_layers, model.d_model, model.family.objective == "diffusion", CPU)


def test_in_a_denoising_run(diffusion: dlens.Model) -> None:
    record = dlens.trace(diffusion).capture("resid_post").measure(EffectiveRank()).generate("Once upon a time", 4)
    assert record.canvas is not None
    masked = record.canvas == diffusion.family.mask_token_id
    state = torch.where(masked, 1, torch.where(masked[0], 2, 0))
    # Of four generated positions 4, 3, 2 and 1 are masked: 1, 0.75, 0.5 and 0.25.
    cell = torch.tensor([9, 7, 4, 2])[:, None, None] * 3 + state
    run = Run(span_of(diffusion, 4), *[record["resid_post"]] * 2, cell.numpy(), np.zeros(0))
    data, expected = record.measures["effective_rank"], two_pass(run)
    assert_equals(data, expected)
    assert data.attrs["n"] == 4
    pooled = pool(data, "effective_rank_all", ["step", "noise"])
    assert_close(pooled, np.nansum(expected["effective_rank_all"], (0, 1)) / 4)


def test_decoding_with_a_cache_has_the_rank_of_the_prompt(ar: dlens.Model) -> None:
    record = dlens.trace(ar).capture("resid_post").measure(EffectiveRank()).generate("Once upon a time", 3)
    data = record.measures["effective_rank"]
    prompt = record["resid_post"][:, 0, :4].double().numpy()
    expected = [rank_of(rows) for rows in prompt]
    assert_close(data["effective_rank"].sel(step=0, state="prompt"), expected)
    assert_close(data["effective_rank_all"].sel(step=0), expected)
    assert data["effective_rank_all"].sel(step=[1, 2]).isnull().all() and data.attrs["n"] == 1


def test_a_profile_pools_it(diffusion: dlens.Model) -> None:
    profile = dlens.profile(diffusion, ["Once upon a time"], "masked", measures=[EffectiveRank()])
    assert all(1 <= row["effective_rank_all"] <= 4 for row in profile.table())
