from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import Tensor

import dlens
from dlens.measures import CommitOrder
from dlens.measures.base.measure import Span, Sums, Visit
from dlens.measures.base.readout import Readout
from dlens.measures.commit_order import order_of
from dlens.samplers import Dream, LLaDA
from tests.measures.runs import CPU, cells_of
from tests.standins import save_llada

SPAN = Span(n_steps=4, n_layers=2, d_model=5, has_noise=True, device=CPU)
VOCAB, MASK = 11, 3
WEIGHT = torch.randn(VOCAB, 5, generator=torch.Generator().manual_seed(3))


def random_canvas(rng: np.random.Generator, rows: int, width: int) -> np.ndarray:
    """[step, batch, position], cells of a run in which masks become tokens; the first column is padding."""
    at = rng.integers(-1, SPAN.n_steps, size=(rows, width))
    steps = np.arange(SPAN.n_steps)[:, None, None]
    state = np.where(at < 0, 0, np.where(at >= steps, 1, 2))
    cell = (9 - 3 * steps) * 3 + state
    cell[:, :, 0] = -1
    return cell


def observe(cell: np.ndarray, h: Tensor, sums: Sums | None = None, shift: int = 0) -> Sums:
    """Sums of a run of [step, batch, position, d_model]."""
    measure, kept = CommitOrder(), {}
    sums = measure.start(SPAN) if sums is None else sums
    readout = Readout(lambda rows: rows @ WEIGHT.to(rows).T, VOCAB, shift, MASK)
    for step in range(SPAN.n_steps):
        for layer in range(SPAN.n_layers):
            value = h[step][None] if layer == SPAN.n_layers - 1 else torch.zeros_like(h[step])[None]
            visit = Visit(step, range(layer, layer + 1), {"resid_post": value}, cells_of(cell[step]))
            visit = replace(visit, last=layer == SPAN.n_layers - 1, kept=kept, readout=readout)
            measure.update(sums, replace(visit, rows=range(cell.shape[1]), columns=range(cell.shape[2])))
    return sums


def read(logits: np.ndarray) -> tuple[float, float]:
    """Confidence and entropy of one row of logits."""
    p = softmax(np.delete(logits.astype(np.float64), MASK))
    return p.max(), -(p * np.log(p)).sum()


def run(seed: int, rows: int = 2, width: int = 7) -> tuple[np.ndarray, Tensor]:
    rng = np.random.default_rng(seed)
    return random_canvas(rng, rows, width), torch.tensor(rng.normal(size=(SPAN.n_steps, rows, width, 5)))


@pytest.mark.parametrize("shift", [0, 1])
def test_equals_a_two_pass_reference(shift: int) -> None:
    cell, h = run(0)
    data = CommitOrder().result(observe(cell, h, shift=shift), SPAN)
    logits = (h @ WEIGHT.double().T).numpy()
    for row, position in np.ndindex(cell.shape[1:]):
        masked = np.flatnonzero(cell[:, row, position] % 3 == 1)
        masked = masked if cell[0, row, position] >= 0 else []
        at = int(data["committed_at"][row, position])
        assert at == (masked[-1] if len(masked) else -1)
        found = [float(data[key][row, position]) for key in ("confidence", "entropy")]
        source = position - shift if position > shift else position
        np.testing.assert_allclose(found, read(logits[at, row, source]) if at >= 0 else np.nan, atol=1e-9)
        assert at < 0 or float(data["noise_level"][row, position]) == pytest.approx((9 - 3 * at + 0.5) / 10)
    steps = data["committed_at"].values
    assert data["committed"].values.tolist() == [(steps == step).sum() for step in range(4)]
    for key in ("confidence", "entropy"):
        means = [data[key].values[steps == step].mean() for step in range(4)]
        np.testing.assert_allclose(data[f"step_{key}"], means)
    assert int(data.attrs["n"]) == int(data["n"].sum()) == (steps >= 0).sum()


def test_what_follows_the_end_of_a_row_is_taken_back() -> None:
    cell, h = run(0)
    cell[0, 0, -1] = cell[0].max() // 3 * 3 + 1
    cell[2:, 0, -1] = -1
    data = CommitOrder().result(observe(cell, h), SPAN)
    assert int(data["committed_at"][0, -1]) == -1 and data["confidence"][0, -1].isnull()


def test_runs_stand_below_each_other_and_merge_in_any_order() -> None:
    measure, runs = CommitOrder(), [run(0), run(1, rows=1, width=4), run(2, rows=3, width=9)]
    a, b, c = (observe(*one) for one in runs)
    merged = measure.result(measure.merge(measure.merge(a, b), c), SPAN)
    backwards = measure.result(measure.merge(c, measure.merge(b, a)), SPAN)
    assert merged.sizes["batch"] == 6 and merged.sizes["position"] == 9
    for variable in ("committed_at", "confidence", "spearman", "n"):
        np.testing.assert_array_equal(merged[variable][[3, 4, 5, 2, 0, 1]], backwards[variable])
    for variable in ("committed", "step_confidence", "step_entropy"):
        np.testing.assert_allclose(merged[variable], backwards[variable])
    together = measure.start(SPAN)
    for one in runs:
        observe(*one, sums=together)
    for variable in merged.data_vars:
        np.testing.assert_array_equal(merged[variable], measure.result(together, SPAN)[variable])


