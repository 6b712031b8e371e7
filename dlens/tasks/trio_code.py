"""trio-code: one to four arithmetic steps, to be composed into the body of a Python function."""

from __future__ import annotations

import random
from typing import final

from dlens.tasks.drawn import DrawnTask
from dlens.tasks.expression import evaluate
from dlens.tasks.task import Problem

__all__ = ["TrioCode"]

LARGEST_NUMBER = 60

FUNCTIONS = ("f", "g", "h", "run", "calc", "step")
# Wording, expression and key of each operation; `{n}` is a number where there is one.
OPERATIONS = (
    ("add {n}", "({x} + {n})", "+{n}"),
    ("subtract {n}", "({x} - {n})", "-{n}"),
    ("double it", "({x} * 2)", "*2"),
    ("triple it", "({x} * 3)", "*3"),
    ("negate it", "(-{x})", "neg"),
)
# Ten points tell any two polynomials of degree below ten apart; a right answer has degree one.
POINTS = (-1009, -7, -2, -1, 0, 1, 2, 3, 10, 1013)


@final
class TrioCode(DrawnTask):
    """Take x, then add, subtract, double, triple or negate, one to four times.

    Numbers are whole and at most 60. The key is the operations in their order, without the name
    of the function. There are only 123 keys of one step, so test prompts of one step repeat a key
    under other function names.

    Examples:
        >>> problem = TrioCode().problems(4)[1]
        >>> print(problem.prompt + problem.answer.rstrip())
        # Take x, then triple it, then subtract 15.
        def g(x):
            return ((x * 3) - 15)
        >>> TrioCode().score(problem, problem.answer)
        True
    """

    name = "trio-code"
    max_new_tokens = 32

    def draw(self, rng: random.Random, steps: int) -> Problem:
        words, key, expression = ["Take x"], [], "x"
        for _ in range(steps):
            number = rng.randint(1, LARGEST_NUMBER)
            wording, written, short = rng.choice(OPERATIONS)
            words.append(wording.format(n=number))
            expression = written.format(x=expression, n=number)
            key.append(short.format(n=number))
        prompt = f"# {', then '.join(words)}.\ndef {rng.choice(FUNCTIONS)}(x):\n    return"
        return Problem(prompt, f" {expression}\n", steps, " ".join(key))

    def score(self, problem: Problem, continuation: str) -> bool:
        """Whether the first line is an expression that equals the right one at ten values of x.

        Any way to write it with whole numbers, x, +, -, * and parentheses counts; later lines do not.
        """
        wanted, given = (text.partition("\n")[0] for text in (problem.answer, continuation))
        try:
            return all(evaluate(given, x) == evaluate(wanted, x) for x in POINTS)
        except ValueError:
            return False
