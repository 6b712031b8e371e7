"""Many prompts, a batch after the other, with their captures written to a folder; goes on where it was killed."""

from __future__ import annotations

import hashlib
import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, final

import torch

from dlens.axes import TokenMask
from dlens.checks import as_flag
from dlens.digest import value_digest
from dlens.errors import Cancelled, NeverFired, UnfiredWarning
from dlens.files import alone, in_words, remove_leftovers
from dlens.models.model import Model
from dlens.ops.base.op import Op
from dlens.ops.base.target import RunShape, Target
from dlens.samplers import Denoiser
from dlens.tracing.forwards import run_forwards
from dlens.tracing.planning.inputs import Batch, as_batch, refuse_masks, refuse_too_long
from dlens.tracing.planning.plan import Plan
from dlens.tracing.planning.shape import run_shape
from dlens.tracing.planning.streamed import Streamed, streamed
from dlens.tracing.planning.tokens import fixed_mask
from dlens.tracing.prepare import check_plan, prepare, refuse_training
from dlens.tracing.progress import hold, quiet
from dlens.tracing.records.record import versions
from dlens.tracing.run import run_generation
from dlens.tracing.settings import RunSettings, check_cancel, check_settings
from dlens.tracing.step.gather import Gather
from dlens.tracing.streams.header import INDEX, Header, read_header, refuse_unlike, write_header
from dlens.tracing.streams.shard import Mark, shards_in
from dlens.tracing.streams.writer import Writer

__all__ = ["StreamSettings", "run_stream"]

_SEEDS = 2**64


@dataclass(frozen=True)
class StreamSettings:
    """How a stream is run; the arguments of `Trace.stream`.

    Args:
        batch_size: prompts a run.
        shard_bytes: size of a file.
        progress: whether to show a bar.
        cancel: an event that ends it between two batches.
        generation: of the runs; None is a forward of each batch.
    """

    batch_size: int
    shard_bytes: int
    progress: bool
    cancel: Any
    generation: RunSettings | None

    @property
    def new_tokens(self) -> int:
        """Tokens that are decoded after each prompt."""
        return 0 if self.generation is None else self.generation.new_tokens


