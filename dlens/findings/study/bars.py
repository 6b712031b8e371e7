"""What a paper says of one kind of model as an inequality, and what an interval decides of it."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from typing import Literal, final

from dlens.findings.scores.estimate import Estimate
from dlens.findings.scores.intervals import ratio_interval
from dlens.findings.study.estimates import Measure

__all__ = ["OURS", "Bar", "Verdict", "limit_of", "verdict_of"]

Verdict = Literal["holds", "does not hold", "undecided"]
_PAIRS = (("yes", "no"), ("kept", "not kept"), ("breaks", "does not break"), ("more", "less"))
_OPPOSITES = {a: b for pair in _PAIRS for a, b in (pair, pair[::-1])}
OURS = " (our bar)"
"""After an inequality whose margin is dlens's."""
# No report asks as many.
_MOST_PROBLEMS = 10_000


@final
@dataclass(frozen=True)
class Bar:
    """What a paper says of one kind of model, as an inequality that says the same.

    Args:
        words: what it says; {margin}, or {percent} for a share, where the margin is named.
        sign: on which side of the margin the effect is to lie.
        margin: in the unit of the effect.
        ours: whether the margin is dlens's; False where a paper names it, or the sentence is one of more or less.
        claimed: whether it says so; False where it says nothing of this kind, and another's bar is taken.
        reported: figures of the paper's models, as others who wrote of the paper give them.
        measure: the effect, where it is another than that of the claim's other kinds.
        unit: of that effect.
        otherwise: what is so on the other side of the margin, where that is not the opposite of what is claimed.
        inferred: from what it follows, where the papers say it of no such model; empty where they say it.
        found: what is so on this side of the margin, where nobody claims it.
    """

    words: str
    sign: Literal["<", ">"]
    margin: float
    ours: bool = False
    claimed: bool = True
    reported: str = ""
    measure: Measure | None = None
    unit: str = ""
    otherwise: str = ""
    inferred: str = ""
    found: str = "yes"

    @property
    def says(self) -> str:
        """What it says, with its margin."""
        return self._with_margin(self.words)

    def answer(self, verdict: Verdict) -> str:
        """What a verdict answers to the question, and whether that is as claimed.

        Examples:
            >>> bar = Bar("no, less than {percent} is kept", "<", 0.9)
            >>> [bar.answer(verdict) for verdict in ("holds", "does not hold", "undecided")]
            ['no, as claimed', 'yes, against the claim', 'undecided']
            >>> Bar("not kept, less than {percent}", "<", 0.9).answer("does not hold")
            'kept, against the claim'
        """
        if verdict == "undecided":
            return verdict
        claimed = self.says.partition(",")[0] if self.claimed else self.found
        found = claimed if verdict == "holds" else self._with_margin(self.otherwise) or _opposite(claimed)
        as_said, against = (
            ("as inferred", "against what is inferred") if self.inferred else ("as claimed", "against the claim")
        )
        return f"{found}, {as_said if verdict == 'holds' else against}" if self.claimed else found

    def beyond(self) -> str:
        """Which of the papers' own shares are not on the side of the margin that they claim; empty where none is.

        Examples:
            >>> Bar("no, less than {percent}", "<", 0.5, reported="A: 34.9 % of GSM8K, 64.7 % of HumanEval").beyond()
            "the papers' own 64.7 % of HumanEval is not below this bar"
        """
        if self.measure is not None or "{percent}" not in self.words:
            return ""
        own = re.findall(r"(([\d.]+) % of [\w-]+)", self.reported)
        over = [words for words, share in own if (float(share) / 100 > self.margin) != (self.sign == ">")]
        side = "below" if self.sign == "<" else "above"
        return f"the papers' own {_and(over)} {'is' if len(over) == 1 else 'are'} not {side} this bar" * bool(over)

    def _with_margin(self, words: str) -> str:
        return words.format(margin=f"{self.margin:g}", percent=f"{100 * self.margin:g} %")

    def __str__(self) -> str:
        return f"{self.sign} {self.margin:g}" + (OURS if self.ours else "")


def _opposite(claimed: str) -> str:
    """The opposite, or the same of the opposite of its first word."""
    if claimed in _OPPOSITES:
        return _OPPOSITES[claimed]
    word, space, rest = claimed.partition(" ")
    return _OPPOSITES[word] + space + rest


def _and(parts: Sequence[str]) -> str:
    *first, last = parts or [""]
    return f"{', '.join(first)} and {last}" if first else last


def verdict_of(effect: Estimate, bar: Bar) -> Verdict:
    """Whether the whole 95 % interval lies on the claimed side of the margin, on the other, or on both.

    Examples:
        >>> bar = Bar("", ">", 0.9)
        >>> [verdict_of(Estimate(0.95, low, high), bar) for low, high in ((0.92, 1.0), (0.8, 1.0), (0.5, 0.8))]
        ['holds', 'undecided', 'does not hold']
    """
    if not (isfinite(effect.low) and isfinite(effect.high)):
        return "undecided"
    above, below = effect.low > bar.margin, effect.high < bar.margin
    if above or below:
        return "holds" if above == (bar.sign == ">") else "does not hold"
    return "undecided"


def limit_of(effect: Estimate, bar: Bar, solved: int) -> str:
    """Why no answers to as many problems could put the interval on one side of the margin, and how many could.

    Empty where some could.

    Args:
        effect: a share of the accuracy.
        bar: the margin.
        solved: how many of the problems the model solves as it is.

    Examples:
        >>> limit = limit_of(Estimate(1.0, 0.7, 1.4, n=12, extremes=(0.5, 0.7)), Bar("", ">", 0.9), 11)
        >>> limit.partition(": it")[0]
        'cannot be confirmed with 12 problems of which 11 are solved without the change, whatever the answers with it'
    """
    least, most = effect.extremes
    below, above = least >= bar.margin, most <= bar.margin
    if not (below or above):
        return ""
    confirmed = below if bar.sign == "<" else above
    what = "decided" if below and above else "confirmed" if confirmed else "refuted"
    takes = [
        *_takes(bar.margin, True, "that all stay solved") * above,
        *_takes(bar.margin, False, "that are all lost") * below,
    ]
    needed = f": it takes {' or '.join(takes)}" if takes else ""
    before = f"of which {solved} {'is' if solved == 1 else 'are'} solved without the change"
    return f"cannot be {what} with {effect.n} problems {before}, whatever the answers with it{needed}"


def _takes(margin: float, kept: bool, words: str) -> list[str]:
    """How many solved problems decide at best; nothing where no number does."""
    n = _fewest(margin, kept)
    return [f"{n} solved ones {words}"] if n < _MOST_PROBLEMS else []


@lru_cache(maxsize=64)
def _fewest(margin: float, kept: bool) -> int:
    """How many solved problems put the interval on one side of a margin where all of them stay solved, or none."""

    def decided(n: int) -> bool:
        low, high = ratio_interval([True] * n, [kept] * n)
        return low > margin if kept else high < margin

    return 1 + bisect_left(range(1, _MOST_PROBLEMS), True, key=decided)
