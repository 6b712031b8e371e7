"""trio-math: word problems of one to four steps, worked, with the result after `####`."""

from __future__ import annotations

import operator
import random
from typing import final

from dlens.tasks.drawn import DrawnTask
from dlens.tasks.task import Problem

__all__ = ["TrioMath"]

LARGEST_NUMBER = 60
LARGEST_ADDED = 40
LARGEST_MULTIPLIED = 30
LARGEST_TOTAL = 120

NAMES = tuple("Amy Anna Ben Dan Ella Jack Lily Lucy Max Mia Rose Sam Sue Tim Tom".split())
ITEMS = tuple("apples balls books coins cookies eggs flowers pens shells stars toys".split())
CHANGES = (
    ("+", "{name} buys {n} more."),
    ("+", "{name} finds {n} more."),
    ("-", "{name} gives away {n}."),
    ("*", "Then the number grows {n} times."),
    ("/", "{name} loses half."),
)
APPLY = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv}


@final
class TrioMath(DrawnTask):
    """Someone has some things, one to four changes follow; how many are there now?

    Numbers in the question are whole: 2 to 60 at the start, 1 to 40 added, 1 to 60 taken away, and
    2 to 4 times at most 30 things. Only an even number is halved. What there is after each step is
    between 1 and 120. The key is the start with the operations, so buying and finding are the same.

    Examples:
        >>> problem = TrioMath().problems(4)[1]
        >>> print(problem.prompt + problem.answer)
        Question: Ella has 26 cookies. Ella buys 11 more. Ella gives away 6. How many cookies does Ella have now?
        Answer: 26 + 11 = 37. 37 - 6 = 31. #### 31
        >>> TrioMath().score(problem, " 26 + 11 - 6 = 31. #### 31")
        True
    """

    name = "trio-math"
    max_new_tokens = 64

    def draw(self, rng: random.Random, steps: int) -> Problem:
        name, item = rng.choice(NAMES), rng.choice(ITEMS)
        start = total = rng.randint(2, LARGEST_NUMBER)
        sentences, work, key = [f"{name} has {start} {item}."], [], [str(start)]
        for _ in range(steps):
            sign, number, sentence = _change(rng, total)
            before, total = total, APPLY[sign](total, number)
            sentences.append(sentence.format(name=name, n=number))
            work.append(f"{before} {sign} {number} = {total}.")
            key.append(f"{sign}{number}")
        question = f"Question: {' '.join(sentences)} How many {item} does {name} have now?\nAnswer:"
        return Problem(question, f" {' '.join(work)} #### {total}", steps, " ".join(key))

    def score(self, problem: Problem, continuation: str) -> bool:
        """Whether what follows the first `####`, up to the end of its line, is the result.

        Spaces around the number do not count, nor does the working before `####` or any text on
        later lines.
        """
        return _result(continuation) == _result(problem.answer)


def _change(rng: random.Random, total: int) -> tuple[str, int, str]:
    """Sign, number and sentence of a change that keeps to the bounds, each sentence equally likely."""
    numbers = {
        "+": range(1, min(LARGEST_ADDED, LARGEST_TOTAL - total) + 1),
        "-": range(1, min(LARGEST_NUMBER, total - 1) + 1),
        "*": range(2, 5 if total <= LARGEST_MULTIPLIED else 2),
        "/": range(2, 3 - total % 2),
    }
    sign, sentence = rng.choice([change for change in CHANGES if numbers[change[0]]])
    return sign, rng.choice(numbers[sign]), sentence


def _result(text: str) -> str | None:
    """The text between the first `####` and the end of its line; None where there is no `####`."""
    _, mark, rest = text.partition("####")
    return rest.partition("\n")[0].strip(" ") if mark else None
