"""Nodes and edges."""

from __future__ import annotations

from dlens.findings.circuits.graph import HEAD_READS, Graph, graph_of


def test_an_edge_goes_to_every_later_reader() -> None:
    graph = Graph(n_layers=2, n_heads=2, n_kv_heads=2)
    before = {
        reader: [graph.writers[writer] for writer in graph.exists[:, place].nonzero().flatten().tolist()]
        for place, reader in enumerate(graph.readers)
    }
    assert before["a0.h1<k>"] == ["embed"]
    assert before["m0"] == ["embed", "a0.h0", "a0.h1"]
    assert before["a1.h0<v>"] == ["embed", "a0.h0", "a0.h1", "m0"]
    assert before["m1"] == ["embed", "a0.h0", "a0.h1", "m0", "a1.h0", "a1.h1"]
    assert before["logits"] == list(graph.writers)
    assert graph.n_edges == 6 + 3 + 6 * 4 + 6 + 7


def test_places_name_what_they_are() -> None:
    graph = Graph(n_layers=3, n_heads=4, n_kv_heads=2)
    for read in HEAD_READS:
        kind, count = ("h", 4) if read == "q" else ("kv", 2)
        assert graph.readers[graph.heads(2, read)] == tuple(f"a2.{kind}{head}<{read}>" for head in range(count))
    assert graph.readers[graph.mlp(1)] == graph.writers[graph.before_mlp(1)] == "m1"
    assert graph.writers[graph.before_heads(1) : graph.before_mlp(1)] == ("a1.h0", "a1.h1", "a1.h2", "a1.h3")


def test_the_graph_of_a_model(ar: object) -> None:
    assert graph_of(ar) == Graph(16, 3, 3)  # pyright: ignore
