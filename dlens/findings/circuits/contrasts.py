"""Clean and corrupted texts that correspond token by token, and the masks that they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor
from typing import Any

import torch

from dlens.checks import finite, quoted
from dlens.findings.scores.batches import rng, token_rows
from dlens.models.model import Model
from dlens.ops.base.given import as_index

__all__ = ["Contrast", "contrast_of", "masked_draws"]

Rows = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Contrast:
    """Pairs of texts as token ids, each as long as its other.

    Args:
        clean, corrupted: a row each for every pair.
    """

    clean: Rows
    corrupted: Rows

    def __len__(self) -> int:
        return len(self.clean)

    @property
    def width(self) -> int:
        """Positions of the longest pair; shorter ones are padded on the left."""
        return max(map(len, self.clean))


def contrast_of(model: Model, clean: Any, corrupted: Any) -> Contrast:
    """Read both sides of the pairs.

    Args:
        model: whose tokenizer is used.
        clean, corrupted: anything `Trace.forward` takes; row by row a pair.

    Raises:
        ValueError: not as many of both, or a pair of unequal length or without a difference.

    Examples:
        >>> import dlens
        >>> contrast_of(dlens.load("trio/ar"), [[5, 6, 7]], [[5, 9, 7]]).corrupted
        ((5, 9, 7),)
    """
    rows, others = token_rows(model, clean), token_rows(model, corrupted)
    if len(rows) != len(others):
        raise ValueError(
            f"got {len(rows)} clean texts and {len(others)} corrupted; expected as many, as they are compared row by "
            f"row; give one corrupted text for each"
        )
    for number, (row, other) in enumerate(zip(rows, others, strict=True)):
        if len(row) != len(other):
            raise ValueError(
                f"pair {number} has {len(row)} clean tokens and {len(other)} corrupted; expected equally many, as "
                f"values are exchanged position by position; change words to ones of as many tokens, or give token ids"
            )
        if row == other:
            raise ValueError(
                f"pair {number} is the same text twice; expected a difference, without which every score is 0; change "
                f"a token of it"
            )
    return Contrast(tuple(map(tuple, rows)), tuple(map(tuple, others)))


def masked_draws(model: Model, pairs: Contrast, noise: float | None, seeds: int) -> list[Contrast]:
    """The pairs with a share of their positions masked, the same ones in both texts, once for each seed.

    Positions are drawn among all, so that a difference may be hidden; their number is rounded down.

    Args:
        model: whose mask token it is.
        pairs: the texts.
        noise: the share; None leaves them as they are.
        seeds: how many draws; seeds 0 to seeds - 1.

    Raises:
        ValueError: an autoregressive model, no share, several seeds without noise, or draws that hide all differences.
    """
    _check(model, noise, seeds)
    mask = model.family.mask_token_id
    if noise is None or mask is None:
        return [pairs]
    draws = [_masked(pairs, noise, mask, seed) for seed in range(seeds)]
    if all(draw.clean == draw.corrupted for draw in draws):
        raise ValueError(
            f"noise={noise} with {seeds} seeds masks every token in which clean and corrupted texts differ; expected "
            f"one that is seen; take less noise, more seeds, or give canvases as token ids"
        )
    return draws


def _masked(pairs: Contrast, noise: float, mask: int, seed: int) -> Contrast:
    generator = rng(seed)
    hidden = []
    for row in pairs.clean:
        n_masked = floor(noise * len(row) + 1e-9)
        hidden.append(set(torch.randperm(len(row), generator=generator)[:n_masked].tolist()))
    return Contrast(_hidden(pairs.clean, hidden, mask), _hidden(pairs.corrupted, hidden, mask))


def _hidden(rows: Rows, hidden: Sequence[set[int]], mask: int) -> Rows:
    return tuple(
        tuple(mask if place in own else token for place, token in enumerate(row))
        for row, own in zip(rows, hidden, strict=True)
    )


def _check(model: Model, noise: Any, seeds: Any) -> None:
    if as_index(seeds, "seeds") < 1 or (noise is None and seeds > 1):
        raise ValueError(
            f"seeds={seeds} with noise={noise}; expected at least 1, and more only where masks are drawn; give noise=, "
            f"or leave seeds= out"
        )
    if noise is None:
        return
    if model.family.objective != "diffusion":
        raise ValueError(
            f"noise={quoted(noise)} on {model.name}; expected a diffusion model, as an autoregressive model has no "
            f"masks; leave noise= out"
        )
    share = finite(noise)
    if share is None or not 0 <= share < 1:
        raise ValueError(
            f"noise={quoted(noise)}; expected a share of positions from 0 to below 1; give for example 0.5"
        )
