"""Scores by hand."""

from __future__ import annotations

from collections.abc import Sequence

from dlens.findings.scores.accuracy import Scores
from dlens.tasks import Problem


def answers(
    correct: str, lengths: Sequence[int] | None = None, flops: int | None = None, saved: int | None = None
) -> Scores:
    """Answers of which "1" are right and "0" are wrong."""
    n = len(correct)
    return Scores(
        task="by hand",
        problems=tuple(Problem(f"{i}?", f" {i}", None, str(i)) for i in range(n)),
        texts=tuple(f" {i}" for i in range(n)),
        correct=tuple(answer == "1" for answer in correct),
        lengths=tuple(lengths or [1] * n),
        seconds=2.0,
        flops=flops,
        saved_flops=saved,
        plan=(),
        notes=(),
        unfired=(),
    )
