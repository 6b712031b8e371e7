"""How a model decodes what it is asked: sampler, length, batches, seed, in one piece."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

from dlens.checks import as_flag, quoted
from dlens.models.model import Model
from dlens.ops.base.given import as_index, as_seed
from dlens.samplers import Sampler, default_for
from dlens.tasks import Task
from dlens.tracing.chain import Trace
from dlens.tracing.planning.kv_cache import Caching, check_cache
from dlens.tracing.records.record import Record

__all__ = ["Decoding"]


@final
@dataclass(frozen=True)
class Decoding:
    """How a model decodes.

    Functions that let a model answer take these arguments one by one, and hand them on as this.

    Args:
        sampler: one of `dlens.samplers`; the family's default by default.
        max_new_tokens: length of an answer; the task's by default.
        cache: see `Trace.generate`.
        batch_size: prompts decoded together.
        seed: of the sampler's random draws; 0 to 2**64 - 1.
        progress: show a progress bar when it takes longer than a second.

    Examples:
        >>> import dlens
        >>> decoding = Decoding(max_new_tokens=4)
        >>> decoding.planned_steps(dlens.load("trio/diffusion"))
        4
        >>> decoding.generate(dlens.trace("trio/ar"), [[5, 6]]).tokens.shape[-1]
        6
        >>> Decoding().of(dlens.tasks.get("trio-code")).length
        32
    """

    sampler: Sampler | None = None
    max_new_tokens: int | None = None
    cache: Caching = "auto"
    batch_size: int = 16
    seed: int = 0
    progress: bool = True

    def __post_init__(self) -> None:
        as_seed(self.seed)
        as_flag(self.progress, "progress")
        check_cache(self.cache)
        if self.sampler is not None and not isinstance(self.sampler, Sampler):
            raise ValueError(
                f"sampler={quoted(self.sampler)}; expected one of dlens.samplers; make one, such as "
                f"dlens.samplers.LLaDA(), or leave it out"
            )
        if self.max_new_tokens is not None and as_index(self.max_new_tokens, "max_new_tokens") < 1:
            raise ValueError(
                f"max_new_tokens={self.max_new_tokens}; expected at least 1, the length of an answer; ask for more, or "
                f"leave it out"
            )
        if as_index(self.batch_size, "batch_size") < 1:
            raise ValueError(
                f"batch_size={self.batch_size}; expected at least 1, prompts decoded together; give for example 16"
            )

    def of(self, task: Task) -> Decoding:
        """The same with a length: the task's where none was given."""
        return self if self.max_new_tokens is not None else replace(self, max_new_tokens=task.max_new_tokens)

    @property
    def length(self) -> int:
        """The length of an answer.

        Raises:
            ValueError: there is none.
        """
        if self.max_new_tokens is None:
            raise ValueError("a Decoding without max_new_tokens; expected a length of answers; give one, or a task")
        return self.max_new_tokens

    def generate(
        self,
        trace: Trace,
        prompts: Sequence[Sequence[int]],
        seed: int | None = None,
        cancel: threading.Event | None = None,
    ) -> Record:
        """One run, of one batch.

        Args:
            trace: the model with whatever operations it has.
            prompts: token ids, one row a prompt.
            seed: instead of that of the decoding.
            cancel: when set, the run ends with `Cancelled` between two steps.
        """
        return trace.generate(
            prompts,
            self.length,
            sampler=self.sampler,
            seed=self.seed if seed is None else seed,
            cache=self.cache,
            progress=False,
            cancel=cancel,
        )

    def planned_steps(self, model: Model) -> int:
        """Steps of a run, with the sampler or the family's default.

        Raises:
            ValueError: the sampler does not fit the number of tokens.
        """
        family = model.family
        sampler = self.sampler or default_for(family.objective, family.shift, family.block_length)
        return sampler.planned_steps(self.length)
