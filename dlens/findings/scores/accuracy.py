"""How many problems of a task a model solves, with or without operations."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np

from dlens.checks import as_flag, quoted, whole
from dlens.findings.scores.batches import length_batches, token_rows
from dlens.findings.scores.decoding import Decoding
from dlens.models.identity import reading
from dlens.models.model import Model
from dlens.samplers import Sampler
from dlens.tasks import Problem, Task, get
from dlens.tasks.task import task_identity
from dlens.tracing.chain import Trace
from dlens.tracing.planning.kv_cache import Caching
from dlens.tracing.progress import quiet
from dlens.tracing.records.record import Record

__all__ = [
    "Scores",
    "answer_tokens",
    "refuse_long_problems",
    "refuse_other_answers",
    "score_problems",
    "score_task",
]

_DEFAULT = Decoding()


@final
@dataclass(frozen=True, eq=False)
class Scores:
    """What a model answered to some problems, in their order.

    Args:
        task: its name.
        problems: what was asked.
        texts: per problem the whole continuation.
        correct: per problem whether it is right.
        lengths: per problem the tokens of the answer; in AR decoding up to its end of sequence, which counts.
        seconds: wall-clock time of decoding, all batches together, scoring left out; of one run, so no benchmark.
        flops, saved_flops: of all batches, as a record counts them; None where they were not to be counted.
        plan: the operations with all that was found when the run started.
        notes: what the runs did differently from what one may expect.
        unfired: operations whose steps never came in some batch.
        fingerprint: of the model, without the operations.
        reading: how the model read and wrote text, in one name.
        rules: the name of the task by its code, its settings and what it holds.
        decoding: how it answered; None where it is not known.

    Examples:
        >>> import dlens
        >>> scores = score_task(dlens.trace("trio/ar"), "trio-math", n=2, max_new_tokens=4)
        >>> scores.n, len(scores.correct), scores.lengths
        (2, 2, (4, 4))
    """

    task: str
    problems: tuple[Problem, ...] = field(repr=False)
    texts: tuple[str, ...] = field(repr=False)
    correct: tuple[bool, ...] = field(repr=False)
    lengths: tuple[int, ...] = field(repr=False)
    seconds: float
    flops: int | None
    saved_flops: int | None
    plan: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    unfired: tuple[str, ...]
    fingerprint: str = ""
    reading: str = field(default="", repr=False)
    rules: str = field(default="", repr=False)
    decoding: Decoding | None = field(default=None, repr=False)

    @property
    def n(self) -> int:
        """Number of problems."""
        return len(self.problems)

    @property
    def accuracy(self) -> float:
        """Share of the problems that were solved."""
        return sum(self.correct) / self.n


def score_task(
    trace: Trace,
    task: Task | str,
    n: int = 64,
    seed: int = 0,
    *,
    split: str = "test",
    sampler: Sampler | None = None,
    max_new_tokens: int | None = None,
    cache: Caching = "auto",
    batch_size: int = 16,
    count_flops: bool = False,
    progress: bool = True,
) -> Scores:
    """Let a model answer problems of a task, and score the answers.

    Traces that are scored with the same arguments answer the same problems in the same batches,
    with the same random draws where the sampler makes any, so their scores are paired.

    Args:
        trace: the model with whatever operations it has.
        task: a task, or its name.
        n: problems.
        seed: draws the problems, and seeds the sampler.
        split: "test" or "train".
        sampler, max_new_tokens, cache, batch_size, progress: see `dlens.findings.scores.decoding.Decoding`.
        count_flops: count FLOPs, which runs some more forwards after each batch.

    Raises:
        ValueError: before anything is computed.

    Examples:
        >>> import dlens
        >>> scores = score_task(dlens.trace("trio/ar"), "trio-math", n=8, max_new_tokens=4)
        >>> scores.n, len(scores.texts), scores.accuracy
        (8, 8, 0.0)
    """
    task = get(task)
    decoding = Decoding(sampler, max_new_tokens, cache, batch_size, seed, progress)
    return score_problems(trace, task, task.problems(n, seed, split), decoding, count_flops=count_flops)


def score_problems(
    trace: Trace,
    task: Task,
    problems: Sequence[Problem],
    decoding: Decoding = _DEFAULT,
    *,
    count_flops: bool = False,
    cancel: threading.Event | None = None,
) -> Scores:
    """Let a model answer problems that were drawn before, and score the answers.

    Problems with prompts of similar length are decoded together, the longest first; a model that
    does not hide padding gets prompts of one length at a time.

    Args:
        trace: the model with whatever operations it has.
        task: what scores the answers.
        problems: at least one.
        decoding: how; random draws differ from batch to batch.
        count_flops: count FLOPs, which runs some more forwards after each batch.
        cancel: when set, scoring ends with `Cancelled` between two steps.

    Raises:
        ValueError: before anything is computed; also where the task's score of a right answer is neither True nor
            False.
    """
    count_flops = as_flag(count_flops, "count_flops")
    if not problems:
        raise ValueError("got no problems; expected at least one; draw some with task.problems(64)")
    rows = token_rows(trace.model, [problem.prompt for problem in problems])
    # What is no score is found before anything is decoded.
    _scored(task, problems[0], problems[0].answer)
    decoding = decoding.of(task)
    texts, correct, lengths = [""] * len(rows), [False] * len(rows), [0] * len(rows)
    totals = _Totals(0, 0) if count_flops else _Totals(None, None)
    with _bar(len(rows), decoding.progress) as bar:
        for number, indices in enumerate(length_batches(trace.model, rows, decoding.batch_size)):
            own_seed = random.Random(f"{decoding.seed} {number}").getrandbits(32)
            record = decoding.generate(trace, [rows[i] for i in indices], own_seed, cancel)
            answered = (~record.is_pad & ~record.is_prompt).sum(-1).tolist()
            for i, text, length in zip(indices, record.text, answered, strict=True):
                texts[i], correct[i], lengths[i] = text, _scored(task, problems[i], text), length
            totals.add(record)
            bar.update(len(indices))
    return Scores(
        task=task.name,
        problems=tuple(problems),
        texts=tuple(texts),
        correct=tuple(correct),
        lengths=tuple(lengths),
        fingerprint=trace.model.fingerprint(),
        reading=reading(trace.model),
        rules=task_identity(task),
        decoding=decoding,
        **vars(totals),
    )


def _scored(task: Task, problem: Problem, text: str) -> bool:
    """Whether an answer is right.

    Raises:
        ValueError: the task says something else than yes or no.
    """
    found = task.score(problem, text)
    if isinstance(found, (bool, np.bool_)) or whole(found) in (0, 1):
        return bool(found)
    raise ValueError(
        f"{type(task).__name__}.score said {quoted(found)} of an answer to {quoted(problem.prompt)}; expected True or "
        f"False, as accuracy counts right answers; return for example score > 0.5"
    )


def refuse_other_answers(model: Model, task: Task, decoding: Decoding, before: Scores | None) -> None:
    """Refuse answers, where there are any, that are not those of a model as it is, decoded and scored in the same way.

    Raises:
        ValueError: says what differs.
    """
    if before is None or before.decoding is None:
        return
    was, now = before.decoding, decoding
    differs = {
        f"operations ({'; '.join(entry['words'] for entry in before.plan)})": bool(before.plan),
        "another model": before.fingerprint != model.fingerprint(),
        "another tokenizer, family or padding": before.reading != reading(model),
        f"other rules of {task.name} (its code, its settings or what it holds)": before.rules != task_identity(task),
        f"answers of {was.length} tokens": was.length != now.length,
        f"sampler {was.sampler}": was.sampler != now.sampler,
        f"seed {was.seed}": was.seed != now.seed,
        # Words name caches that change no token.
        f"cache {was.cache}": was.cache != now.cache and not all(isinstance(c, str) for c in (was.cache, now.cache)),
        # Draws differ from batch to batch; the default samplers make none.
        f"batches of {was.batch_size}": now.sampler is not None and was.batch_size != now.batch_size,
    }
    if found := [words for words, other in differs.items() if other]:
        raise ValueError(
            f"a baseline with {', '.join(found)}; expected {model.name} as it is, with answers of {now.length} tokens "
            f"by sampler {now.sampler}, cache {now.cache}, seed {now.seed} and batches of {now.batch_size}; score it "
            f"with the same arguments, and without operations, or leave it out"
        )


def refuse_long_problems(model: Model, task: Task, problems: Sequence[Problem], new_tokens: int | None = None) -> None:
    """Refuse problems that do not fit into a model's context with their answers.

    Args:
        model: what answers.
        task: whose problems they are.
        problems: that were drawn.
        new_tokens: of an answer; the task's by default.

    Raises:
        ValueError: nothing was computed.
    """
    longest = max(map(len, token_rows(model, [problem.prompt for problem in problems])))
    longest += task.max_new_tokens if new_tokens is None else new_tokens
    if model.n_positions is not None and longest > model.n_positions:
        raise ValueError(
            f"{task.name} takes {longest} positions with its answers; expected at most {model.n_positions}, which "
            f"{model.name} has; take another task, or fewer shots (shots=, --shots)"
        )


def answer_tokens(model: Model, scores: Scores) -> list[list[int]]:
    """The answers as token ids, read anew from their text."""
    return [model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in scores.texts]


@final
@dataclass
class _Totals:
    """What the records of all batches come to, without the records; no FLOPs where they are None."""

    flops: int | None
    saved_flops: int | None
    seconds: float = 0.0
    plan: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    unfired: tuple[str, ...] = ()

    def add(self, record: Record) -> None:
        self.seconds += record.seconds
        if self.flops is not None and self.saved_flops is not None:
            self.flops += record.flops
            self.saved_flops += record.saved_flops
        self.plan = record.plan
        self.notes = tuple(dict.fromkeys(self.notes + record.notes))
        self.unfired = tuple(dict.fromkeys(self.unfired + record.unfired))


def _bar(total: int, progress: bool) -> Any:
    from tqdm.auto import tqdm

    return tqdm(total=total, unit="problem", delay=1.0, leave=False, disable=quiet(progress))
