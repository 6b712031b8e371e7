"""Where pairs of prompts come from: tasks with a number changed, sentences about two names, files."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from dlens.checks import quoted
from dlens.tasks import Task, get, names
from dlens.tasks.entries import read_entries
from dlens.tasks.task import Problem

__all__ = ["Question", "questions"]

_NUMBER = re.compile(r"\d+")
# No number of the trio's tasks is larger.
_LARGEST = 60
# Sentences of names, with those that come again.
_DRAWS = 10_000

_NAMES = tuple(
    "Amy Anna Ben Bob Dan David Ella Emma Jack James Jane John Kate Lily Lucy Mark Mary Max Mia Paul Peter Rose Sam "
    "Sarah Sue Tim Tom".split()
)
_PLACES = tuple("park store house garden school".split())
_THINGS = tuple("ball book flower cake toy".split())
_SENTENCES = (
    "When {0} and {1} went to the {place}, {last} gave a {thing} to",
    "Then {0} and {1} went to the {place}. {last} gave a {thing} to",
    "{0} and {1} were at the {place}, and {last} wanted to give a {thing} to",
)


@final
@dataclass(frozen=True)
class Question:
    """Two prompts and the answers to them.

    Args:
        clean, corrupted: the prompts.
        right, wrong: the answers, with the space that begins them.
        chosen: whether a user chose it, so that it may not be left out.
    """

    clean: str
    corrupted: str
    right: str
    wrong: str
    chosen: bool = False

    def words(self) -> str:
        """Both prompts and both answers, with a bar where they differ."""
        return f"{_merged(self.clean, self.corrupted)}{_merged(self.right, self.wrong)}"


def questions(source: str | Task, seed: int, tokenizer: Any) -> Iterator[Question]:
    """Questions of a source, in an order that does not depend on how many are taken.

    Args:
        source: as in `dlens.pairs`.
        seed: of what is drawn.
        tokenizer: decides which names are single tokens.
    """
    if isinstance(source, str) and source.endswith(".jsonl"):
        return _of_file(Path(source))
    if isinstance(source, str) and source == "ioi":
        return _of_names(seed, tokenizer)
    if isinstance(source, str) and source not in names() and ":" not in source:
        raise ValueError(
            f"pairs of {quoted(source)}; expected {', '.join(names())}, 'ioi', a task or the path of a .jsonl file; "
            f"check the spelling"
        )
    return _of_task(get(source), seed)


def _of_file(path: Path) -> Iterator[Question]:
    fields = ("clean", "corrupted", "right", "wrong")
    for entry in read_entries(path, dict.fromkeys(fields, str)):
        yield Question(**{field: entry[field] for field in fields}, chosen=True)


def _of_names(seed: int, tokenizer: Any) -> Iterator[Question]:
    """The name that the second part of a sentence does not begin with follows; the corrupted one begins with it."""
    known = [name for name in _NAMES if len(tokenizer(f" {name}", add_special_tokens=False)["input_ids"]) == 1]
    if len(known) < 2:
        raise ValueError(
            f"the tokenizer has {len(known)} of {len(_NAMES)} names as single tokens; expected two; give pairs of your "
            f"own in a .jsonl file"
        )
    rng, seen = random.Random(f"ioi {seed}"), set()
    for _ in range(_DRAWS):
        two = rng.sample(known, 2)
        sentence, last, follows = rng.choice(_SENTENCES), *rng.sample(two, 2)
        told = {"place": rng.choice(_PLACES), "thing": rng.choice(_THINGS)}
        clean, corrupted = (sentence.format(*two, last=name, **told) for name in (last, follows))
        if clean not in seen:
            yield Question(clean, corrupted, f" {follows}", f" {last}")
        seen.add(clean)


def _of_task(task: Task, seed: int) -> Iterator[Question]:
    """Every problem in which a number can be changed, drawn in parts that grow."""
    done, count = 0, 32
    while True:
        problems = task.problems(count, seed)
        for problem in problems[done:]:
            question = _changed(problem, random.Random(f"{seed} {problem.prompt}"))
            if question is not None:
                yield question
        done, count = count, 2 * count


def _changed(problem: Problem, rng: random.Random) -> Question | None:
    """The problem with one number changed, that prompt and answer have once: the answer is the same up to there."""
    asked, answered = (_NUMBER.findall(text) for text in (problem.prompt, problem.answer))
    single = [number for number in asked if asked.count(number) == answered.count(number) == 1]
    if not single:
        return None
    old = rng.choice(single)
    numbers = range(max(1, 10 ** (len(old) - 1)), min(10 ** len(old), max(int(old), _LARGEST) + 1))
    free = [str(number) for number in numbers if str(number) not in (*asked, *answered)]
    if not free:
        return None
    new = rng.choice(free)
    corrupted, wrong = (re.sub(rf"(?<!\d){old}(?!\d)", new, text) for text in (problem.prompt, problem.answer))
    return Question(problem.prompt, corrupted, problem.answer, wrong)


def _merged(one: str, other: str) -> str:
    """Two texts word by word, with a bar between words that differ."""
    own, others = (re.split(r"(\W+)", text) for text in (one, other))
    if len(own) != len(others):
        return f"{one}|{other}"
    return "".join(a if a == b else f"{a}|{b}" for a, b in zip(own, others, strict=True))