def run_stream(
    model: Model, target: Target, ops: Sequence[Op], prompts: Any, folder: Path, settings: StreamSettings
) -> None:
    """Write the captures of every prompt to a folder; see `Trace.stream`."""
    as_flag(settings.progress, "progress")
    check_cancel(settings.cancel)
    kept = streamed(ops, target)
    batch = as_batch(model, prompts)
    job = _Job(model, target, kept, Batch(batch.ids.cpu(), batch.real.cpu()), folder, settings)
    shape = job.check()
    _refuse_others(folder)
    with hold(model.lock, settings.cancel):
        header = Header(
            asked=job.asked(ops),
            model=model.name,
            family=model.family.name,
            kind=shape.kind,
            has_noise=target.has_noise,
            n_layers=model.n_layers,
            n_steps=shape.n_steps,
            n_prompts=len(batch.ids),
            points=kept.points,
            plan=tuple({"words": op.words(), **op.to_json()} for op in ops),
        )
        with in_words(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with alone(folder):
            job.run(header)


def _refuse_others(folder: Path) -> None:
    """Nothing is written between files of somebody else."""
    if folder.exists() and not (folder.is_dir() and ((folder / INDEX).is_file() or not any(folder.iterdir()))):
        raise FileExistsError(
            f"{folder} is a file or holds other files; expected a new folder or an older stream; give another folder"
        )


@final
@dataclass(frozen=True)
class _Job:
    """A stream that is being run.

    Args:
        model, target: what runs.
        kept: the operations, and what is kept.
        batch: all prompts.
        folder: where rows go.
        settings: how it is run.
    """

    model: Model
    target: Target
    kept: Streamed
    batch: Batch
    folder: Path
    settings: StreamSettings

    def check(self) -> RunShape:
        """Refuse what cannot run, before anything is computed.

        Returns:
            The size of the longest run.

        Raises:
            ValueError, IndexError: says what does not fit.
        """
        generation = self.settings.generation
        if generation is not None:
            check_settings(self.model, self.target, generation)
            if isinstance(generation.sampler, Denoiser) and not generation.infill:
                refuse_masks(self.model, self.batch)
        refuse_too_long(self.model, self.batch, self.settings.new_tokens)
        batches = self.batches()
        # The longest prompts come first.
        fixed_mask(self.kept.tokens, self._real(self.batch.of(batches[0])))
        refuse_training(self.model)
        for rows in batches if any(op.keeps() is None for op in self.kept.ops) else batches[:1]:
            self._plan(self.batch.of(rows))
        return self._shape(self.batch)

    def _plan(self, batch: Batch) -> Plan:
        """The operations of a batch's run; refuses what does not fit it."""
        real = self._real(batch)
        return check_plan(self.model, self.target, self.kept.ops, self._shape(batch), real, sys.maxsize)

    def _shape(self, batch: Batch) -> RunShape:
        generation = self.settings.generation
        sampler = None if generation is None else generation.sampler
        return run_shape(self.model, batch, self.settings.new_tokens, sampler)

    def batches(self) -> list[list[int]]:
        """The prompts of each run: of similar length, the longest first, so that what does not fit is seen at once."""
        lengths, size = self.batch.lengths, self.settings.batch_size
        order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
        alike = [order]
        if not self.model.honours_padding:
            alike = [list(same) for _, same in groupby(order, lambda row: lengths[row])]
        return [some[at : at + size] for some in alike for at in range(0, len(some), size)]

    def _real(self, batch: Batch) -> TokenMask:
        """[batch, position] of the whole run of a batch, what is not padding."""
        return torch.nn.functional.pad(batch.real, (0, self.settings.new_tokens), value=True)

    def asked(self, ops: Sequence[Op]) -> dict[str, str]:
        """All that the rows depend on."""
        generation, family = self.settings.generation, self.model.family
        decoding = None
        if generation is not None:
            decoding = [generation.new_tokens, value_digest(generation.sampler), generation.seed]
            decoding += [generation.infill, value_digest(generation.cache)]
        held = hashlib.sha256()
        for numbers in (self.batch.real.sum(-1), self.batch.ids[self.batch.real]):
            held.update(numbers.numpy().astype("<i8").tobytes())
        return {
            "model": self.model.fingerprint(),
            "family": json.dumps([family.name, family.objective, family.shift, family.mask_token_id]),
            "device": self.model.device.type,
            "operations": value_digest(tuple(ops)),
            "prompts": held.hexdigest(),
            "decoding": json.dumps(decoding),
            "batch_size": str(self.settings.batch_size),
            "shard_bytes": str(self.settings.shard_bytes),
            "versions": json.dumps(versions()),
        }

    def run(self, header: Header) -> None:
        """Go through the prompts from where the folder ends."""
        remove_leftovers(self.folder)
        if (self.folder / INDEX).exists():
            found = read_header(self.folder)
            refuse_unlike(self.folder, found, header)
            if found.complete:
                return
        else:
            write_header(self.folder, header)
        shards = shards_in(self.folder, header.stream)
        batches = self.batches()
        with Writer(self.folder, header.stream, self.settings.shard_bytes, len(shards)) as writer:
            self._pass(batches, shards[-1].mark if shards else Mark(0), writer)
            writer.close(Mark(len(batches)))
        if not shards_in(self.folder, header.stream):
            raise ValueError(
                f"no prompt had a row to keep; expected some; check tokens= of '{self.kept.ops[-1].words()}' against "
                f"the prompts, and remove {self.folder}"
            )
        write_header(self.folder, replace(header, complete=True))

    def _pass(self, batches: Sequence[Sequence[int]], start: Mark, writer: Writer) -> None:
        from tqdm.auto import tqdm

        gather = Gather(self.kept.tokens, writer.add)
        total, disable = len(self.batch.ids), quiet(self.settings.progress)
        with tqdm(total=total, unit="prompt", delay=1.0, leave=False, disable=disable) as bar:
            bar.update(sum(map(len, batches[: start.batch])))
            idle = self._run(batches, start, gather, bar)
        if idle:
            warnings.warn(
                f"an operation found nothing to act on in {idle} of {len(batches)} batches; check noise= and tokens= "
                f"against the prompts",
                UnfiredWarning,
                stacklevel=5,
            )

    def _run(self, batches: Sequence[Sequence[int]], start: Mark, gather: Gather, bar: Any) -> int:
        """Run what is left; in how many batches an operation found nothing to act on."""
        if start.batch == len(batches):
            return 0
        left = self._left(batches, start, gather, bar)
        generation = self.settings.generation
        if generation is not None:
            return sum(self._generate(number, batch, gather, generation) for number, batch in left)
        # What is known of the first batch holds for all of them, but for the positions that the chain names.
        first = self.batch.of(batches[start.batch])
        chain = self.model, self.target, self.kept.ops
        return run_forwards(prepare(*chain, self._shape(first), self._plan(first), gather), (part for _, part in left))

    def _left(
        self, batches: Sequence[Sequence[int]], start: Mark, gather: Gather, bar: Any
    ) -> Iterator[tuple[int, Batch]]:
        """Each batch that is left, by its number; its run is over when the next one is asked for."""
        for number, rows in enumerate(batches[start.batch :], start.batch):
            self._refuse_cancelled(number)
            batch = self.batch.of(rows)
            real = self._real(batch)
            # Which positions are kept where that does not change over a run.
            fixed = fixed_mask(self.kept.tokens, real, strict=False)
            begin = max(start, Mark(number))
            gather.start(begin, torch.tensor(rows), (~real).sum(-1), fixed, width=real.shape[-1])
            yield number, batch
            gather.end()
            bar.update(len(rows))

    def _refuse_cancelled(self, number: int) -> None:
        if self.settings.cancel is not None and self.settings.cancel.is_set():
            raise Cancelled(
                f"the stream was cancelled before batch {number}; what {self.folder} holds stays; stream again to go on"
            )

    def _generate(self, number: int, batch: Batch, gather: Gather, generation: RunSettings) -> bool:
        """Decode a batch; whether an operation found nothing to act on in it."""
        own = replace(generation, gather=gather, seed=(generation.seed + number) % _SEEDS)
        try:
            run_generation(self.model, self.target, self.kept.ops, batch, own)
        except NeverFired:
            return True
        return False
