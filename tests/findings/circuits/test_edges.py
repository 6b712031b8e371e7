"""Scores of edges against the papers' formulas in plain torch, a model made by hand, and real patching."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import dlens
from tests.findings.circuits import plain
from tests.findings.circuits.conftest import small
from tests.findings.circuits.handmade import handmade


def by_name(circuit: dlens.Circuit) -> dict[tuple[str, str], float]:
    edges = circuit.edges
    names = zip(edges["source"].values.tolist(), edges["target"].values.tolist(), strict=True)
    return dict(zip(names, edges["score"].values.tolist(), strict=True))


@pytest.mark.parametrize("method", ["eap", "eap-ig"])
def test_scores_are_those_of_the_formulas(gpt2: dlens.Model, pairs: dlens.Pairs, method: Any) -> None:
    found = by_name(dlens.circuit(gpt2, pairs[:2], method=method, steps=3))
    expected = plain.scores(gpt2.module, pairs[:2], steps=3 if method == "eap-ig" else 1)
    assert found.keys() == expected.keys() and len(found) == 46
    for edge, score in expected.items():
        assert found[edge] == pytest.approx(score, rel=1e-6, abs=1e-9), edge
    assert max(map(abs, expected.values())) > 0.01


def test_batches_and_padding_change_nothing(gpt2: dlens.Model, pairs: dlens.Pairs) -> None:
    together = dlens.circuit(gpt2, pairs, method="eap").scores
    alone = dlens.circuit(gpt2, pairs, method="eap", batch_size=1).scores
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-12)


def test_small_changes_are_what_patching_an_edge_does(pairs: dlens.Pairs) -> None:
    module = small()
    weight = module.transformer.wte.weight.data
    weight[16] = weight[6] + 1e-5 * torch.randn(16, generator=torch.Generator().manual_seed(0))
    pair = pairs[:1]
    found = by_name(dlens.circuit(module, pair, method="eap"))
    clean = plain.rewired(module, pair, lambda writer, reader: True)
    for edge, score in found.items():
        patched = plain.rewired(module, pair, lambda writer, reader, edge=edge: (writer, reader) != edge)
        assert score == pytest.approx(float(patched - clean), rel=1e-3, abs=1e-9), edge
    assert max(map(abs, found.values())) > 1e-6


def test_a_model_made_by_hand_has_the_edges_that_it_was_made_with() -> None:
    pair = dlens.Pairs(((2, 3),), ((4, 3),), (5,), (6,), (1,), ("",))
    # Token 2 has 1 and token 4 has -1; means of both positions, twice, leave 3 / 4 of it at the last, read twice.
    path = {("embed", "a0.kv0<v>"), ("a0.h1", "a1.kv0<v>"), ("a1.h0", "logits")}
    written = handmade()
    # Weights of 0 show nothing of what a part does; others of the same class do.
    model = dlens.load(written, layout=dlens.load(type(written)(written.config).eval()).layout)
    for method in ("eap", "eap-ig"):
        circuit = dlens.circuit(model, pair, method=method, steps=2)
        for edge, score in by_name(circuit).items():
            assert score == pytest.approx(-2 * 0.75 * 2 if edge in path else 0, abs=1e-3), edge
    assert circuit.faithfulness(3).value == pytest.approx(1, abs=1e-3)
    assert circuit.faithfulness(2).value == pytest.approx(0, abs=1e-3)
