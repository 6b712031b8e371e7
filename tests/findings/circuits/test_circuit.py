"""Circuits: their edges, how faithful they are, and how much two of them share."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import dlens
from dlens.findings.circuits.graph import Graph
from tests.reference import shallow
from tests.standins import save_llada
from tests.unchecked import unchecked
from tests.whole.architectures import CONFIGS, build


@pytest.fixture(scope="module")
def found(gpt2: dlens.Model, pairs: dlens.Pairs) -> dlens.Circuit:
    return dlens.circuit(gpt2, pairs, method="eap")


def whole_and_empty(circuit: dlens.Circuit) -> None:
    """All edges go all the way, none goes nowhere, but for roundings of logits, which are larger than a way."""
    assert circuit.faithfulness().value == pytest.approx(1, abs=1e-3)
    assert circuit.faithfulness(0).value == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("name", ["qwen3", "pythia"])
def test_the_whole_circuit_is_the_model(name: str, pairs: dlens.Pairs) -> None:
    config = copy.deepcopy(CONFIGS[name][0])
    config.num_hidden_layers = 2
    whole_and_empty(dlens.circuit(build(config), pairs, method="eap"))


def test_the_whole_circuit_of_a_canvas(ar_init: dlens.Model) -> None:
    model = shallow(ar_init, 2)
    whole_and_empty(dlens.circuit(model, dlens.pairs("trio-code", model, 2), method="eap"))


def test_the_whole_circuit_of_remote_code_that_ignores_padding(tmp_path: Path, pairs: dlens.Pairs) -> None:
    model = dlens.load(str(save_llada(tmp_path, hides_padding=False)), trust_remote_code=True)
    whole_and_empty(dlens.circuit(model, pairs, method="eap"))


def test_edges_are_sorted_and_labelled(found: dlens.Circuit) -> None:
    edges = found.edges
    assert len(found) == edges.sizes["edge"] == found.graph.n_edges == 46
    assert (np.diff(np.abs(edges["score"])) <= 0).all()
    ends = edges.isel(edge=(edges["source"] == "embed") & (edges["target"] == "logits"))
    assert (int(ends["source_layer"][0]), int(ends["target_layer"][0])) == (-1, 2)
    heads = edges.isel(edge=(edges["source"] == "a0.h1") & (edges["target"] == "a1.h0<k>"))
    assert (int(heads["source_layer"][0]), int(heads["target_layer"][0])) == (0, 1)


def test_the_top_are_the_largest(found: dlens.Circuit) -> None:
    top = found.top(5)
    assert len(top) == 5 and top.edges.equals(found.edges.isel(edge=slice(5)))
    assert found.faithfulness(5) == top.faithfulness()
    with pytest.raises(ValueError, match=r"n=6 edges of Circuit of 5 of 46 edges .*; expected 0 to 5; take fewer"):
        top.top(6)


def test_random_circuits_are_of_any_edges(found: dlens.Circuit) -> None:
    one, again, other = (found.top(10).random(seed=seed) for seed in (0, 0, 1))
    assert len(one) == 10 and torch.equal(one.kept, again.kept) and not torch.equal(one.kept, other.kept)
    assert not (one.kept & ~found.graph.exists).any()
    assert len(found.random(46)) == 46 and one.overlap(found) == 10 / 46


def test_overlap_counts_edges(found: dlens.Circuit) -> None:
    assert found.top(8).overlap(found.top(2)) == 0.25
    assert found.overlap(replace(found, scores=found.scores.neg()), n=7) == 1
    with pytest.raises(ValueError, match="two circuits without edges"):
        found.top(0).overlap(found.top(0))
    larger = replace(found, graph=Graph(n_layers=4, n_heads=2, n_kv_heads=2))
    with pytest.raises(ValueError, match=r"overlap with Graph\(n_layers=4.*compare models of one shape"):
        found.overlap(larger)


def test_a_share_is_of_the_ways_of_all_pairs(found: dlens.Circuit, pairs: dlens.Pairs) -> None:
    alone = [found.top(20).faithfulness(pairs=pairs[[number]]) for number in range(3)]
    base, ways = dlens.trace(found.model), []
    for number in range(3):
        one = pairs[[number]]
        ends = [
            base.gradient("embed", of=one.metric()).forward([list(ids[0])]).metric for ids in (one.clean, one.corrupted)
        ]
        ways.append(float(ends[0] - ends[1]))
    together = found.faithfulness(20)
    assert together.n == 3 and together.low < together.value < together.high
    expected = sum(estimate.value * way for estimate, way in zip(alone, ways, strict=True)) / sum(ways)
    assert together.value == pytest.approx(expected, rel=1e-6)
    assert np.isnan(alone[0].low)


def test_prompts_that_change_nothing_measure_nothing(found: dlens.Circuit, pairs: dlens.Pairs) -> None:
    same = replace(pairs, corrupted=pairs.clean)
    estimate = found.faithfulness(pairs=same)
    assert np.isnan(estimate.value) and "the metric is the same" in estimate.why


def test_a_metric_of_ones_own(gpt2: dlens.Model, pairs: dlens.Pairs, found: dlens.Circuit) -> None:
    metric = dlens.metrics.logit_difference(list(pairs.right), list(pairs.wrong))
    own = dlens.circuit(gpt2, pairs, metric, method="eap")
    torch.testing.assert_close(own.scores, found.scores)


def test_what_is_no_number_or_method_is_refused(gpt2: dlens.Model, pairs: dlens.Pairs) -> None:
    with unchecked(), pytest.raises(ValueError, match="method='ig'; expected one of eap-ig, eap"):
        dlens.circuit(gpt2, pairs, method="ig")  # pyright: ignore
    with pytest.raises(ValueError, match="steps=0; expected at least 1"):
        dlens.circuit(gpt2, pairs, steps=0)
    with unchecked(), pytest.raises(ValueError, match="pairs are list; expected Pairs; make them with dlens.pairs"):
        dlens.circuit(gpt2, [])  # pyright: ignore
    with unchecked(), pytest.raises(ValueError, match="expected a metric"):
        dlens.circuit(gpt2, pairs, 3)  # pyright: ignore


def test_workers_find_the_same_scores(tmp_path) -> None:
    model = dlens.load("trio/ar")
    asked = dlens.pairs("trio-math", model, n=2)
    alone = dlens.circuit(model, asked, method="eap", batch_size=1)
    together = dlens.circuit(model, asked, method="eap", batch_size=1, workers=0, out=tmp_path)
    assert torch.equal(alone.scores, together.scores)
    assert len(list((tmp_path / "results").iterdir())) == 2
