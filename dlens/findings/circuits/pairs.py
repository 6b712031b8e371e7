"""Pairs of a clean and a corrupted prompt, of one length, that ask for two answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from dlens.axes import Logits
from dlens.checks import as_flag, check_fields, refuse
from dlens.findings.circuits.questions import Question, questions
from dlens.findings.scores.batches import token_rows
from dlens.metrics import Metric, MetricStep, logit_difference
from dlens.models.load import load
from dlens.models.model import Model
from dlens.ops.base.given import as_index, as_seed
from dlens.tasks import Task

__all__ = ["Pairs", "pairs"]


@final
@dataclass(frozen=True)
class Pairs:
    """Clean and corrupted prompts as token ids, with the answers of both; made by `dlens.pairs`.

    Rows of a diffusion model end with a mask for each token of the answer that is not shown.

    Args:
        clean, corrupted: token ids of each prompt.
        right, wrong: the token that goes on in the clean and in the corrupted prompt.
        at: whose logits say so, counted from the row's first token: the last position, or the first mask.
        words: both prompts with both answers, for a reader.

    Examples:
        >>> import dlens
        >>> pairs = dlens.pairs("trio-code", "trio/ar", n=4)
        >>> print(pairs.words[1])
        # Take x, then triple it, then subtract 15|18.
        def g(x):
            return ((x * 3) - 15|18)
        <BLANKLINE>
        >>> len(pairs), len(pairs[:2]), pairs.at[1] == len(pairs.clean[1]) - 1
        (4, 2, True)
        >>> [len(part) for part in pairs.batches(3)]
        [3, 1]
    """

    clean: tuple[tuple[int, ...], ...]
    corrupted: tuple[tuple[int, ...], ...]
    right: tuple[int, ...]
    wrong: tuple[int, ...]
    at: tuple[int, ...]
    words: tuple[str, ...]

    def __post_init__(self) -> None:
        check_fields(self, "let dlens.pairs make them")
        counts = {name: len(values) for name, values in vars(self).items()}
        if len(set(counts.values())) > 1 or not self.clean:
            raise ValueError(
                f"pairs of {', '.join(f'{count} {name}' for name, count in counts.items())}; expected one of each for "
                f"every pair, and a pair; make them with dlens.pairs"
            )
        for number, (one, other, at) in enumerate(zip(self.clean, self.corrupted, self.at, strict=True)):
            if len(one) != len(other) or not 0 <= at < len(one):
                raise ValueError(
                    f"pair {number} has {len(one)} and {len(other)} tokens and asks at {at}; expected as many, and one "
                    f"of them; change words for others of as many tokens"
                )

    def __len__(self) -> int:
        return len(self.clean)

    def __getitem__(self, chosen: slice | Sequence[int]) -> Pairs:
        """Some of the pairs."""
        numbers = range(len(self))[chosen] if isinstance(chosen, slice) else chosen
        return Pairs(**{name: tuple(values[number] for number in numbers) for name, values in vars(self).items()})

    def metric(self) -> Metric:
        """How much larger the logit of the right token is than that of the wrong one, for rows of these pairs.

        Examples:
            >>> import dlens
            >>> pairs = dlens.pairs("trio-math", "trio/ar", n=2)
            >>> trace = dlens.trace("trio/ar").gradient("embed", of=pairs.metric())
            >>> bool(trace.forward([list(row) for row in pairs.clean]).metric.mean() > 0)
            True
        """

        def metric(logits: Logits, step: MetricStep) -> Tensor:
            at = torch.tensor(self.at, device=step.real.device)[:, None]
            where = step.real & (step.real.long().cumsum(-1) - 1 == at)
            return logit_difference(list(self.right), list(self.wrong), where)(logits, step)

        return metric

    def batches(self, batch_size: int, one_length: bool = False) -> Iterator[Pairs]:
        """Parts of at most so many pairs, in order; with `one_length` those of one length together."""
        if as_index(batch_size, "batch_size") < 1:
            refuse("batch_size", batch_size, "at least 1, pairs at a time", "give for example 16")
        groups: dict[int, list[int]] = {}
        for number, row in enumerate(self.clean):
            groups.setdefault(len(row) if as_flag(one_length, "one_length") else 0, []).append(number)
        for numbers in groups.values():
            for start in range(0, len(numbers), batch_size):
                yield self[numbers[start : start + batch_size]]


def pairs(source: str | Task, model: Any, n: int = 16, seed: int = 0) -> Pairs:
    """Pairs of prompts that differ in little and ask for two answers.

    Args:
        source: a task, or its name: in each problem one number is changed that the answer takes up, such as
            "trio-math" and "trio-code"; "ioi": sentences of two names after which one of them follows (Wang et al.,
            arXiv:2211.00593), for models that know English; or a .jsonl file with `clean`, `corrupted`, `right` and
            `wrong`, of which the first n pairs are taken.
        model: anything `dlens.load` takes; its tokenizer decides which prompts are of one length.
        n: how many pairs.
        seed: of what is drawn; a larger n only adds to the pairs.

    Returns:
        Pairs up to where the answers part: both rows hold the tokens that begin both answers.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no such source, too few pairs, or a pair of a file that is not of one length.

    Examples:
        >>> import dlens
        >>> pairs = dlens.pairs("trio-math", "trio/diffusion", n=2)
        >>> print(pairs.words[0])
        Question: Rose has 37 toys. Rose gives away 26|18. How many toys does Rose have now?
        Answer: 37 - 26|18 = 11. #### 11
    """
    model = load(model)
    if as_index(n, "n") < 1:
        raise ValueError(f"n={n}; expected at least 1, the number of pairs; give 16")
    made, given = [], questions(source, as_seed(seed), model.tokenizer)
    for question in given:
        rows = _rows(model, question)
        reason = _unfit(rows)
        if reason is None:
            made.append(_pair(model, question, rows))
        elif question.chosen:
            raise ValueError(
                f"{question.clean!r} and {question.corrupted!r} {reason}; expected prompts of one length after which "
                f"two tokens can follow; change words for others of as many tokens"
            )
        if len(made) == n:
            break
    if len(made) < n:
        raise ValueError(f"{source} has {len(made)} pairs for {model.name}; expected n={n}; ask for fewer")
    return Pairs(*map(tuple, zip(*made, strict=True)))


def _rows(model: Model, question: Question) -> list[list[int]]:
    """Token ids of both prompts, of the clean one with both answers, and of the corrupted one with the right answer."""
    clean, corrupted, right, wrong = question.clean, question.corrupted, question.right, question.wrong
    return token_rows(model, [clean, corrupted, clean + right, clean + wrong, corrupted + right])


def _unfit(rows: list[list[int]]) -> str | None:
    """Why these are no pair."""
    clean, corrupted, right, wrong, other = rows
    if len(clean) != len(corrupted):
        return f"have {len(clean)} and {len(corrupted)} tokens"
    if clean == corrupted:
        return "are the same tokens"
    starts = [clean, clean, corrupted]
    if any(row[: len(start)] != start for row, start in zip(rows[2:], starts, strict=True)):
        return "end within a token of the answer"
    parts = _part(right, wrong)
    if parts is None:
        return "have answers of which one begins the other"
    if other[len(clean) : parts] != right[len(clean) : parts]:
        return "make other tokens of the right answer"
    return None


def _part(one: list[int], other: list[int]) -> int | None:
    """Where two rows of tokens part; None where one of them ends first."""
    return next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)


def _pair(model: Model, question: Question, rows: list[list[int]]) -> tuple[Any, ...]:
    """The fields of one pair."""
    _, _, right, wrong, other = rows
    parts = _part(right, wrong)
    assert parts is not None
    masks, at = [], parts - 1
    if model.family.objective == "diffusion":
        masks, at = [model.family.mask_token_id] * (len(right) - parts), parts
    clean, corrupted = ((*row[:parts], *masks) for row in (right, other))
    return clean, corrupted, right[parts], wrong[parts], at, question.words()
