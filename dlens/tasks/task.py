"""What a task is: seeded problems that are split by what they ask, and an exact score of a continuation."""

from __future__ import annotations

import hashlib
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

__all__ = ["LEVELS", "SPLITS", "TEST_LIMIT", "Problem", "Task", "split_of"]

LEVELS = (1, 2, 3, 4)
SPLITS = ("train", "test")

# One key in so many belongs to the test split.
TEST_SHARE = 4
# Test prompts a level, at most. The scarcest, code of one step, has 198, so that drawing this many ends soon.
TEST_LIMIT = 150


@final
@dataclass(frozen=True)
class Problem:
    """One problem.

    Args:
        prompt: text for the model; it ends at a token boundary, without a space.
        answer: the right continuation, worked, with the space that begins it.
        steps: operations that the answer takes, which is the level of difficulty.
        key: operations and numbers alone, without names, items and wording; it decides the split.
    """

    prompt: str
    answer: str
    steps: int
    key: str


class Task(ABC):
    """Problems of one kind, and how an answer is scored.

    Subclasses are values without state: `name`, `max_new_tokens` (room for the longest answer
    in the tokenizer of the trio), `draw` and `score`.
    """

    name: str
    max_new_tokens: int

    @abstractmethod
    def draw(self, rng: random.Random, steps: int) -> Problem:
        """Any problem of so many steps, of either split."""

    @abstractmethod
    def score(self, problem: Problem, continuation: str) -> bool:
        """Whether a continuation of the prompt answers the problem, exactly."""

    @final
    def problems(
        self, n: int, seed: int = 0, split: str = "test", levels: Sequence[int] = LEVELS
    ) -> tuple[Problem, ...]:
        """Draw problems of one split, in equal shares of the levels, which take turns.

        The same arguments give the same problems, and a larger n only adds to them. Prompts of
        the test split differ from each other; training problems may come again.

        Args:
            n: problems; in the test split at most 150 a level.
            seed: any integer.
            split: "train" or "test". A problem belongs to one of them by its key, whatever its
                names and items are, so the two share no key.
            levels: numbers of steps, of 1, 2, 3 and 4.

        Returns:
            Problem i has `levels[i % len(levels)]` steps.

        Raises:
            ValueError: n, split or levels is not one of those.
        """
        _check(n, split, levels)
        rng = random.Random(f"{self.name} {split} {seed}")
        seen: set[str] = set()
        drawn: list[Problem] = []
        while len(drawn) < n:
            problem = self.draw(rng, levels[len(drawn) % len(levels)])
            if split_of(self.name, problem.key) != split or (split == "test" and problem.prompt in seen):
                continue
            seen.add(problem.prompt)
            drawn.append(problem)
        return tuple(drawn)


def split_of(name: str, key: str) -> str:
    """The split of a problem: "test" for one key in four, by the SHA-256 of task and key.

    The rule needs no list, holds on every machine, and says of a training text that was made
    elsewhere whether it may be used.

    >>> split_of("trio-math", "14 -10"), split_of("trio-math", "14 -11")
    ('train', 'test')
    """
    digest = hashlib.sha256(f"{name} {key}".encode()).digest()
    return "test" if int.from_bytes(digest[:8], "big") % TEST_SHARE == 0 else "train"


def _check(n: int, split: str, levels: Sequence[int]) -> None:
    if split not in SPLITS:
        raise ValueError(f"split={split!r}; expected one of {', '.join(SPLITS)}; check the spelling")
    if not levels or len(set(levels)) < len(levels) or not set(levels) <= set(LEVELS):
        raise ValueError(
            f"levels={list(levels)}; expected some of {', '.join(map(str, LEVELS))}, each once; "
            f"leave levels out to take all"
        )
    if n < 1:
        raise ValueError(f"n={n}; expected at least 1 problem; {len(LEVELS)} have one of each level")
    if split == "test" and n > TEST_LIMIT * len(levels):
        raise ValueError(
            f"n={n} test problems of {len(levels)} levels; expected at most {TEST_LIMIT} a level, "
            f"{TEST_LIMIT * len(levels)} here; take fewer, or split='train', where problems may come again"
        )
