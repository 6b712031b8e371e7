"""The trace: an immutable chain of operations on a model, and the two ways to run it."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from dlens.checks import as_flag, as_path
from dlens.models.load import load
from dlens.ops.base.given import as_count, as_index, as_seed
from dlens.samplers import Sampler
from dlens.tracing.planning.captures import capture_bytes
from dlens.tracing.planning.inputs import as_batch
from dlens.tracing.planning.kv_cache import Caching
from dlens.tracing.planning.shape import run_shape
from dlens.tracing.prepare import target_of
from dlens.tracing.progress import OnStep
from dlens.tracing.records.record import Record
from dlens.tracing.replay.replays import ReplayPolicy
from dlens.tracing.run import run_forward, run_generation
from dlens.tracing.settings import RunSettings, sampler_for
from dlens.tracing.stream import StreamSettings, run_stream
from dlens.tracing.streams.activations import Activations, load_activations
from dlens.tracing.verbs import Verbs

__all__ = ["Trace", "trace"]

CAPTURE_LIMIT = 4 * 2**30
SHARD_BYTES = 2**25


def trace(model: Any) -> Trace:
    """Start a chain of operations on a model.

    Args:
        model: what `dlens.load` returned, or anything it takes: a name, a torch module, an nnsight object. A name is
            loaded at each call: for several traces load it once, or go on from one trace.

    Returns:
        An empty trace; every verb returns a new one.

    Examples:
        >>> import dlens
        >>> print(dlens.trace("trio/diffusion").skip([3, 4, 5], steps="early"))
        trace of trio/diffusion (16 layers, diffusion)
          skip layers 3, 4, 5 at steps early
    """
    model = load(model)
    return Trace(model, target_of(model))


@final
@dataclass(frozen=True, eq=False)
class Trace(Verbs):
    """A chain of operations on a model; made by `dlens.trace`, changed by no verb, nor by what its caller does
    with a list or tensor that a verb was given.

    Operations at different places commute; at one place they apply in the order written, captures
    and measures included. Layer numbers name places, negative ones count from the end. Common
    arguments: `steps` (an int, range, slice, list, or "early", "middle", "late"), `noise` ((lo, hi): rows
    with lo < share of masks <= hi), `tokens` ("all", "prompt", "masked", "decoded", "last", a slice or
    list counted from each row's first real token, or a bool tensor [batch, position]), `at` (a
    hook point of the residual stream) and `layers` (an int, a slice, a list or range; None: all).

    Args:
        model: what runs.
        target: the facts of the model that operations are checked against.
        ops: the operations, in the order written.

    Examples:
        >>> import dlens
        >>> plain = dlens.trace("trio/diffusion")
        >>> skipped = plain.skip([3, 4]).measure(dlens.Cosine())
        >>> print(skipped)
        trace of trio/diffusion (16 layers, diffusion)
          skip layers 3, 4
          measure cosine
        >>> len(plain.ops), len(skipped.ops)
        (0, 2)
    """

    def forward(self, inputs: Any, *, batch_size: int | None = None, capture_limit: int = CAPTURE_LIMIT) -> Record:
        """Run the model once.

        Args:
            inputs: text, token ids, chat messages, or a list of these; mask tokens are taken as they are.
            batch_size: most prompts a forward, so that many run one after the other; None takes all at once.
            capture_limit: most bytes that captured tensors may take.

        Raises:
            ValueError, IndexError, MemoryError: before anything is computed.
            NeverFired: an operation found nothing to act on.

        Examples:
            >>> import dlens
            >>> dlens.trace("trio/ar").capture("logits").forward(["Once", "Once upon a time"])["logits"].shape
            torch.Size([2, 4, 4096])
        """
        size = None if batch_size is None else as_count(batch_size, "batch_size")
        return run_forward(self.model, self.target, self.ops, inputs, as_index(capture_limit, "capture_limit"), size)

    def generate(
        self,
        prompts: Any,
        max_new_tokens: int = 64,
        *,
        sampler: Sampler | None = None,
        seed: int = 0,
        infill: bool = False,
        cache: Caching = "auto",
        capture_limit: int = CAPTURE_LIMIT,
        progress: bool = True,
        on_step: OnStep | None = None,
        cancel: threading.Event | None = None,
        replay: ReplayPolicy = "auto",
    ) -> Record:
        """Decode continuations.

        Args:
            prompts: text, token ids, chat messages, or a list of these.
            max_new_tokens: how many tokens at most (exactly as many for diffusion models).
            sampler: one of `dlens.samplers`; None is the family's: one token a step, temperature 0.
            seed: of the sampler's random numbers; 0 to 2**64 - 1.
            infill: fill the mask tokens that prompts hold, too.
            cache: AR decoding keeps its KV cache unless an operation forbids it ("auto"); "require" makes
                that an error, "off" always computes every position again. Diffusion models compute every position at
                every step, or what one of `dlens.caches` says: then captured tensors are NaN at the other positions;
                "off" is no cache for them, too.
            capture_limit: most bytes that captured tensors may take.
            progress: show a progress bar when the run takes longer than a second.
            on_step: called with a `StepView` after every step.
            cancel: when set, a waiting or running run ends with `Cancelled` between two steps.
            replay: on a GPU, steps of denoising are recorded once and played again where that pays ("auto"); "require"
                makes it an error where they cannot be, "off" computes each by itself; `record.notes` says what ran.

        Raises:
            ValueError, IndexError, MemoryError: before anything is computed.
            NeverFired: an operation found nothing to act on; `error.record` holds the run.
            Cancelled: see `cancel`.

        Examples:
            >>> import dlens
            >>> record = dlens.trace("trio/diffusion").skip([5]).generate("Once upon a time", max_new_tokens=8)
            >>> record.canvas.shape
            torch.Size([8, 1, 12])
        """
        settings = self._settings(
            max_new_tokens,
            sampler,
            seed,
            infill=infill,
            cache=cache,
            capture_limit=as_index(capture_limit, "capture_limit"),
            progress=progress,
            on_step=on_step,
            cancel=cancel,
            replay=replay,
        )
        return run_generation(self.model, self.target, self.ops, prompts, settings)

    def stream(
        self,
        prompts: Any,
        folder: str | Path,
        *,
        batch_size: int = 16,
        max_new_tokens: int | None = None,
        sampler: Sampler | None = None,
        seed: int = 0,
        infill: bool = False,
        cache: Caching = "auto",
        shard_bytes: int = SHARD_BYTES,
        progress: bool = True,
        cancel: threading.Event | None = None,
    ) -> Activations:
        """Write what is captured to a folder, prompt after prompt, in memory that does not grow with them.

        Each position at each step is a row, with its prompt, step, layer, position, token, state and noise. Rows are
        written in files of about `shard_bytes` while the model goes on. A stream that was killed or cancelled goes on
        where its last file ends when it is asked for again, and ends bit for bit as one that was not; asked of another
        model, other prompts or settings, it is refused. A finished one is read without computing anything.

        Args:
            prompts: as in `forward` and `generate`; many.
            folder: a new one, or that of the same stream.
            batch_size: prompts a run; prompts of similar length run together, the longest first.
            max_new_tokens: as in `generate`; None is a forward of each prompt.
            sampler, infill, cache: as in `generate`.
            seed: of the first batch; each later one has the next.
            shard_bytes: size of a file; memory holds about four of them.
            progress: show a progress bar.
            cancel: when set, the stream ends with `Cancelled` between two batches or steps.

        Raises:
            ValueError, IndexError: before anything is computed.
            FileExistsError, BlockingIOError: the folder holds other files, or another run writes to it.
            OSError: it cannot be written; what it holds stays.
            Cancelled: see `cancel`.

        Examples:
            >>> import dlens, tempfile
            >>> trace = dlens.trace("trio/diffusion").capture("resid_post", layers=8, tokens="masked", dtype="float16")
            >>> kept = trace.stream(["Once upon a time", "The dog"], tempfile.mkdtemp() + "/kept", max_new_tokens=8)
            >>> kept
            Activations of trio/diffusion, denoising: resid_post of layers 8, 72 rows [192] of 2 prompts
        """
        as_flag(progress, "progress")
        as_flag(infill, "infill")
        generation = None
        if max_new_tokens is not None:
            settings: dict[str, Any] = {"sampler": sampler, "seed": seed, "infill": infill, "cache": cache}
            generation = self._settings(max_new_tokens, progress=False, cancel=cancel, **settings)
        run_stream(
            self.model,
            self.target,
            self.ops,
            prompts,
            place := as_path(folder, "folder"),
            StreamSettings(
                batch_size=as_count(batch_size, "batch_size"),
                shard_bytes=as_count(shard_bytes, "shard_bytes"),
                progress=progress,
                cancel=cancel,
                generation=generation,
            ),
        )
        return load_activations(place)

    def _settings(self, max_new_tokens: Any, sampler: Sampler | None, seed: Any, **others: Any) -> RunSettings:
        """The settings of a generation, as the user gave them."""
        return RunSettings(
            new_tokens=as_index(max_new_tokens, "max_new_tokens"),
            sampler=sampler_for(self.model, sampler),
            seed=as_seed(seed),
            # A step that is played from a recording hands no rows on.
            **{"on_step": None, "capture_limit": sys.maxsize, "replay": "off"} | others,
        )

    def capture_bytes(self, inputs: Any, max_new_tokens: int | None = None, sampler: Sampler | None = None) -> int:
        """The memory that the captured tensors of a run will take, in bytes; nothing is computed.

        Args:
            inputs: as in `forward` and `generate`.
            max_new_tokens: as in `generate`; None is a forward.
            sampler: as in `generate`.

        Examples:
            >>> import dlens
            >>> dlens.trace("trio/ar").capture("resid_post").capture_bytes("Once upon a time") == 16 * 4 * 192 * 4
            True
        """
        if max_new_tokens is not None and as_index(max_new_tokens, "max_new_tokens") < 0:
            raise ValueError(f"max_new_tokens={max_new_tokens}; expected at least 0; leave it out for a forward")
        batch = as_batch(self.model, inputs)
        sampler = None if max_new_tokens is None else sampler_for(self.model, sampler)
        shape = run_shape(self.model, batch, max_new_tokens or 0, sampler)
        return capture_bytes(self.ops, self.model, self.target, shape)

    def __str__(self) -> str:
        head = f"trace of {self.model.name} ({self.target.n_layers} layers, {self.model.family.objective})"
        return "\n".join([head, *(f"  {op.words()}" for op in self.ops)])

    __repr__ = __str__
