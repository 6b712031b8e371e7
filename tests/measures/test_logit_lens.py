from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch import Tensor

import dlens
from dlens.measures import LogitLens
from dlens.measures.base import readout as readouts
from dlens.measures.base.measure import Span
from dlens.measures.base.readout import Readout
from tests.measures.runs import SPANS, assert_close, observe, random_run
from tests.reference import fresh

VOCAB = 12


def random_readout(span: Span, shift: int = 0) -> Readout:
    weight = torch.randn(VOCAB, span.d_model, generator=torch.Generator().manual_seed(3))
    return Readout(lambda h: h @ weight.to(h).T, VOCAB, shift)


def two_pass(span: Span, logits: np.ndarray, cell: np.ndarray, shift: int) -> dict[str, np.ndarray]:
    """The same numbers, position by position, from [step, layer, batch, position, vocab] at once."""
    shape = (span.n_steps, span.n_cells)
    keys = ("kl", "on_top", "saturated", "first", "saturation")
    seen: dict[str, dict] = {key: {} for key in keys}
    for step, row, position in np.ndindex(cell.shape):
        at = (step, cell[step, row, position])
        if at[1] < 0:
            continue
        read = position - shift
        if read < 0 or cell[step, row, read] < 0:
            read = position
        log_p = log_softmax(logits[step, :, row, read].astype(np.float64), axis=-1)
        hit = log_p.argmax(-1) == log_p[-1].argmax()
        saturated = np.array([hit[layer:].all() for layer in range(len(hit))])
        values = {
            "kl": (np.exp(log_p[-1]) * (log_p[-1] - log_p)).sum(-1),
            "on_top": hit,
            "saturated": saturated,
            "first": hit.argmax(),
            "saturation": saturated.argmax(),
        }
        for key, value in values.items():
            seen[key].setdefault(at, []).append(value)
    found = {key: np.full((*shape, span.n_layers) if key in keys[:3] else shape, np.nan) for key in keys}
    for key, cells in seen.items():
        for at, values in cells.items():
            found[key][at] = np.mean(values, axis=0)
    n = np.zeros(shape, dtype=int)
    for at, values in seen["first"].items():
        n[at] = len(values)
    return found | {"n": n}


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("at_a_time", [2**22, 2 * VOCAB])
def test_equals_a_two_pass_reference(span: Span, shift: int, at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readouts, "_AT_A_TIME", at_a_time)
    run, readout = random_run(span), random_readout(span, shift)
    run.resid_post = run.resid_post.double()
    logits = readout.unembed(run.resid_post).numpy()
    for layers in (None, 3):
        data = observe(LogitLens(), run, layers=layers, readout=readout)
        for key, expected in two_pass(span, logits, run.cell, shift).items():
            assert_close(data[key], expected)
    assert data["kl"].dims == ("step", *span.cell_dims, "layer")
    assert data["first"].dims == ("step", *span.cell_dims)


def test_runs_merge_in_any_order() -> None:
    span, measure = SPANS[0], LogitLens()
    readout = random_readout(span)
    a, b, c = (observe(measure, random_run(span, seed=seed), sums=True, readout=readout) for seed in range(3))
    forwards = measure.result(measure.merge(measure.merge(a, b), c), span)
    backwards = measure.result(measure.merge(c, measure.merge(b, a)), span)
    for variable in forwards.data_vars:
        assert_close(forwards[variable], backwards[variable].values)


def test_values_that_are_not_finite_give_nan_at_their_layer_and_before() -> None:
    run = random_run(SPANS[0])
    run.resid_post[:, 1] = torch.nan
    data = observe(LogitLens(), run, readout=random_readout(SPANS[0]))
    some = data["n"].values > 0
    assert np.isnan(data["kl"].values[some][:, 1]).all() and np.isfinite(data["kl"].values[some][:, [0, 2, 3]]).all()
    assert np.isnan(data["saturated"].values[some][:, :2]).all()
    assert np.isfinite(data["saturated"].values[some][:, 2:]).all()
    assert np.isnan(data["first"].values).all() and np.isnan(data["saturation"].values).all()


def unembedded(model: dlens.Model, h: Tensor) -> np.ndarray:
    """A plain copy's norm and head."""
    module: Any = fresh(model.module)
    with torch.no_grad():
        return module.lm_head(module.model.norm(h)).numpy()


@pytest.mark.parametrize("name", ["ar", "diffusion", "ar_init"])
def test_on_the_trio_equals_norm_and_head_by_hand(name: str, request: pytest.FixtureRequest) -> None:
    model: dlens.Model = request.getfixturevalue(name)
    ids = torch.randint(8, model.vocab_size, (2, 12), generator=torch.Generator().manual_seed(0))
    mask, diffusion = model.family.mask_token_id, model.family.objective == "diffusion"
    if mask is not None:
        ids[:, ::3] = mask
    record = dlens.trace(model).capture("resid_post", "logits").measure(LogitLens()).forward(ids)
    logits = unembedded(model, record["resid_post"])
    np.testing.assert_allclose(logits[-1], record["logits"].numpy(), atol=1e-4)
    bins = torch.full((2, 1), 3 if diffusion else 0)
    cell = (bins * 3 + (ids == mask).long()) if diffusion else torch.zeros_like(ids)
    span = Span(1, model.n_layers, model.d_model, diffusion, torch.device("cpu"))
    expected = two_pass(span, logits[None], cell.numpy()[None], model.family.shift if diffusion else 0)
    for key, values in expected.items():
        assert_close(record.measures["logit_lens"][key], values)


def test_a_final_layer_is_normed_once(diffusion: dlens.Model) -> None:
    data = dlens.trace(diffusion).measure(LogitLens()).forward("Once upon a time").measures["logit_lens"]
    last = data.isel(step=0, layer=-1).sel(state="prompt", noise=0.05)
    assert float(last["kl"]) == 0 and float(last["on_top"]) == float(last["saturated"]) == 1


def test_a_shifted_model_is_read_one_position_before(ar_init: dlens.Model) -> None:
    ids = torch.arange(8, 20)[None]
    ids[:, 5] = ar_init.family.mask_token_id or 0
    record = dlens.trace(ar_init).capture("resid_post").measure(LogitLens()).forward(ids)
    data = record.measures["logit_lens"]["kl"].isel(step=0).sel(state="masked", noise=0.05)
    log_p = log_softmax(unembedded(ar_init, record["resid_post"][:, 0, 4]).astype(np.float64), axis=-1)
    np.testing.assert_allclose(data, (np.exp(log_p[-1]) * (log_p[-1] - log_p)).sum(-1), atol=1e-6)


def test_a_prompt_of_one_token(ar: dlens.Model) -> None:
    data = dlens.trace(ar).measure(LogitLens()).forward(torch.tensor([[9]])).measures["logit_lens"]
    assert int(data["n"].sum()) == 1 and data["kl"].sel(state="prompt").notnull().all()


def test_decoding_measures_every_position_at_its_step(ar: dlens.Model) -> None:
    data = dlens.trace(ar).measure(LogitLens()).generate(torch.arange(8, 20)[None], 3).measures["logit_lens"]
    assert data["n"].sum("state").values.tolist() == [12, 1, 1]
