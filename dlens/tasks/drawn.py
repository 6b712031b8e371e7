"""Tasks whose problems are made up from a seed, and split by what they ask."""

from __future__ import annotations

import hashlib
import random
from abc import abstractmethod
from collections.abc import Sequence
from typing import final

from dlens.tasks.task import Problem, Task, check_drawn

__all__ = ["LEVELS", "TEST_LIMIT", "DrawnTask", "split_of"]

LEVELS = (1, 2, 3, 4)

# One key in so many belongs to the test split.
TEST_SHARE = 4
# Test prompts a level, at most. The scarcest, code of one step, has 198, so that drawing this many ends soon.
TEST_LIMIT = 150


class DrawnTask(Task):
    """Problems made up from a seed, in four levels of difficulty.

    Subclasses give `draw` and `score`; prompts end at a token boundary, without a space, and
    `max_new_tokens` is room for the longest answer in the tokenizer of the trio.
    """

    @abstractmethod
    def draw(self, rng: random.Random, steps: int) -> Problem:
        """Any problem of so many steps, of either split."""

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
        check_drawn(n, seed, split)
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

    Examples:
        >>> split_of("trio-math", "14 -10"), split_of("trio-math", "14 -11")
        ('train', 'test')
    """
    digest = hashlib.sha256(f"{name} {key}".encode()).digest()
    return "test" if int.from_bytes(digest[:8], "big") % TEST_SHARE == 0 else "train"


def _check(n: int, split: str, levels: Sequence[int]) -> None:
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
