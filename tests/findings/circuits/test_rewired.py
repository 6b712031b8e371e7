"""Runs of which only some edges are their own, against plain torch."""

from __future__ import annotations

import pytest
import torch

import dlens
from dlens.findings.circuits.graph import graph_of
from dlens.findings.circuits.rewired import rewired_metric
from dlens.findings.circuits.streams import streams_of
from tests.findings.circuits import plain


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_edges_that_are_not_kept_are_patched(gpt2: dlens.Model, pairs: dlens.Pairs, share: float) -> None:
    base, two = dlens.trace(gpt2), pairs[:2]
    graph = graph_of(base.model)
    kept = graph.exists & (torch.rand(graph.exists.shape, generator=torch.Generator().manual_seed(1)) < share)
    other = streams_of(base, two.corrupted, two.metric())
    found = rewired_metric(base, two.clean, other, kept, two.metric())
    names = {(graph.writers[writer], graph.readers[reader]) for writer, reader in kept.nonzero().tolist()}
    expected = plain.rewired(gpt2.module, two, lambda writer, reader: (writer, reader) in names)
    torch.testing.assert_close(found, expected)
    assert (found - other.metric).abs().min() > 1e-3
