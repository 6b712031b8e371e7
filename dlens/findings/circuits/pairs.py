"""Pairs of a clean and a corrupted prompt, of one length, that ask for two answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, final

import torch
from torch import Tensor

from dlens.axes import Logits
from dlens.checks import as_flag, check_fields, finite, quoted, refuse
from dlens.findings.circuits.questions import Question, questions
from dlens.findings.scores.batches import token_rows
from dlens.metrics import Metric, MetricStep, logit_difference
from dlens.models.load import load
from dlens.models.model import Model
from dlens.ops.base.given import as_index, as_seed
from dlens.tasks import Task
from dlens.tracing.chain import trace

__all__ = ["Pairs", "pairs"]


@final
@dataclass(frozen=True)
class Pairs:
    """Clean and corrupted prompts as token ids, with the answers of both; made by `dlens.pairs`.

    Rows of a diffusion model go on to the end of the answer, with a mask for each token of it that is not shown.

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


def pairs(source: str | Task, model: Any, n: int = 16, seed: int = 0, *, shown: float = 0.0) -> Pairs:
    """Pairs of prompts that differ in little and ask for two answers.

    A diffusion model is asked at one canvas of its decoding: `shown` says how late. What stands after the token asked
    for stands in both rows alike: they go on differing in the prompt alone, and what it says of the answer it says in
    both. So a number that follows from the right answer, such as a sum, speaks for the right answer in the corrupted
    row, too. A token in which the answers differ, such as the next digit of the number asked for, would give the answer
    away and stays a mask.

    Args:
        source: a task, or its name: in each problem one number is changed that the answer takes up, such as
            "trio-math" and "trio-code"; "ioi": sentences of two names after which one of them follows (Wang et al.,
            arXiv:2211.00593), for models that know English; or a .jsonl file with `clean`, `corrupted`, `right` and
            `wrong`, of which the first n pairs are taken.
        model: anything `dlens.load` takes; its tokenizer decides which prompts are of one length.
        n: how many pairs.
        seed: of what is drawn; a larger n only adds to the pairs.
        shown: of the tokens that follow the one asked for and that both answers have at the same place, the share that
            stands on the canvas, rounded up: 0 is the first canvas, at 1 no others are missing. Those stand first that
            the model, decoding the clean canvas by itself one token a step, fills first; the pairs are the same for
            every share. An autoregressive model sees nothing that follows, and takes 0 alone.

    Returns:
        Pairs up to where the answers part: both rows hold the tokens that begin both answers.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no such source, too few pairs, a pair of a file that is not of one length, or nothing to show.

    Examples:
        >>> import dlens
        >>> pairs = dlens.pairs("trio-math", "trio/diffusion", n=2)
        >>> print(pairs.words[0])
        Question: Rose has 37 toys. Rose gives away 26|18. How many toys does Rose have now?
        Answer: 37 - 26|18 = 11. #### 11
        >>> later = dlens.pairs("trio-math", "trio/diffusion", n=1, shown=0.5)
        >>> dlens.load("trio/diffusion").tokenizer.decode(later.clean[0]).split("Answer:")[1].replace("<|mask|>", "_")
        ' 37 - __ = 1_._ __'
    """
    model = load(model)
    share = _share(model, shown)
    if as_index(n, "n") < 1:
        raise ValueError(f"n={n}; expected at least 1, the number of pairs; give 16")
    made, rests, given = [], [], questions(source, as_seed(seed), model.tokenizer)
    for question in given:
        rows = _rows(model, question)
        reason = _unfit(rows)
        if reason is None:
            made.append(_pair(model, question, rows))
            rests.append(_rest(rows))
        elif question.chosen:
            raise ValueError(
                f"{question.clean!r} and {question.corrupted!r} {reason}; expected prompts of one length after which "
                f"two tokens can follow; change words for others of as many tokens"
            )
        if len(made) == n:
            break
    if len(made) < n:
        raise ValueError(f"{source} has {len(made)} pairs for {model.name}; expected n={n}; ask for fewer")
    first = Pairs(*map(tuple, zip(*made, strict=True)))
    return _later(model, first, rests, share) if share else first


def _share(model: Model, shown: Any) -> float:
    """The share of the rest that is shown, checked."""
    share = finite(shown)
    if share is None or not 0 <= share <= 1:
        raise ValueError(
            f"shown={quoted(shown)}; expected a share from 0 to 1 of what follows the token asked for; give for "
            f"example 0.5"
        )
    if share and model.family.objective != "diffusion":
        raise ValueError(
            f"shown={quoted(shown)} on {model.name}; expected a diffusion model, as an autoregressive model sees "
            f"nothing that follows the token asked for; leave shown= out"
        )
    return share


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


def _rest(rows: list[list[int]]) -> dict[int, int]:
    """Place -> token, of what follows where the answers part and is the same in both."""
    _, _, right, wrong, _ = rows
    parts = _part(right, wrong)
    assert parts is not None
    both = list(zip(right, wrong, strict=False))
    return {place: both[place][0] for place in range(parts + 1, len(both)) if both[place][0] == both[place][1]}


def _later(model: Model, first: Pairs, rests: Sequence[Mapping[int, int]], share: float) -> Pairs:
    """The pairs with a share of the rest on both canvases, what the model fills first."""
    clean, corrupted = [], []
    for own, other, rest, words in zip(first.clean, first.corrupted, rests, first.words, strict=True):
        if not rest:
            raise ValueError(
                f"shown={share} of {words!r}; expected answers that agree in a token after the one asked for, as that "
                f"is what can be shown; leave shown= out, or take longer answers"
            )
        count = ceil(share * len(rest) - 1e-9)
        # Where all of it stands, no order is needed.
        order = _masked_for(model, own) if count < len(rest) else own
        stands = {place: rest[place] for place in sorted(rest, key=order.__getitem__)[:count]}
        for rows, row in ((clean, own), (corrupted, other)):
            rows.append(tuple(stands.get(place, token) for place, token in enumerate(row)))
    return replace(first, clean=tuple(clean), corrupted=tuple(corrupted))


def _masked_for(model: Model, canvas: tuple[int, ...]) -> Sequence[int]:
    """For how many steps each place is a mask while the model decodes a canvas by itself.

    Alone: beside longer rows rounding could change the order, and with it the pair.
    """
    record = trace(model).generate([list(canvas)], 0, infill=True, progress=False)
    assert record.canvas is not None
    return (record.canvas[:, 0] == model.family.mask_token_id).sum(0).tolist()
