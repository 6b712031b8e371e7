"""Which places, heads or neurons a metric hangs on: activation and attribution patching, integrated gradients."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch

from dlens.checks import as_path, check_fields, quoted, require_word
from dlens.files import write_text
from dlens.findings.circuits.cells import Cells, cells_of
from dlens.findings.circuits.contrasts import Contrast, contrast_of, masked_draws
from dlens.findings.circuits.scoring import METHODS, Question, Scores
from dlens.findings.layers.profile import dataset_from_json, dataset_to_json
from dlens.metrics import Metric
from dlens.models.model import Model
from dlens.ops.base.given import Indices, as_index
from dlens.tracing.chain import Trace, trace
from dlens.tracing.records.text import pieces

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["MOST_CELLS", "Attribution", "attribute"]

MOST_CELLS = 4096
"""The most cells that patching takes, as each is a run of its own."""

_ESTIMATORS = {
    "patching": "m(clean run with the cell from the corrupted run) - m(clean run)",
    "attribution": "sum of (corrupted - clean) x dm/dvalue in the clean run",
    "integrated": "sum of (corrupted - clean) x dm/dvalue, averaged over {steps} mixtures of both embeddings; the last "
    "is the clean text",
}


@final
@dataclass(frozen=True, eq=False)
class Attribution:
    """How much of a metric hangs on each cell of a hook point.

    Args:
        model: what was asked.
        at: the hook point.
        method: "patching", "attribution" or "integrated".
        data: "score" by pair and cell, "clean" and "corrupted", the metric of each pair. Positions are columns of the
            batch, in which shorter pairs are padded on the left; scores there are NaN.
        tokens: what stands in each column: the clean token, or both with an arrow; "" where pairs disagree.
        noise, seeds: the share of positions that were masked, and how many draws were averaged.
        plan: the operations that both runs had.

    Examples:
        >>> import dlens
        >>> metric = dlens.metrics.logit_difference(right=301, wrong=302)
        >>> found = dlens.attribute("trio/ar", "Once upon a time", "Once upon a hill", metric, method="attribution")
        >>> found.scores.dims, found.by_pair.dims, found.n, found.tokens[-1]
        (('layer', 'position'), ('pair', 'layer', 'position'), 1, ' time→ hill')
        >>> sorted(found.table()[0]), len(found.table())
        (['layer', 'model', 'position', 'score', 'token'], 64)
        >>> dlens.Attribution.from_json(found.to_json()).to_json() == found.to_json()
        True
    """

    model: str
    at: str
    method: str
    data: xr.Dataset
    tokens: tuple[str, ...]
    noise: float | None
    seeds: int
    plan: tuple[Mapping[str, Any], ...]

    def __post_init__(self) -> None:
        import xarray as xr

        check_fields(self, "let dlens.attribute make it", xr.Dataset)

    @property
    def by_pair(self) -> xr.DataArray:
        """The scores of each pair, averaged over draws of masks."""
        return self.data["score"]

    @property
    def scores(self) -> xr.DataArray:
        """The scores, averaged over the pairs that have the position."""
        return self.by_pair.mean("pair")

    @property
    def clean(self) -> float:
        """The metric on the clean texts, averaged over pairs."""
        return float(self.data["clean"].mean())

    @property
    def corrupted(self) -> float:
        """The metric on the corrupted texts, averaged over pairs."""
        return float(self.data["corrupted"].mean())

    @property
    def n(self) -> int:
        """How many pairs there are."""
        return int(self.data.sizes["pair"])

    def table(self) -> list[dict[str, Any]]:
        """One row for each cell, with its score, and the token where cells are positions."""
        scores = self.scores
        stacked = scores.stack(cell=scores.dims)
        rows = []
        for key, score in zip(stacked["cell"].values.tolist(), stacked.values.tolist(), strict=True):
            cell = dict(zip(map(str, scores.dims), key, strict=True))
            named = {"token": self.tokens[cell["position"]]} if "position" in cell else {}
            rows.append({"model": self.model} | cell | named | {"score": score})
        return rows

    def __str__(self) -> str:
        rows = [row for row in self.table() if row["score"] == row["score"]]
        largest = max(rows, key=lambda row: abs(row["score"]))
        where = ", ".join(f"{dim} {largest[dim]}" for dim in map(str, self.scores.dims))
        noise = "" if self.noise is None else f", {self.noise:.0%} masked, {self.seeds} draws"
        head = f"Attribution of {self.model} at {self.at} by {' and '.join(map(str, self.scores.dims))}, {self.method}"
        metric = f"metric {self.clean:.3g} clean, {self.corrupted:.3g} corrupted"
        words = [f"{head} (pairs: {self.n}{noise})", metric, *(entry["words"] for entry in self.plan)]
        return "; ".join([*words, f"largest {largest['score']:+.3g} at {where}"])

    __repr__ = __str__

    def to_json(self) -> str:
        """All of it as JSON text."""
        return json.dumps(vars(self) | {"data": dataset_to_json(self.data)})

    @staticmethod
    def from_json(text: str) -> Attribution:
        """The attribution that `to_json` wrote.

        Raises:
            ValueError: it is something else, or damaged.
        """
        try:
            entry = json.loads(text)
            entry |= {"tokens": tuple(entry["tokens"]), "plan": tuple(entry["plan"])}
            return Attribution(**entry | {"data": dataset_from_json(entry["data"])})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{quoted(text)} is no attribution ({error}); expected all of what Attribution.to_json wrote; write it "
                f"again, or give the text of the file and not its name"
            ) from error

    def save(self, path: str | Path) -> Path:
        """Write it as JSON, whole or not at all.

        Examples:
            >>> import dlens
            >>> from pathlib import Path
            >>> from tempfile import mkdtemp
            >>> metric = dlens.metrics.logit_difference(right=301, wrong=302)
            >>> found = dlens.attribute("trio/ar", "Once upon a time", "Once upon a hill", metric, method="attribution")
            >>> path = found.save(Path(mkdtemp()) / "time.json")
            >>> dlens.Attribution.from_json(path.read_text(encoding="utf-8")).tokens == found.tokens
            True
        """
        return write_text(as_path(path, "path"), self.to_json())


def attribute(
    model: Any,
    clean: Any,
    corrupted: Any,
    metric: Metric,
    at: str = "resid_post",
    method: str = "patching",
    *,
    layers: Indices = None,
    by: Sequence[str] | None = None,
    noise: float | None = None,
    seeds: int = 1,
    steps: int = 5,
    batch_size: int = 16,
) -> Attribution:
    """What a metric of the clean run hangs on: how it moves when a part takes its values from the corrupted run.

    With x what the clean run has in a cell and x' what the corrupted run has there, the score is

    - "patching": m(clean run with x') - m(clean run), exactly, a run for each cell in which the two differ
      (Meng et al., arXiv:2202.05262; Zhang and Nanda, arXiv:2309.16042);
    - "attribution": the sum of (x' - x) dm/dx in the clean run: two forwards and a backward pass for all cells
      together (Nanda 2023; Syed et al., arXiv:2310.10348);
    - "integrated": the same with the gradient averaged over `steps` mixtures of the two texts' embeddings, x' + k/K
      (x - x') for k = 1 to K, of which the last is the clean text (Hanna et al., arXiv:2403.17806).

    Measured on trio/ar, 8 problems of trio-math with one digit changed, logit difference of the digit copied: over all
    cells, scores correlate with those of "patching" by 0.84 (resid_post), 0.92 (attn_out), 0.78 (mlp_out) and 0.92 (z)
    for "attribution", and by 0.99, 0.97, 0.99 and 0.97 for "integrated" with 5 steps; the largest are too small, by
    "attribution" up to nine times. "patching" equals single runs of `.patch` to the bit in tests on a CPU; at
    "pattern", whose blocks run another attention kernel, within 1e-5.

    So a cell that carries what the clean text has and the corrupted lacks scores below 0 where the metric is higher on
    the clean text. Papers that patch clean values into the corrupted run have the other sign.

    Args:
        model: anything `dlens.trace` takes, or a trace with operations, which both runs then have.
        clean, corrupted: a text or several, in any form that `Trace.forward` takes; row by row as many tokens. A canvas
            of a denoising run goes in as token ids, such as `record.canvas[3]`.
        metric: of the logits, one number a row: one of `dlens.metrics`, or a function of one's own. It gets all pairs
            together, as many rows as there are clean texts.
        at: the hook point: the stream, what is added to it, or a point inside a block; "embed" has no layers.
        method: "patching", "attribution" or "integrated".
        layers: places; None is all.
        by: the axes that stay, of "layer", "position", "position_b" (keys, of "pattern"), "head", "kv_head" and
            "neuron"; values are exchanged over the others together. None is layer and head or neuron where the point
            has any, else layer and position.
        noise: the share of positions that are masked in both texts alike, for diffusion models; drawn among all
            positions, so that some draws may hide the difference, or what the metric reads.
        seeds: how many draws of masks are averaged.
        steps: mixtures, for "integrated".
        batch_size: rows of a forward, for "patching"; all pairs of a cell run together.

    Returns:
        Labelled scores; see `Attribution`.

    Raises:
        ValueError, IndexError: before anything is computed: pairs of unequal length, a point, axes or layers that the
            model lacks, or more than 4096 cells to patch.

    Examples:
        >>> import dlens
        >>> metric = dlens.metrics.logit_difference(right=301, wrong=302)
        >>> pair = ("Once upon a time", "Once upon a hill")
        >>> found = dlens.attribute("trio/diffusion", *pair, metric, at="z", layers=[3, 8], noise=0.25)
        >>> found.scores.dims, found.scores.shape
        (('layer', 'head'), (2, 3))
    """
    chain = model if isinstance(model, Trace) else trace(model)
    cells = cells_of(chain.target, at, layers, by)
    pairs = contrast_of(chain.model, clean, corrupted)
    _check(metric, method, steps, batch_size)
    if method == "patching":
        _refuse_many(chain, cells, pairs)
    question = Question(chain, cells, metric, steps, batch_size)
    draws = [METHODS[method](question, draw) for draw in masked_draws(chain.model, pairs, noise, seeds)]
    return Attribution(
        model=chain.model.name,
        at=at,
        method=method,
        data=_dataset(cells, pairs, draws, _ESTIMATORS[method].format(steps=steps)),
        tokens=_tokens(chain.model, pairs),
        noise=None if noise is None else float(noise),
        seeds=int(seeds),
        plan=tuple({"words": op.words(), **op.to_json()} for op in chain.ops),
    )


def _check(metric: Any, method: Any, steps: Any, batch_size: Any) -> None:
    require_word("method", method, METHODS)
    if not callable(metric):
        raise ValueError(
            f"metric={quoted(metric)}; expected f(logits, step) -> [batch]; pass one of dlens.metrics, such as "
            f"dlens.metrics.logit_difference(right, wrong)"
        )
    for name, number in {"steps": steps, "batch_size": batch_size}.items():
        if as_index(number, name) < 1:
            raise ValueError(f"{name}={number}; expected at least 1; give for example 5")


def _refuse_many(chain: Trace, cells: Cells, pairs: Contrast) -> None:
    """Refuse to patch more cells than anyone waits for."""
    target = chain.target
    sizes = {"layer": len(cells.layers), "position": pairs.width, "position_b": pairs.width}
    sizes |= {"head": target.n_heads, "kv_head": target.n_kv_heads}
    if "neuron" in cells.by:
        sizes["neuron"] = target.width(cells.at, cells.layers) or 0
    count = int(np.prod([sizes[axis] for axis in cells.by]))
    if count > MOST_CELLS:
        raise ValueError(
            f"patching {cells.at} by {', '.join(cells.by)} is {count} runs; expected at most {MOST_CELLS}, as each "
            f'cell is a run of its own; name fewer layers= or axes in by=, or pass method="attribution"'
        )


def _dataset(cells: Cells, pairs: Contrast, draws: Sequence[Scores], estimator: str) -> xr.Dataset:
    import xarray as xr

    score, clean, corrupted = (
        torch.stack([getattr(draw, part).double() for draw in draws]).mean(0).numpy()
        for part in ("by_pair", "clean", "corrupted")
    )
    dims = ("pair", *cells.by)
    coords = dict(zip(dims, map(range, score.shape), strict=True)) | ({"layer": cells.layers} if cells.layers else {})
    array = xr.DataArray(score, coords={dim: list(places) for dim, places in coords.items()}, dims=dims)
    for dim in ("position", "position_b"):
        if dim in dims:
            array = array.where(xr.DataArray(_real(pairs), dims=("pair", dim)))
    return xr.Dataset(
        {"score": array.transpose(*dims), "clean": ("pair", clean), "corrupted": ("pair", corrupted)},
        attrs={"estimator": estimator, "n": len(pairs)},
    )


def _real(pairs: Contrast) -> Any:
    """[pair, position], what is not padding."""
    return np.array([[place >= pairs.width - len(row) for place in range(pairs.width)] for row in pairs.clean])


def _tokens(model: Model, pairs: Contrast) -> tuple[str, ...]:
    """What stands in each column."""
    ids = torch.tensor(sorted({token for row in (*pairs.clean, *pairs.corrupted) for token in row}))
    spelt = {token: str(token) for token in ids.tolist()} | pieces(model, ids)
    columns: list[set[str]] = [set() for _ in range(pairs.width)]
    for row, other in zip(pairs.clean, pairs.corrupted, strict=True):
        for column, own, its in zip(range(pairs.width - len(row), pairs.width), row, other, strict=True):
            columns[column].add(spelt[own] if own == its else f"{spelt[own]}→{spelt[its]}")
    return tuple(found.pop() if len(found) == 1 else "" for found in columns)
