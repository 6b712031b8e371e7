from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import MistralConfig

import dlens
from dlens.measures import Attention, pool
from dlens.measures.base.measure import Measure, Span, Visit
from dlens.models.families.decoder import llama_like
from tests.measures.runs import CPU, assert_close, cells_of
from tests.standins import save_dream, save_llada
from tests.unchecked import unchecked
from tests.whole.architectures import GQA, build

SPANS = [
    Span(n_steps=3, n_layers=2, d_model=4, has_noise=True, device=CPU),
    Span(n_steps=1, n_layers=3, d_model=4, has_noise=False, device=CPU),
]


def random_patterns(span: Span, seed: int = 0, width: int = 9) -> tuple[Tensor, np.ndarray]:
    """[step, layer, batch, head, query, key] with a column that draws most, and the cells; row 0 is padded."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(span.n_steps, span.n_layers, 2, 3, width, width, generator=generator)
    scores[..., 4] += 4
    scores[:, :, 0, ..., :2] = -torch.inf
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 10, size=(span.n_steps, 2, 1)) if span.has_noise else 0
    cell = noise * 3 + rng.integers(0, 3, size=(span.n_steps, 2, width))
    cell[:, 0, :2] = -1
    cell[:, 1, -1] = -1
    return scores.softmax(-1), cell


def observe(measure: Measure, span: Span, patterns: Tensor, cell: np.ndarray, sums: bool = False) -> Any:
    total, kept = measure.start(span), {}
    for step, layer in np.ndindex(span.n_steps, span.n_layers):
        values = {"pattern": patterns[step, layer : layer + 1]}
        visit = Visit(step, range(layer, layer + 1), values, cells_of(cell[step]), kept=kept)
        measure.update(total, replace(visit, columns=range(cell.shape[-1])))
    return total if sums else measure.result(total, span)


class Reference:
    """The same numbers, key by key, from one step after the other."""

    def __init__(self, span: Span, margin: float) -> None:
        self.span, self.margin = span, margin
        self.keys: dict[str, dict[Any, list[float]]] = {"mass": {}, "sink_share": {}}
        self.rows: dict[str, dict[Any, list[float]]] = {k: {} for k in ("sinks", "sink_mass", "first_mass", "largest")}

    def see(self, step: int, layer: int, pattern: np.ndarray, queries: np.ndarray, cell: np.ndarray) -> None:
        """One prompt: [head, query, key], which queries count, and the cell of each key."""
        keys = np.flatnonzero(cell >= 0)
        received = pattern.astype(np.float64).mean(0)[queries].sum(0)[keys] * len(keys) / queries.sum()
        n = len(received)
        sinks = [n > 1 and bool(m > np.delete(received, j).mean() + self.margin) for j, m in enumerate(received)]
        for j, key in enumerate(keys):
            self.keys["mass"].setdefault((step, cell[key], layer), []).append(received[j])
            self.keys["sink_share"].setdefault((step, cell[key], layer), []).append(sinks[j])
        row = {
            "sinks": sum(sinks),
            "sink_mass": received[sinks].sum() / received.sum(),
            "first_mass": received[0],
            "largest": received.max(),
        }
        for name, value in row.items():
            self.rows[name].setdefault((step, cell[keys[0]] // 3, layer), []).append(value)

    def check(self, data: Any) -> None:
        span = self.span
        for seen, n in ((self.keys, span.n_cells), (self.rows, span.n_noise)):
            for name, cells in seen.items():
                expected = np.full((span.n_steps, n, span.n_layers), np.nan)
                for at, values in cells.items():
                    expected[at] = np.mean(values)
                assert_close(data[name], expected)


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("margin", [3.0, 0.2])
def test_equals_a_two_pass_reference(span: Span, margin: float) -> None:
    patterns, cell = random_patterns(span)
    reference = Reference(span, margin)
    for step, layer, row in np.ndindex(span.n_steps, span.n_layers, 2):
        queries = cell[step, row] >= 0
        reference.see(step, layer, patterns[step, layer, row].numpy(), queries, cell[step, row])
    data = observe(Attention(margin=margin), span, patterns, cell)
    reference.check(data)
    assert float(data["sinks"].max()) > 0
    assert data["mass"].dims == ("step", *span.cell_dims, "layer")
    assert data["sinks"].dims == ("step", *span.noise_dims, "layer")
    assert int(data["n"].sum()) == (cell >= 0).sum() * span.n_layers


def test_even_attention_has_mass_1_and_no_sink() -> None:
    span = SPANS[1]
    data = observe(Attention(margin=0.1), span, torch.full((1, 3, 2, 3, 5, 5), 0.2), np.zeros((1, 2, 5), dtype=int))
    np.testing.assert_allclose(data["mass"].sel(state="prompt"), 1, atol=1e-6)
    assert (data["sinks"] == 0).all() and (data["sink_mass"] == 0).all()


def test_all_attention_on_one_position_is_one_sink() -> None:
    patterns = torch.zeros(1, 3, 2, 3, 5, 5)
    patterns[..., 2] = 1
    data = observe(Attention(), SPANS[1], patterns, np.zeros((1, 2, 5), dtype=int))
    assert (data["sinks"] == 1).all() and (data["sink_mass"] == 1).all() and (data["largest"] == 5).all()
    np.testing.assert_allclose(data["sink_share"].sel(state="prompt"), 0.2)


def test_runs_merge_in_any_order() -> None:
    span, measure = SPANS[0], Attention()
    a, b, c = (observe(measure, span, *random_patterns(span, seed=seed), sums=True) for seed in range(3))
    forwards = measure.result(measure.merge(measure.merge(a, b), c), span)
    backwards = measure.result(measure.merge(c, measure.merge(b, a)), span)
    for variable in forwards.data_vars:
        assert_close(forwards[variable], backwards[variable].values)


def test_values_that_are_not_finite_stay_in_their_layer() -> None:
    patterns, cell = random_patterns(SPANS[0])
    patterns[:, 1] = torch.nan
    data = observe(Attention(), SPANS[0], patterns, cell)
    for name, n in (("mass", "n"), ("sink_share", "n"), ("sinks", "n_prompts")):
        some = data[n].values > 0
        assert (np.isnan(data[name].values) == (~some | (np.arange(2) == 1))).all()


def test_padded_queries_that_are_not_finite_count_nothing() -> None:
    patterns, cell = random_patterns(SPANS[0])
    clean = observe(Attention(), SPANS[0], patterns, cell)
    patterns[:, :, 0, :, :2] = torch.nan
    assert_close(observe(Attention(), SPANS[0], patterns, cell)["mass"], clean["mass"].values)


@pytest.mark.parametrize("name", ["ar", "diffusion"])
def test_on_the_trio_equals_what_was_captured(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    diffusion = model.family.objective == "diffusion"
    prompts = [list(range(8, 20)), list(range(30, 37))]
    record = dlens.trace(model).capture("pattern").measure(Attention(margin=0.5), dlens.Cosine()).forward(prompts)
    span = Span(1, model.n_layers, model.d_model, diffusion, CPU)
    reference = Reference(span, 0.5)
    pattern = record["pattern"].numpy()
    for layer, row in np.ndindex(span.n_layers, 2):
        real = ~record.is_pad[row].numpy()
        reference.see(0, layer, pattern[layer, row], real, np.where(real, 0, -1))
    reference.check(record.measures["attention"])
    alone = dlens.trace(model).capture("pattern").measure(dlens.Cosine()).forward(prompts).measures["cosine"]
    assert_close(record.measures["cosine"]["cosine"], alone["cosine"].values)


def decoded(model: dlens.Model, ids: Any, new: int) -> None:
    """Cached decoding against the captured patterns."""
    record = dlens.trace(model).capture("pattern").measure(Attention(margin=0.5)).generate(ids, new)
    pattern = record["pattern"].numpy()
    width = pattern.shape[-1] - new + 1
    span = Span(record.n_steps, model.n_layers, model.d_model, False, CPU)
    reference = Reference(span, 0.5)
    for step, layer, row in np.ndindex(span.n_steps, span.n_layers, len(record.tokens)):
        stop = width + step
        queries = ~record.is_pad[row, :stop].numpy() & (np.arange(stop) >= (stop - 1 if step else 0))
        cell = np.where(np.arange(stop) < width, 0, 2)
        cell = np.where(record.is_pad[row, :stop], -1, cell)
        reference.see(step, layer, pattern[layer, row, :, :stop, :stop], queries, cell)
    reference.check(record.measures["attention"])


def test_decoding_with_a_cache_counts_the_keys_of_earlier_steps(ar: dlens.Model) -> None:
    decoded(ar, [list(range(8, 14)), list(range(30, 33))], 3)
    decoded(ar, [[9]], 3)


def test_a_sliding_cache_has_the_keys_that_are_left() -> None:
    settings: dict[str, Any] = GQA | {"sliding_window": 6}
    model = build(MistralConfig(**settings))
    data = dlens.trace(model).measure(Attention()).generate(torch.arange(1, 9)[None], 4).measures["attention"]
    assert data["n"].isel(layer=0).sum("state").values.tolist() == [8, 6, 6, 6]
    np.testing.assert_allclose(pooled_mass(data)[1:], 1, atol=1e-5)


def pooled_mass(data: Any) -> np.ndarray:
    return pool(data, "mass", ["state", "layer"]).values


@pytest.mark.parametrize("save", [save_llada, save_dream])
def test_remote_code_that_calls_its_kernel_by_itself(save: Any, tmp_path: Path) -> None:
    model = dlens.load(str(save(tmp_path)), trust_remote_code=True)
    prompts = [list(range(5, 11)), [11, 12, 13]]
    record = dlens.trace(model).capture("pattern").measure(Attention(margin=0.5)).forward(prompts)
    reference = Reference(Span(1, model.n_layers, model.d_model, True, CPU), 0.5)
    for layer, row in np.ndindex(model.n_layers, 2):
        real = ~record.is_pad[row].numpy()
        pattern = record["pattern"][layer, row].numpy()
        np.testing.assert_allclose(pattern[:, real][..., real].sum(-1), 1, atol=1e-6)
        reference.see(0, layer, pattern, real, np.where(real, 0, -1))
    reference.check(record.measures["attention"])


def test_a_model_without_patterns_is_refused_at_once() -> None:
    layout = replace(llama_like(), absent={"pattern": "it mixes by other means"})
    family = dlens.Family(name="own", objective="autoregressive", shift=1, layout=layout)
    model = dlens.load(build(MistralConfig(**GQA)), family=family)
    with pytest.raises(ValueError, match="has no pattern: it mixes by other means"):
        dlens.trace(model).measure(Attention())


def test_margin_must_be_positive() -> None:
    with unchecked(), pytest.raises(ValueError, match="margin=0; expected a number above 0"):
        Attention(margin=0)
