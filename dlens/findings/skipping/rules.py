"""Choose blocks by a number for each: pure rules, whatever the numbers mean."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import inf

__all__ = ["apart", "best", "best_run", "heaviest_apart", "paper_rule"]

Found = tuple[float, tuple[int, ...]]
"""The sum of a set of layers, and the layers."""


def apart(scores: Sequence[float], allowed: Collection[int], n: int) -> tuple[int, ...]:
    """Highest score first, passing over the neighbours of what was taken, until there are n.

    Args:
        scores: one for each layer.
        allowed: the layers to choose from.
        n: how many at most.

    Returns:
        The layers in the order they were taken.

    Examples:
        >>> apart([0.96, 0.99, 0.98, 0.97], range(4), 2)
        (1, 3)
    """
    taken: list[int] = []
    for layer in best(scores, allowed, len(scores)):
        if len(taken) < n and not {layer - 1, layer + 1}.intersection(taken):
            taken.append(layer)
    return tuple(taken)


def heaviest_apart(scores: Sequence[float], allowed: Collection[int], n: int) -> tuple[int, ...]:
    """The largest set of at most n layers, no two of them neighbours, and of these the one with the largest sum.

    Found exactly, by dynamic programming over the layers, where taking the highest first may block itself.

    Examples:
        >>> heaviest_apart([0.96, 0.99, 0.97], range(3), 2)
        (0, 2)
    """
    none: Found = (-inf, ())
    # below[i][k]: the sum and the layers of the best k layers among those before i.
    below: list[list[Found]] = [[(0.0, ()), *[none] * n]]
    for layer, score in enumerate(scores):
        left, before = below[layer], below[max(layer - 1, 0)]
        row = list(left)
        for k in range(1, n + 1) if layer in allowed else ():
            total, layers = before[k - 1]
            row[k] = max(left[k], (total + score, (*layers, layer)), key=lambda found: found[0])
        below.append(row)
    return next(layers for total, layers in reversed(below[-1]) if total > -inf)


def best(scores: Sequence[float], allowed: Collection[int], n: int) -> tuple[int, ...]:
    """The n layers of highest score, neighbours or not, highest first; of equals the first.

    Examples:
        >>> best([0.1, 0.9, 0.8, 0.9], range(4), 3)
        (1, 3, 2)
    """
    return tuple(sorted(allowed, key=lambda layer: (-scores[layer], layer))[:n])


def best_run(scores: Sequence[float], allowed: Collection[int], n: int) -> tuple[int, ...]:
    """The n consecutive layers that start where the score is highest; `scores[l]` is that of l to l + n - 1.

    Examples:
        >>> best_run([0.1, 0.9, 0.8], range(4), 2)
        (1, 2)
    """
    starts = [start for start in range(len(scores)) if all(start + i in allowed for i in range(n))]
    return tuple(first + i for first in best(scores, starts, 1) for i in range(n))


def paper_rule(
    scores: Sequence[float], allowed: Sequence[int], n: int, threshold: float | None
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Blocks above a threshold, the highest first and no two neighbours; exactly where that blocks itself.

    Returns:
        The layers in the order chosen, and notes.

    Examples:
        >>> paper_rule([0.96, 0.99, 0.97, 0.90], range(4), 2, 0.95)[0]
        (2, 0)
    """
    candidates = [layer for layer in allowed if threshold is None or scores[layer] > threshold]
    greedy, exact = apart(scores, candidates, n), heaviest_apart(scores, candidates, n)
    if len(exact) > len(greedy):
        note = f"the most similar first gives {len(greedy)}; of the sets of {len(exact)} the most similar was taken"
        return best(scores, exact, n), (note,)
    return greedy, ()
