"""How repetitive a text is."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import nan
from statistics import fmean

__all__ = ["distinct", "repetition"]


def repetition(texts: Sequence[Sequence[Hashable]], n: int = 4) -> float:
    """Share of a text's n-grams that came before in it, averaged over texts; 0 where nothing comes twice.

    The seq-rep-n of Welleck et al. (arXiv 1908.04319). Texts of fewer than n tokens have no n-gram and are
    left out; NaN where there is no other.

    Examples:
        >>> repetition([[1, 2, 1, 2, 1], [1, 2, 3]], n=2)
        0.25
    """
    shares = [1 - len(set(grams)) / len(grams) for text in texts if (grams := _grams(text, n))]
    return fmean(shares) if shares else nan


def distinct(texts: Sequence[Sequence[Hashable]], n: int) -> float:
    """Different n-grams of all texts together, as a share of all their n-grams.

    After the distinct-n of Li et al. (arXiv 1510.03055), who divide by the number of tokens, which is larger for n
    above 1. It falls with the amount of text, so compare equal amounts; NaN where there is no n-gram.

    Examples:
        >>> distinct([[1, 2, 1, 2, 1], [1, 2, 3]], n=2)
        0.5
    """
    grams = [gram for text in texts for gram in _grams(text, n)]
    return len(set(grams)) / len(grams) if grams else nan


def _grams(text: Sequence[Hashable], n: int) -> list[tuple[Hashable, ...]]:
    return [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]