def test_values_that_are_not_finite_give_nan_at_their_position() -> None:
    cell, h = run(0)
    clean = CommitOrder().result(observe(cell, h), SPAN)
    row, position = np.argwhere(clean["committed_at"].values >= 0)[0]
    h[:, row, position] = torch.nan
    data = CommitOrder().result(observe(cell, h), SPAN)
    hit = np.zeros(data["confidence"].shape, dtype=bool)
    hit[row, position] = True
    for key in ("confidence", "entropy"):
        np.testing.assert_array_equal(data[key], np.where(hit, np.nan, clean[key]))


def test_order_statistics() -> None:
    assert order_of(np.arange(5)) == pytest.approx((1, 1, 1))
    assert order_of(np.arange(5)[::-1]) == pytest.approx((-1, -1, 0.2))
    assert np.isnan(order_of(np.array([2, 2, -1]))[:2]).all() and order_of(np.array([2, 2, -1]))[2] == 1
    assert np.isnan(order_of(np.array([-1, -1]))).all()
    rng = np.random.default_rng(0)
    shares = [order_of(rng.permutation(4))[2] for _ in range(2000)]
    assert np.mean(shares) == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4, abs=0.02)


def aligned(record: dlens.Record, shift: int) -> np.ndarray:
    logits = record["logits"].double().numpy()
    return logits if not shift else np.concatenate([logits[:, :, :1], logits[:, :, :-1]], 2)


@pytest.mark.parametrize(
    ("name", "sampler"),
    [("diffusion", LLaDA(steps=3)), ("diffusion", LLaDA(steps=6, guidance=0.5)), ("ar_init", Dream(steps=4))],
)
def test_on_the_trio_equals_the_record(name: str, sampler: Any, request: pytest.FixtureRequest) -> None:
    model: dlens.Model = request.getfixturevalue(name)
    trace = dlens.trace(model).capture("logits").measure(CommitOrder())
    record = trace.generate(["Once upon a time", "The little dog ran to the"], 6, sampler=sampler)
    data, logits = record.measures["commit_order"], aligned(record, model.family.shift)
    mask = model.family.mask_token_id
    assert mask is not None
    ended = (data["committed_at"].values < 0) & (record.committed_at.numpy() >= 0)
    np.testing.assert_array_equal(data["committed_at"].values[~ended], record.committed_at.numpy()[~ended])
    assert (data["committed_at"].values >= 0).any(-1).all()
    for row, position in np.argwhere(data["committed_at"].values >= 0):
        values = np.delete(logits[int(data["committed_at"][row, position]), row, position], mask)
        p = softmax(values)
        # The float32 head rounds by the number of rows it is given.
        np.testing.assert_allclose(data["confidence"][row, position], p.max(), atol=5e-6)
        np.testing.assert_allclose(data["entropy"][row, position], -(p * np.log(p)).sum(), atol=5e-6)


def test_rows_that_decode_in_groups_stand_in_the_order_of_the_batch(tmp_path: Path) -> None:
    model = dlens.load(save_llada(tmp_path, hides_padding=False), trust_remote_code=True)
    prompts = [[9, 10, 11], [12, 13, 14, 15, 16], [5, 6, 7]]
    record = dlens.trace(model).measure(CommitOrder()).generate(prompts, 4)
    assert any("groups of equal length" in note for note in record.notes)
    np.testing.assert_array_equal(record.measures["commit_order"]["committed_at"], record.committed_at)


def test_a_profile_gathers_the_rows_of_all_its_runs(diffusion: dlens.Model) -> None:
    prompts = ["Once upon a time", "The little dog ran to the big red house and", "Tom"]
    settings: dict[str, Any] = {"max_new_tokens": 4, "measures": [CommitOrder()]}
    one, all_ = (
        dlens.profile(diffusion, prompts, "trajectory", batch_size=size, **settings).measures["commit_order"]
        for size in (1, 3)
    )
    for variable in all_.data_vars:
        np.testing.assert_allclose(one[variable], all_[variable], atol=1e-5)


def test_a_record_keeps_it(diffusion: dlens.Model, tmp_path: Path) -> None:
    record = dlens.trace(diffusion).measure(CommitOrder(), dlens.Drift(), dlens.LogitLens()).generate("Once", 3)
    record.save(tmp_path / "run")
    for key, data in dlens.load_record(tmp_path / "run").measures.items():
        assert data.identical(record.measures[key])


def test_an_autoregressive_model_is_refused_before_it_computes(ar: dlens.Model) -> None:
    seen: list[int] = []
    trace = dlens.trace(ar).hook("embed", lambda value, hook: seen.append(hook.step)).measure(CommitOrder())
    with pytest.raises(ValueError, match="commit_order of an autoregressive model; expected a diffusion model"):
        trace.forward("Once upon a time")
    assert seen == []
