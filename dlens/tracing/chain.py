"""The trace: an immutable chain of operations on a model, and the two verbs that run it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, SupportsIndex, final

from torch import Tensor

from dlens.axes import BLOCK_POINTS, parse_point, respell
from dlens.measures.base.measure import Measure
from dlens.models.load import load
from dlens.models.model import Model
from dlens.ops.ablate import Ablate, AblateOutlier, as_value
from dlens.ops.capture import Capture
from dlens.ops.given import Indices, as_index, as_indices, as_number
from dlens.ops.hook import Hook, HookPoint
from dlens.ops.op import STREAM_POINTS, Op, Scope, StepSpec, Target, TokenSpec, as_tokens
from dlens.ops.patch import Patch
from dlens.ops.repeat import Repeat
from dlens.ops.skip import Part, Skip
from dlens.ops.steer import Steer, as_vector
from dlens.ops.swap import Swap
from dlens.samplers import Sampler
from dlens.tracing.planning.captures import capture_bytes
from dlens.tracing.planning.contradictions import refuse_contradictions
from dlens.tracing.planning.inputs import as_batch
from dlens.tracing.planning.kv_cache import CachePolicy
from dlens.tracing.planning.measured import Measured
from dlens.tracing.planning.shape import run_shape
from dlens.tracing.prepare import target_of
from dlens.tracing.progress import OnStep
from dlens.tracing.records.patching import source_of
from dlens.tracing.records.record import Record
from dlens.tracing.run import run_forward, run_generation
from dlens.tracing.settings import RunSettings, sampler_for

__all__ = ["Trace", "trace"]

Noise = tuple[float, float] | None
CAPTURE_LIMIT = 4 * 2**30


def trace(model: Any) -> Trace:
    """Start a chain of operations on a model.

    Args:
        model: what `dlens.load` returned, or anything it takes: a name, a torch module, an nnsight object.

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
class Trace:
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

    model: Model
    target: Target
    ops: tuple[Op, ...] = ()

    def _with(self, op: Op) -> Trace:
        op.check(self.target)
        ops = (*self.ops, op)
        refuse_contradictions(ops, self.target)
        return replace(self, ops=ops)

    def _edit(self, at: str, layers: Indices, tokens: Any, steps: StepSpec, noise: Noise) -> dict[str, Any]:
        """The fields that all operations on the stream share."""
        if at not in STREAM_POINTS:
            raise ValueError(
                f"at={at!r}; expected a point of the residual stream, with its layers in layers=: "
                f"{', '.join(STREAM_POINTS)}; {respell(at, STREAM_POINTS)}"
            )
        places = self.target.places(layers)
        return {"at": at, "layers": places, "tokens": as_tokens(tokens), "scope": Scope(steps, noise)}

    def skip(self, layers: Any, *, part: Part = "block", steps: StepSpec = None, noise: Noise = None) -> Trace:
        """Skip blocks: each returns its input and computes nothing.

        Args:
            layers: an int, a slice, a sequence of ints, or a plan with `.layers`.
            part: "block", or only its "attn" or "mlp" half.
            steps, noise: when.

        Examples:
            >>> import dlens
            >>> record = dlens.trace("trio/ar").skip([3, -1]).capture("resid_post").forward("Once upon a time")
            >>> bool((record["blocks.3.hook_resid_post"] == record["blocks.2.hook_resid_post"]).all())
            True
        """
        places = self.target.places(getattr(layers, "layers", layers)) or ()
        return self._with(Skip(layers=places, part=part, scope=Scope(steps, noise)))

    def swap(self, i: SupportsIndex, j: SupportsIndex, *, steps: StepSpec = None, noise: Noise = None) -> Trace:
        """Run the block of place `i` in place `j` and the other way round; swaps compose left to right.

        Examples:
            >>> import dlens
            >>> dlens.trace("trio/ar").swap(2, 7).forward("Once upon a time").saved_flops
            0
        """
        return self._with(Swap(i=self.target.layer(i), j=self.target.layer(j), scope=Scope(steps, noise)))

    def repeat(
        self, layer: SupportsIndex, times: SupportsIndex = 2, *, steps: StepSpec = None, noise: Noise = None
    ) -> Trace:
        """Run a block `times` times in a row, each time on what it returned before.

        Examples:
            >>> import dlens
            >>> dlens.trace("trio/ar").repeat(4).forward("Once upon a time").saved_flops < 0
            True
        """
        place, runs = self.target.layer(layer), as_index(times, "times")
        return self._with(Repeat(layer=place, times=runs, scope=Scope(steps, noise)))

    def ablate(
        self,
        layers: Indices,
        channels: Indices = None,
        value: Any = "zero",
        *,
        at: str = "resid_post",
        steps: StepSpec = None,
        noise: Noise = None,
        tokens: TokenSpec = "all",
    ) -> Trace:
        """Set channels of the stream to a value.

        Args:
            layers: places; None is all.
            channels: which channels; None is all.
            value: "zero", "mean" (over the shipped calibration text), a number or a tensor or array
                ([channel] in the order of `channels`, [d_model], or a row of these for each layer of the model).

        Examples:
            >>> import dlens
            >>> record = dlens.trace("trio/ar").ablate(3, [0, 5], 1.5).capture("resid_post").forward("Once upon a time")
            >>> record["blocks.3.hook_resid_post"][0, 0, [0, 5]].tolist()
            [1.5, 1.5]
        """
        named = as_indices(channels, "channel", self.target.d_model)
        try:
            edit = self._edit(at, layers, tokens, steps, noise)
        except IndexError as error:
            if named is None:
                raise
            raise IndexError(f"{error}; the order is ablate(layers, channels)") from None
        return self._with(Ablate(channels=named, value=as_value(value), **edit))

    def ablate_outlier(
        self,
        channel: SupportsIndex | None = None,
        layers: Indices = None,
        value: Any = "zero",
        *,
        at: str = "resid_post",
        steps: StepSpec = None,
        noise: Noise = None,
        tokens: TokenSpec = "all",
    ) -> Trace:
        """Set the super-outlier channel to a value.

        Args:
            channel: which; None finds the one with the largest energy share on the shipped
                calibration text when the run starts; `record.plan` names it with its share.
            layers: places; None is all blocks but the last.
            value: as in `ablate`.

        Source: Layer Collapse in Diffusion Language Models (arXiv:2605.06366).

        Examples:
            >>> import dlens
            >>> record = dlens.trace("trio/diffusion").ablate_outlier().forward("Once upon a time")
            >>> record.plan[0]["channel"], record.plan[0]["share"] > 0.1
            (111, True)
        """
        known = None if channel is None else as_index(channel, "channel")
        edit = self._edit(at, layers, tokens, steps, noise)
        return self._with(AblateOutlier(channel=known, value=as_value(value), **edit))

    def steer(
        self,
        vector: Any,
        layers: Indices = None,
        scale: float = 1.0,
        *,
        at: str = "resid_post",
        steps: StepSpec = None,
        noise: Noise = None,
        tokens: TokenSpec = "all",
    ) -> Trace:
        """Add `scale * vector` to the stream, not normalised.

        Args:
            vector: [d_model], or [layer, d_model] with a row for each layer named, in their order; a tensor,
                an array or a list.

        Examples:
            >>> import dlens, torch
            >>> vector = torch.zeros(192)
            >>> trace = dlens.trace("trio/diffusion")
            >>> print(trace.steer(vector, layers=8, scale=4.0, noise=(0.5, 1.0), tokens="masked"))
            trace of trio/diffusion (16 layers, diffusion)
              add 4 x a vector [192] to resid_post of layers 8 on masked tokens at noise 0.5 to 1
        """
        kept = as_vector(vector, layers)
        edit = self._edit(at, layers, tokens, steps, noise)
        return self._with(Steer(vector=kept, scale=as_number(scale, "scale"), **edit))

    def patch(
        self,
        record: Record,
        layers: Indices = None,
        *,
        at: str = "resid_post",
        steps: StepSpec = None,
        noise: Noise = None,
        tokens: TokenSpec = "all",
    ) -> Trace:
        """Replace values by those another run had at the same place and step.

        Where a row of the other run, or that run itself, had ended, values stay as they are.

        Args:
            record: of a run that captured `at`, by its short form or its full names; its layers, steps, batch and
                positions must fit. Its tensors are used as they are, not copied.
            layers: places; None is every layer that the record holds.

        Examples:
            >>> import dlens, torch
            >>> trace = dlens.trace("trio/ar").capture("resid_post", "logits")
            >>> other, own = trace.forward("Once upon a time"), trace.forward("Once upon a hill")
            >>> patched = trace.patch(other, layers=9).forward("Once upon a hill")
            >>> torch.equal(patched["logits"], other["logits"]), torch.equal(own["logits"], other["logits"])
            (True, False)
        """
        if not isinstance(record, Record):
            raise ValueError(
                f"patch got {type(record).__name__}; expected the record of another run; pass what .forward or "
                f".generate returned"
            )
        edit = self._edit(at, layers, tokens, steps, noise)
        source = source_of(record, at)
        if layers is None:
            edit["layers"] = source.layers
        return self._with(Patch(source=source, **edit))

    def hook(
        self,
        name: str,
        fn: Callable[[Tensor, HookPoint], Tensor | None],
        *,
        layers: Indices = None,
        steps: StepSpec = None,
        noise: Noise = None,
        tokens: TokenSpec = "all",
    ) -> Trace:
        """Call `fn(value, hook)` at a hook point; what it returns replaces the value, None leaves it.

        Args:
            name: a full TransformerLens name ("blocks.5.hook_resid_post") or a short form.
            fn: gets a copy of the value [batch, position, ...] and a `HookPoint` with `name`, `layer`, `step`,
                `noise` and `masked`. Under guidance the batch holds both halves. At `pattern` it may only read,
                as attention was computed before.
            layers: for a short form the places; None is all.

        Examples:
            >>> import dlens
            >>> def double(value, hook):
            ...     return 2 * value if hook.step == 0 else None
            >>> record = dlens.trace("trio/ar").hook("blocks.5.hook_mlp_out", double).generate("Once upon a time", 4)
        """
        point, places = self._point(name, layers)
        return self._with(Hook(fn=fn, at=point, layers=places, tokens=as_tokens(tokens), scope=Scope(steps, noise)))

    def capture(self, *points: str, layers: Indices = None, steps: StepSpec = None, noise: Noise = None) -> Trace:
        """Keep tensors of hook points in the record.

        Args:
            points: full names or short forms.
            layers: for short forms the places; None is all.
            steps: when. In AR decoding a step computes the positions that it adds, the first one all of the prompt:
                tensors have no axis `step`, each position is kept from the step that first computed it
                (`record.step_of_position`), and `steps` chooses positions.

        Raises:
            ValueError: with `noise=`, since rows of a batch can disagree; select in the record instead.

        Examples:
            >>> import dlens
            >>> trace = dlens.trace("trio/diffusion").capture("resid_post", layers=[0, 8], steps=range(2))
            >>> record = trace.generate("Once upon a time", 4)
            >>> record["resid_post"].shape, record.dims("resid_post")
            (torch.Size([2, 2, 1, 8, 192]), ('step', 'layer', 'batch', 'position', 'd_model'))
        """
        if noise is not None:
            raise ValueError(
                f"capture got noise={noise!r}; expected steps= only, as the rows of a batch may differ; "
                f"capture and select afterwards, or use a measure, which sorts by noise"
            )
        if not points:
            raise ValueError("capture got no hook points; expected at least one; write .capture('resid_post')")
        chain = self
        for name in points:
            single = parse_point(name).layer
            point, places = self._point(name, layers)
            single = None if single is None else self.target.layer(single)
            chain = chain._with(Capture(point=point, layers=places, single=single, scope=Scope(steps)))
        return chain

    def measure(self, *measures: Measure) -> Trace:
        """Read measures while the model runs, in memory that does not grow with steps and positions.

        Examples:
            >>> import dlens
            >>> record = dlens.trace("trio/diffusion").measure(dlens.Cosine()).generate("Once upon a time", 4)
            >>> record.measures["cosine"]["cosine"].dims
            ('step', 'noise', 'state', 'layer')
        """
        if not measures:
            raise ValueError("measure got no measures; expected at least one; write .measure(dlens.Cosine())")
        chain = self
        for measure in measures:
            if not isinstance(measure, Measure):
                raise ValueError(f"measure got {measure!r}; expected a measure; make one, such as dlens.Cosine()")
            chain = chain._with(Measured(measure=measure))
        return chain

    def _point(self, name: str, layers: Indices) -> tuple[str, tuple[int, ...] | None]:
        point = parse_point(name)
        if layers is not None and (point.layer is not None or point.point not in BLOCK_POINTS):
            raise ValueError(
                f"layers={layers!r} with {name!r}, which is one place; expected layers only with a short form of a "
                f"point in the blocks; leave layers= out, or give the two in calls of their own"
            )
        return point.point, self.target.places(point.layer if layers is None else layers)

    def forward(self, inputs: Any, *, capture_limit: int = CAPTURE_LIMIT) -> Record:
        """Run the model once.

        Args:
            inputs: text, token ids, chat messages, or a list of these; mask tokens are taken as they are.
            capture_limit: most bytes that captured tensors may take.

        Raises:
            ValueError, IndexError, MemoryError: before anything is computed.
            NeverFired: an operation found nothing to act on.

        Examples:
            >>> import dlens
            >>> dlens.trace("trio/ar").capture("logits").forward(["Once", "Once upon a time"])["logits"].shape
            torch.Size([2, 4, 4096])
        """
        return run_forward(self.model, self.target, self.ops, inputs, as_index(capture_limit, "capture_limit"))

    def generate(
        self,
        prompts: Any,
        max_new_tokens: int = 64,
        *,
        sampler: Sampler | None = None,
        seed: int = 0,
        infill: bool = False,
        cache: CachePolicy = "auto",
        capture_limit: int = CAPTURE_LIMIT,
        progress: bool = True,
        on_step: OnStep | None = None,
        cancel: threading.Event | None = None,
    ) -> Record:
        """Decode continuations.

        Args:
            prompts: text, token ids, chat messages, or a list of these.
            max_new_tokens: how many tokens at most (exactly as many for diffusion models).
            sampler: one of `dlens.samplers`; None is the family's: one token a step, temperature 0.
            seed: of the sampler's random numbers.
            infill: fill the mask tokens that prompts hold, too.
            cache: AR decoding keeps its KV cache unless an operation forbids it ("auto"); "require" makes
                that an error, "off" always computes every position again.
            capture_limit: most bytes that captured tensors may take.
            progress: show a progress bar when the run takes longer than a second.
            on_step: called with a `StepView` after every step.
            cancel: when set, a waiting or running run ends with `Cancelled` between two steps.

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
        settings = RunSettings(
            new_tokens=as_index(max_new_tokens, "max_new_tokens"),
            sampler=sampler_for(self.model, sampler),
            seed=as_index(seed, "seed"),
            infill=infill,
            cache=cache,
            capture_limit=as_index(capture_limit, "capture_limit"),
            progress=progress,
            on_step=on_step,
            cancel=cancel,
        )
        return run_generation(self.model, self.target, self.ops, prompts, settings)

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
        batch = as_batch(self.model, inputs)
        sampler = None if max_new_tokens is None else sampler_for(self.model, sampler)
        shape = run_shape(self.model, batch, max_new_tokens or 0, sampler)
        return capture_bytes(self.ops, self.model, self.target, shape)

    def __str__(self) -> str:
        head = f"trace of {self.model.name} ({self.target.n_layers} layers, {self.model.family.objective})"
        return "\n".join([head, *(f"  {op.words()}" for op in self.ops)])

    __repr__ = __str__
