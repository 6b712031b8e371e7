"""Circuits: the edges between heads and MLPs that decide between two answers, and how much they do by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dlens.checks import refuse, require_word
from dlens.findings.circuits.edges import edge_scores
from dlens.findings.circuits.graph import Graph, graph_of
from dlens.findings.circuits.pairs import Pairs
from dlens.findings.circuits.rewired import rewired_metric
from dlens.findings.circuits.streams import require_sums, streams_of
from dlens.findings.scores.estimate import Estimate
from dlens.findings.scores.intervals import jackknife_interval
from dlens.metrics import Metric
from dlens.models.model import Model
from dlens.ops.base.given import as_index, as_seed
from dlens.tracing.chain import Trace, trace
from dlens.workers.base import Workers
from dlens.workers.spread import spread

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Circuit", "circuit"]

Method = Literal["eap", "eap-ig"]


@final
@dataclass(frozen=True, eq=False, repr=False)
class Circuit:
    """Some edges of a model, with their scores; made by `dlens.circuit`.

    Args:
        model: whose.
        pairs: what the edges were scored on.
        metric: what was asked of the logits; None is the difference between the logits of both answers.
        method: how edges were scored.
        graph: all nodes.
        scores: mean over pairs of each edge's score; 0 where there is no edge.
        kept: which edges belong to the circuit.
        batch_size: pairs a forward.

    Examples:
        >>> import dlens
        >>> circuit = dlens.circuit("trio/ar", dlens.pairs("trio-code", "trio/ar", n=1), method="eap")
        >>> circuit, circuit.top(200)
        (Circuit of 5073 of 5073 edges of trio/ar, eap, Circuit of 200 of 5073 edges of trio/ar, eap)
        >>> edges = circuit.top(3).edges
        >>> edges["target"].values.tolist()[0], edges["score"].dims
        ('logits', ('edge',))
        >>> circuit.top(200).overlap(circuit.top(100))
        0.5
        >>> circuit.faithfulness(500).value > 0.8
        True
        >>> circuit.random(200)
        Circuit of 200 of 5073 edges of trio/ar, eap
    """

    model: Model
    pairs: Pairs
    metric: Metric | None
    method: Method
    graph: Graph
    scores: Float[Tensor, "writer reader"]
    kept: Bool[Tensor, "writer reader"]
    batch_size: int

    def __len__(self) -> int:
        return int(self.kept.sum())

    def __repr__(self) -> str:
        return f"Circuit of {len(self)} of {self.graph.n_edges} edges of {self.model.name}, {self.method}"

    @property
    def edges(self) -> xr.Dataset:
        """Over edge, the largest score first: "source", "target" (see `Graph`), the "score", and the layer of each end.

        The embedding is at layer -1, the logits at the number of layers.
        """
        import xarray as xr

        found = self._ranked()
        ends = {
            "source": [self.graph.writers[w] for w, _ in found],
            "target": [self.graph.readers[r] for _, r in found],
        }
        layers = {
            f"{end}_layer": [_layer_of(name, self.graph.n_layers) for name in names] for end, names in ends.items()
        }
        scores = [float(self.scores[edge]) for edge in found]
        data = {name: ("edge", values) for name, values in {**ends, **layers, "score": scores}.items()}
        return xr.Dataset(data, attrs={"model": self.model.name, "method": self.method, "n": len(self.pairs)})

    def top(self, n: int) -> Circuit:
        """The n edges of largest absolute score; none is dropped because it lies on no path from end to end.

        Raises:
            ValueError: there are not so many.
        """
        return self._of(self._ranked()[: self._count(n, len(self))])

    def random(self, n: int | None = None, seed: int = 0) -> Circuit:
        """A circuit of so many edges of the model, or of as many as this one has, each as likely as another.

        Raises:
            ValueError: there are not so many.
        """
        edges = self.graph.exists.nonzero().tolist()
        count = self._count(len(self) if n is None else n, len(edges))
        order = torch.randperm(len(edges), generator=torch.Generator().manual_seed(as_seed(seed)))
        return self._of([tuple(edges[number]) for number in order[:count].tolist()])

    def faithfulness(self, n: int | None = None, pairs: Pairs | None = None) -> Estimate:
        """How much of the way from the corrupted to the clean prompt the metric goes with these edges alone.

        Every other edge carries what it carries for the corrupted prompt: each head and MLP runs on an input of its
        own. With all edges it is 1, with none 0; it can be less and more.

        Args:
            n: the n top edges; None is all of the circuit.
            pairs: others than the edges were scored on, which say more of a circuit than those it was found on.

        Returns:
            The sum of the ways over pairs, divided by the sum of the whole ways, with a jackknife interval over pairs.
        """
        if pairs is not None and not isinstance(pairs, Pairs):
            refuse("pairs", pairs, "pairs of prompts", "make them with dlens.pairs, or leave it out")
        chosen = self if n is None else self.top(n)
        base, ways = trace(self.model), []
        for part, metric in _parts(self.model, self.pairs if pairs is None else pairs, self.metric, self.batch_size):
            clean, other = (streams_of(base, ids, metric) for ids in (part.clean, part.corrupted))
            found = rewired_metric(base, part.clean, other, chosen.kept, metric)
            ways.append(torch.stack([found - other.metric, clean.metric - other.metric], dim=-1))
        rows = torch.cat(ways).double().numpy()
        if not rows[:, 1].sum():
            return Estimate(nan, nan, nan, "not measurable: the metric is the same for both prompts", n=len(rows))
        low, high = jackknife_interval([rows], _share)
        return Estimate(_share(rows), low, high, n=len(rows))

    def overlap(self, other: Circuit, n: int | None = None) -> float:
        """Edges that both circuits have, as a share of those that either has (Jaccard).

        Args:
            other: a circuit of a model with as many layers and heads.
            n: compare the n top edges of each; None is all of each.

        Raises:
            ValueError: the models have other edges, or neither circuit has any.
        """
        if not isinstance(other, Circuit) or other.graph != self.graph:
            came = repr(other.graph) if isinstance(other, Circuit) else type(other).__name__
            raise ValueError(f"overlap with {came}; expected a circuit of {self.graph}; compare models of one shape")
        one, two = (each.kept if n is None else each.top(n).kept for each in (self, other))
        if not (one | two).any():
            raise ValueError("overlap of two circuits without edges; expected one at least; take the top of both")
        return int((one & two).sum()) / int((one | two).sum())

    def _ranked(self) -> list[tuple[int, int]]:
        """The edges, the largest absolute score first."""
        edges = self.kept.nonzero()
        order = self.scores[self.kept].abs().argsort(descending=True, stable=True)
        return [(writer, reader) for writer, reader in edges[order].tolist()]

    def _of(self, edges: list[tuple[int, int]]) -> Circuit:
        kept = torch.zeros_like(self.kept)
        for edge in edges:
            kept[edge] = True
        return replace(self, kept=kept)

    def _count(self, n: int, most: int) -> int:
        count = as_index(n, "n")
        if not 0 <= count <= most:
            raise ValueError(f"n={count} edges of {self}; expected 0 to {most}; take fewer")
        return count


def circuit(
    model: Any,
    pairs: Pairs,
    metric: Metric | None = None,
    *,
    method: Method = "eap-ig",
    steps: int = 5,
    batch_size: int = 16,
    workers: str | int | Workers | None = None,
    out: str | Path | None = None,
) -> Circuit:
    """Score every edge between heads and MLPs by what it does to a metric.

    The score of an edge estimates the metric of the clean run in which this edge alone carries what it carries in the
    corrupted run, minus the metric of the clean run; edges that favour the right answer have negative scores. It is the
    sum over positions of (writer, corrupted minus clean) times the gradient at the reader's input: at the clean run
    ("eap", Syed et al., arXiv:2310.10348), or averaged over `steps` runs whose embeddings go from the corrupted
    to the clean ones ("eap-ig", Hanna et al., arXiv:2403.17806). For a diffusion model this is about one step, whose
    canvas the pairs hold: `dlens.pairs(..., shown=0.5)` asks at a later one.

    Args:
        model: anything `dlens.load` takes. Its blocks run attention before the MLP, without norms after them; in half
            precision scores of edges into MLPs are rough, as they come of a difference.
        pairs: prompts, made by `dlens.pairs`.
        metric: one of `dlens.metrics`, or your own; None is how much larger the logit of the right token is than that
            of the wrong one where the answer begins. One with token ids for each row needs all pairs in one batch.
        method: "eap-ig" or "eap".
        steps: runs that "eap-ig" averages over.
        batch_size: pairs a forward; memory is about 4 x (heads + 1) x layers x positions x d_model numbers a pair.
        workers: who computes the batches, as `dlens.sweep` takes them; this process by default.
        out: where they keep their results; a temporary folder by default.

    Returns:
        All edges; take `.top(n)` of them.

    Raises:
        ValueError: a model whose blocks are built otherwise, or what is no method, pairs or number.
        MemoryError: the batch is too large.

    Examples:
        >>> import dlens
        >>> pairs = dlens.pairs("trio-math", "trio/diffusion", n=1)
        >>> circuit = dlens.circuit("trio/diffusion", pairs, method="eap")
        >>> print(circuit.top(50))
        Circuit of 50 of 5073 edges of trio/diffusion, eap
    """
    require_word("method", method, ("eap-ig", "eap"))
    if not isinstance(pairs, Pairs):
        raise ValueError(f"pairs are {type(pairs).__name__}; expected Pairs; make them with dlens.pairs(source, model)")
    for name, number in {"steps": steps, "batch_size": batch_size}.items():
        if as_index(number, name) < 1:
            raise ValueError(f"{name}={number}; expected at least 1; leave it out")
    base = trace(model)
    require_sums(base, [pairs.clean[0], pairs.corrupted[0]])
    graph, runs = graph_of(base.model), steps if method == "eap-ig" else 1
    parts = _parts(base.model, pairs, metric, batch_size)
    calls = [partial(_scored, base, part, asked, runs) for part, asked in parts]
    found = spread(calls, "pairs of a circuit", workers, out)
    scores = torch.stack([torch.tensor(each["scores"], dtype=getattr(torch, each["dtype"])) for each in found])
    scores = scores.sum(0) / len(pairs)
    return Circuit(base.model, pairs, metric, method, graph, scores, graph.exists, batch_size)


def _scored(base: Trace, pairs: Pairs, metric: Metric, steps: int) -> dict[str, Any]:
    """Scores of the edges, summed over pairs, as plain data."""
    clean, corrupted = (streams_of(base, ids, metric) for ids in (pairs.clean, pairs.corrupted))
    found = edge_scores(base, pairs.clean, clean, corrupted, metric, steps)
    return {"scores": found.tolist(), "dtype": str(found.dtype).removeprefix("torch.")}


def _parts(model: Model, pairs: Pairs, metric: Metric | None, batch_size: int) -> Iterator[tuple[Pairs, Metric]]:
    """Batches of pairs with the metric of each; of one length where a model does not see what is padding."""
    for part in pairs.batches(batch_size, one_length=not model.honours_padding):
        yield part, part.metric() if metric is None else metric


def _share(rows: Float[np.ndarray, "pair 2"]) -> float:
    return float(rows[:, 0].sum() / rows[:, 1].sum())


def _layer_of(name: str, n_layers: int) -> int:
    """The layer of a node by its name."""
    if name in ("embed", "logits"):
        return -1 if name == "embed" else n_layers
    return int(name[1:].split(".")[0])
