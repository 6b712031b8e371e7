"""The tokens that a model reads while it is compressed: rows of one length, clean or with masks as in training."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from dlens.axes import TokenIds
from dlens.compression.recipe import Recipe
from dlens.models.model import Model
from dlens.tracing.planning.inputs import as_batch
from dlens.tracing.probes.calibration import calibration_texts

__all__ = ["calibration_rows"]

_FEWEST = 2


def calibration_rows(model: Model, recipe: Recipe, texts: Any = None) -> TokenIds:
    """Texts put end to end and cut into rows; for masked calibration each row is masked several times.

    A masked row draws its rate from 0 to 1, spread evenly over its repeats, and masks each token with that
    probability, as the published code of arXiv 2605.06366 does and as such models are trained.

    Args:
        model: whose tokenizer and mask token are used.
        recipe: how many rows of which length, and whether they are masked.
        texts: anything `Trace.forward` takes, token ids too; the shipped calibration text by default.

    Returns:
        [row, position].

    Raises:
        ValueError: fewer tokens than one row of two.

    Examples:
        >>> import dlens
        >>> rows = calibration_rows(dlens.load("trio/ar"), Recipe(method="wanda", sparsity=0.5, rows=3, length=8))
        >>> rows.shape
        torch.Size([3, 8])
    """
    batch = as_batch(model, calibration_texts() if texts is None else texts)
    tokens = torch.tensor(list(chain.from_iterable(ids[real] for ids, real in zip(batch.ids, batch.real, strict=True))))
    length = min(recipe.length, len(tokens), model.n_positions or recipe.length)
    if length < _FEWEST:
        raise ValueError(
            f"calibration text of {len(tokens)} token; expected at least {_FEWEST}, and some thousand for a good "
            f"result; give longer texts, or leave texts out for the text that ships with dlens"
        )
    rows = tokens[: len(tokens) // length * length].reshape(-1, length)
    if recipe.rows is not None:
        generator = torch.Generator().manual_seed(recipe.seed)
        rows = rows[torch.randperm(len(rows), generator=generator)[: recipe.rows].sort().values]
    return rows if recipe.calibration_of(model) == "clean" else _masked(rows, model, recipe)


def _masked(rows: TokenIds, model: Model, recipe: Recipe) -> Int[Tensor, "draw position"]:
    generator = torch.Generator().manual_seed(recipe.seed)
    mask = model.family.mask_token_id
    assert mask is not None
    start = torch.rand(len(rows), 1, generator=generator)
    found = []
    for repeat in range(recipe.repeats):
        hidden = torch.rand(rows.shape, generator=generator) < (repeat + start) / recipe.repeats
        found.append(rows.masked_fill(hidden, mask))
    return torch.cat(found)
