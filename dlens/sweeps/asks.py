"""What each variant of a sweep is asked: problems of a task, prompts to continue, texts to predict."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, final

import torch

from dlens.digest import value_digest
from dlens.findings.scores.accuracy import score_problems
from dlens.findings.scores.batches import length_batches, token_rows
from dlens.findings.scores.canvases import Canvases, text_canvases
from dlens.findings.scores.decoding import Decoding
from dlens.findings.scores.loss import losses_of
from dlens.findings.scores.repetition import repetition
from dlens.models.model import Model
from dlens.sweeps.variant import Variant
from dlens.tasks import Problem, Task
from dlens.tasks.task import task_identity
from dlens.tracing.chain import CAPTURE_LIMIT
from dlens.tracing.planning.inputs import Batch, as_batch, refuse_too_long
from dlens.tracing.planning.shape import run_shape
from dlens.tracing.prepare import check_run
from dlens.tracing.settings import RunSettings, check_settings, sampler_for

__all__ = ["Ask", "Prompts", "Read", "Solve", "Texts"]


@final
@dataclass(frozen=True)
class Read:
    """What is asked as one model reads it: the same for all variants of the model.

    Args:
        rows: token ids of each prompt or text.
        batches: what its forwards begin with.
    """

    rows: list[list[int]]
    batches: list[Batch]


class Ask(ABC):
    """Something that every variant is asked, with one seed.

    Args:
        measure: what comes out: a number for each problem, prompt or text.
    """

    measure: str

    @property
    @abstractmethod
    def task(self) -> str:
        """On what."""

    @property
    @abstractmethod
    def seed(self) -> int:
        """Of problems, masks and random draws."""

    @abstractmethod
    def read(self, model: Model) -> Read:
        """What is asked, in a model's tokens.

        Raises:
            ValueError: nothing was computed.
        """

    @abstractmethod
    def check(self, variant: Variant, read: Read) -> None:
        """Refuse what cannot run.

        Raises:
            ValueError, IndexError, MemoryError: nothing was computed.
        """

    @abstractmethod
    def depends(self, variant: Variant, read: Read) -> Any:
        """What the answer depends on beside the model and its operations, as plain data."""

    @abstractmethod
    def answer(self, variant: Variant) -> Mapping[str, Any]:
        """Plain data: `values`, and what else is known."""


@final
@dataclass(frozen=True, eq=False)
class Solve(Ask):
    """Problems of a task, by which share is solved.

    Args:
        of: the task.
        problems: that every variant is asked.
        decoding: how variants answer that say nothing of it.
    """

    of: Task
    problems: tuple[Problem, ...] = field(repr=False)
    decoding: Decoding
    measure = "accuracy"

    @property
    def task(self) -> str:
        """Its name."""
        return self.of.name

    @property
    def seed(self) -> int:
        """Of problems and draws."""
        return self.decoding.seed

    def read(self, model: Model) -> Read:
        """See `Ask.read`."""
        return _read(model, [problem.prompt for problem in self.problems], self.decoding.batch_size)

    def check(self, variant: Variant, read: Read) -> None:
        """See `Ask.check`."""
        _check_run(variant, read, _decoding(variant, self.decoding).of(self.of))

    def depends(self, variant: Variant, read: Read) -> Any:
        """See `Ask.depends`."""
        return [*self._asked, _plain(_decoding(variant, self.decoding).of(self.of))]

    @cached_property
    def _asked(self) -> tuple[Any, ...]:
        return task_identity(self.of), [asdict(problem) for problem in self.problems]

    def answer(self, variant: Variant) -> Mapping[str, Any]:
        """See `Ask.answer`."""
        decoding = _decoding(variant, self.decoding)
        found = score_problems(variant.ready(), self.of, self.problems, decoding, count_flops=True)
        return {
            "values": list(found.correct),
            "texts": list(found.texts),
            "lengths": list(found.lengths),
            "notes": [*found.notes, *found.unfired],
            "flops": found.flops,
            "saved_flops": found.saved_flops,
            "seconds": found.seconds,
        }


@final
@dataclass(frozen=True, eq=False)
class Prompts(Ask):
    """Prompts to continue; how much a continuation repeats itself is measured, and all of them are kept.

    Args:
        prompts: in any form that `Trace.generate` takes.
        decoding: how variants answer that say nothing of it; with a length.
    """

    prompts: Any = field(repr=False)
    decoding: Decoding
    measure = "repetition"

    @property
    def task(self) -> str:
        """In a word."""
        return "prompts"

    @property
    def seed(self) -> int:
        """Of draws."""
        return self.decoding.seed

    def read(self, model: Model) -> Read:
        """See `Ask.read`."""
        return _read(model, self.prompts, self.decoding.batch_size)

    def check(self, variant: Variant, read: Read) -> None:
        """See `Ask.check`."""
        _check_run(variant, read, _decoding(variant, self.decoding))

    def depends(self, variant: Variant, read: Read) -> Any:
        """See `Ask.depends`."""
        return [read.rows, _plain(_decoding(variant, self.decoding))]

    def answer(self, variant: Variant) -> Mapping[str, Any]:
        """See `Ask.answer`."""
        chain, decoding = variant.ready(), _decoding(variant, self.decoding)
        rows = token_rows(chain.model, self.prompts)
        texts, values = [""] * len(rows), [0.0] * len(rows)
        notes: dict[str, None] = {}
        flops = saved = seconds = 0
        for number, indices in enumerate(length_batches(chain.model, rows, decoding.batch_size)):
            own_seed = random.Random(f"{decoding.seed} {number}").getrandbits(32)
            record = decoding.generate(chain, [rows[i] for i in indices], own_seed)
            written = ~record.is_pad & ~record.is_prompt
            for row, i in enumerate(indices):
                # A model without a tokenizer writes tokens alone.
                texts[i] = record.text[row] if record.text else ""
                values[i] = repetition([record.tokens[row][written[row]].tolist()])
            notes |= dict.fromkeys((*record.notes, *record.unfired))
            flops, saved, seconds = flops + record.flops, saved + record.saved_flops, seconds + record.seconds
        return {
            "values": values,
            "texts": texts,
            "notes": list(notes),
            "flops": flops,
            "saved_flops": saved,
            "seconds": seconds,
        }


@final
@dataclass(frozen=True, eq=False)
class Texts(Ask):
    """Texts to predict: nats a token of each, next-token or denoising; see `dlens.findings.scores.loss.text_loss`.

    Args:
        texts: each text, messages or token ids.
        draws: how often each is masked (diffusion only).
        batch_size: texts a forward.
        mask_seed: of the masks.
    """

    texts: tuple[Any, ...] = field(repr=False)
    draws: int
    batch_size: int
    mask_seed: int
    measure = "loss"

    @property
    def task(self) -> str:
        """In a word."""
        return "texts"

    @property
    def seed(self) -> int:
        """Of the masks."""
        return self.mask_seed

    def read(self, model: Model) -> Read:
        """See `Ask.read`."""
        batches = [as_batch(model, [row.inputs for row in part.rows]) for part in self._canvases(model)]
        return Read(token_rows(model, list(self.texts)), batches)

    def check(self, variant: Variant, read: Read) -> None:
        """See `Ask.check`."""
        chain = variant.trace
        for batch in read.batches:
            refuse_too_long(chain.model, batch, 0)
            check_run(chain.model, chain.target, chain.ops, run_shape(chain.model, batch), batch.real, CAPTURE_LIMIT)

    def depends(self, variant: Variant, read: Read) -> Any:
        """See `Ask.depends`."""
        return [read.rows, self.draws, self.batch_size]

    def answer(self, variant: Variant) -> Mapping[str, Any]:
        """See `Ask.answer`."""
        chain = variant.ready()
        parts = self._canvases(chain.model)
        found = losses_of(chain, parts, self.batch_size)
        record = chain.forward(parts[0].rows[0].inputs)
        return {
            "values": [loss.value for loss in found],
            "notes": [found[0].estimator, *record.notes],
            "flops": record.flops,
            "saved_flops": record.saved_flops,
            "seconds": record.seconds,
        }

    def _canvases(self, model: Model) -> list[Canvases]:
        return [text_canvases(model, [text], self.draws, self.seed + i) for i, text in enumerate(self.texts)]


def _decoding(variant: Variant, decoding: Decoding) -> Decoding:
    """How a variant decodes: its own way where it has one."""
    own = {name: value for name in ("sampler", "cache") if (value := getattr(variant, name)) is not None}
    return replace(decoding, progress=False, **own)


def _plain(decoding: Decoding) -> list[Any]:
    return [
        value_digest(decoding.sampler),
        value_digest(decoding.cache),
        decoding.length,
        decoding.batch_size,
        decoding.seed,
    ]


def _read(model: Model, prompts: Any, batch_size: int) -> Read:
    rows = token_rows(model, prompts)
    batches = [as_batch(model, [rows[i] for i in indices]) for indices in length_batches(model, rows, batch_size)]
    return Read(rows, batches)


def _check_run(variant: Variant, read: Read, decoding: Decoding) -> None:
    """Refuse a generation before anything starts, by the checks that it would begin with."""
    chain = variant.trace
    sampler = sampler_for(chain.model, decoding.sampler)
    settings = RunSettings(
        new_tokens=decoding.length,
        sampler=sampler,
        seed=decoding.seed,
        infill=False,
        cache=decoding.cache,
        capture_limit=CAPTURE_LIMIT,
        progress=False,
        on_step=None,
        cancel=None,
    )
    check_settings(chain.model, chain.target, settings)
    for batch in read.batches:
        refuse_too_long(chain.model, batch, decoding.length)
        shape = run_shape(chain.model, batch, decoding.length, sampler)
        new = batch.real.new_ones(len(batch.real), decoding.length)
        check_run(chain.model, chain.target, chain.ops, shape, torch.cat([batch.real, new], -1), CAPTURE_LIMIT)
