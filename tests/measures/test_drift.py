from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import dlens
from dlens.measures import Drift, pool
from dlens.measures.base.measure import Span, Visit
from tests.measures.runs import CPU, SPANS, Run, assert_close, cells_of, observe, random_run
from tests.standins import save_llada

PROMPTS = ["Once upon a time", "The little dog ran to the big red house and"]


def two_pass(run: Run, drop: tuple[int, ...] = ()) -> dict[str, np.ndarray]:
    """The same means, cell by cell, from all values at once."""
    span = run.span
    bins = span.n_cells // 3
    total = {key: np.zeros((span.n_steps, n, span.n_layers)) for key, n in (("", span.n_cells), ("_committed", bins))}
    count = {key: np.zeros(value.shape, dtype=int) for key, value in total.items()}
    h = np.delete(run.resid_post.double().numpy(), drop, axis=-1)
    for step, layer, row, position in np.ndindex(*h.shape[:-1]):
        before, now = run.cell[step - 1, row, position], run.cell[step, row, position]
        if step == 0 or before < 0 or now < 0:
            continue
        a, b = h[step - 1, layer, row, position], h[step, layer, row, position]
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        hits = [("", now)] + ([("_committed", now // 3)] if (before % 3, now % 3) == (1, 2) else [])
        for key, cell in hits:
            total[key][step, cell, layer] += cosine
            count[key][step, cell, layer] += 1
    with np.errstate(invalid="ignore"):
        means = {f"cosine{key}": value / count[key] for key, value in total.items()}
    return means | {f"n{key}": value for key, value in count.items()}


@pytest.mark.parametrize("span", [*SPANS, replace(SPANS[0], has_noise=False)])
@pytest.mark.parametrize("drop", [(), (1, 3)])
def test_equals_a_two_pass_reference(span: Span, drop: tuple[int, ...]) -> None:
    run = random_run(span)
    for layers in (None, 3):
        data = observe(Drift(drop=drop), run, layers=layers)
        for key, expected in two_pass(run, drop).items():
            assert_close(data[key], expected)
    assert data["cosine"].dims == ("step", *span.cell_dims, "layer")
    assert data["cosine_committed"].dims == ("step", *span.noise_dims, "layer")


def test_runs_merge_in_any_order() -> None:
    span, measure = SPANS[0], Drift()
    a, b, c = (observe(measure, random_run(span, seed=seed), sums=True) for seed in range(3))
    forwards = measure.result(measure.merge(measure.merge(a, b), c), span)
    backwards = measure.result(measure.merge(c, measure.merge(b, a)), span)
    for variable in forwards.data_vars:
        assert_close(forwards[variable], backwards[variable].values)


def test_one_step_is_remembered_whatever_their_number() -> None:
    run, measure, kept = random_run(SPANS[0]), Drift(), {}
    sums, places = measure.start(SPANS[0]), set()
    for step in range(3):
        visit = Visit(step, range(4), {"resid_post": run.resid_post[step]}, cells_of(run.cell[step]), kept=kept)
        measure.update(sums, replace(visit, columns=range(6)))
        (held,) = kept.values()
        assert torch.equal(held.stream, run.resid_post[step])
        places.add(held.stream.data_ptr())
    assert len(places) == 1


def test_a_wider_number_type_on_the_way_loses_nothing() -> None:
    run, measure, kept = random_run(SPANS[0]), Drift(), {}
    sums = measure.start(SPANS[0])
    for step in range(2):
        cells, carried = cells_of(run.cell[step]), {}
        for layers in (range(2), range(2, 4)):
            part = run.resid_post[step, layers.start : layers.stop]
            part = part if layers.start else part.bfloat16()
            visit = Visit(step, layers, {"resid_post": part}, cells, carried=carried, kept=kept, columns=range(6))
            measure.update(sums, visit)
    run.resid_post[:, :2] = run.resid_post[:, :2].bfloat16().float()
    assert_close(measure.result(sums, SPANS[0])["cosine"][:2], two_pass(run)["cosine"][:2])


def test_values_that_are_not_finite_stay_in_their_layer() -> None:
    run = random_run(SPANS[0])
    run.resid_post[1, 2] = torch.nan
    data = observe(Drift(), run)
    some = data["n"].values > 0
    assert (np.isnan(data["cosine"].values) == (~some | (np.arange(4) == 2))).all()


def expected_of(record: dlens.Record, mask: int) -> dict[str, np.ndarray]:
    """The reference from what was captured."""
    assert record.canvas is not None
    values = record["resid_post"]
    generated = record.canvas[0] == mask
    state = torch.where(record.canvas == mask, 1, torch.where(generated, 2, 0))
    noise = ((record.canvas == mask).sum(-1) * 10 - 1).div(generated.sum(-1), rounding_mode="floor")
    cell = torch.where(record.is_pad, -1, noise[..., None] * 3 + state).numpy()
    span = Span(values.shape[0], values.shape[1], values.shape[-1], True, CPU)
    return two_pass(Run(span, values, values, cell, np.zeros(0)))


@pytest.mark.parametrize("name", ["diffusion", "ar_init"])
def test_on_the_trio_equals_what_was_captured(name: str, request: pytest.FixtureRequest) -> None:
    model: dlens.Model = request.getfixturevalue(name)
    model = dlens.load(model.module, tokenizer=None, family=model.family)
    trace = dlens.trace(model).capture("resid_post").measure(Drift())
    record = trace.generate([[9, 10, 11], [12, 13, 14, 15, 16]], 6, sampler=dlens.samplers.LLaDA(steps=3))
    for key, expected in expected_of(record, model.family.mask_token_id or 0).items():
        assert_close(record.measures["drift"][key], expected)


def test_rows_that_decode_in_groups_are_compared_with_themselves(tmp_path: Path) -> None:
    model = dlens.load(save_llada(tmp_path, hides_padding=False), trust_remote_code=True)
    prompts = [[9, 10, 11], [12, 13, 14, 15, 16], [5, 6, 7]]
    record = dlens.trace(model).capture("resid_post").measure(Drift()).generate(prompts, 4)
    assert any("groups of equal length" in note for note in record.notes)
    expected = expected_of(record, model.family.mask_token_id or 0)
    assert expected["n"].sum() > 0
    for key, values in expected.items():
        assert_close(record.measures["drift"][key], values)


def test_a_forward_has_nothing_to_compare(diffusion: dlens.Model) -> None:
    data = dlens.trace(diffusion).measure(Drift()).forward(torch.tensor([[9]])).measures["drift"]
    assert data["cosine"].isnull().all() and int(data["n"].sum()) == 0


def test_decoding_with_a_cache_computes_no_position_twice(ar: dlens.Model) -> None:
    for ids in (torch.arange(8, 20)[None], torch.tensor([[9]])):
        data = dlens.trace(ar).measure(Drift()).generate(ids, 4).measures["drift"]
        assert data["cosine"].isnull().all() and int(data["n"].sum()) == 0
    assert "none while decoding with a cache" in data.attrs["positions"]


def test_recomputed_positions_of_a_causal_model_stand_still_unless_an_operation_moves_them(ar: dlens.Model) -> None:
    ids = torch.arange(8, 20)[None]
    trace = dlens.trace(ar).measure(Drift())
    still = trace.generate(ids, 3, cache="off").measures["drift"]
    assert still["n"].isel(layer=0).sum("state").values.tolist() == [0, 12, 13]
    np.testing.assert_allclose(still["cosine"].values[still["n"].values > 0], 1, atol=1e-5)
    moved = trace.skip([5], steps=1).generate(ids, 3, cache="off").measures["drift"]
    cosine = pool(moved, "cosine", ["step", "state"])
    np.testing.assert_allclose(cosine[:5], 1, atol=1e-5)
    assert (cosine[5:] < 1 - 1e-4).all()


def test_a_profile_pools_every_variable(diffusion: dlens.Model) -> None:
    measures = [Drift(), dlens.Norms(), dlens.LogitLens()]
    profile = dlens.profile(diffusion, PROMPTS, "trajectory", measures=measures, max_new_tokens=4)
    row = profile.table()[3]
    assert {"cosine", "cosine_committed", "norm", "change", "kl", "on_top"} <= row.keys()
    assert all(np.isfinite(value) for key, value in row.items() if key != "model")
