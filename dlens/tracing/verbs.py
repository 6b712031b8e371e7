"""The verbs of a trace: each adds an operation, and returns a new trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, SupportsIndex

from torch import Tensor

from dlens.axes import STREAM_POINTS, Part
from dlens.checks import as_flag, quoted
from dlens.features.autoencoder import SparseAutoencoder
from dlens.measures.base.measure import Measure
from dlens.metrics import Metric
from dlens.ops.ablate import Ablate, AblateOutlier, as_value
from dlens.ops.base.edit import Edit
from dlens.ops.base.given import Indices, as_index, as_indices, as_number
from dlens.ops.base.op import Op
from dlens.ops.base.scope import Scope, StepSpec
from dlens.ops.base.tokens import TokenSpec, as_tokens
from dlens.ops.capture import Capture
from dlens.ops.gradient import Gradient
from dlens.ops.hook import Hook, HookPoint
from dlens.ops.knockout import Knockout
from dlens.ops.patch import Patch
from dlens.ops.repeat import Repeat
from dlens.ops.skip import Skip
from dlens.ops.splice import Splice, site_of
from dlens.ops.steer import Scale, Steer, as_scale, as_vector
from dlens.ops.swap import Swap
from dlens.tracing.adding import Adding, Chain, Noise
from dlens.tracing.planning.measured import Measured
from dlens.tracing.records.patching import source_of
from dlens.tracing.records.record import Record

__all__ = ["Verbs"]


@dataclass(frozen=True, eq=False)
class Verbs(Adding):
    """What `Trace` can be told to do to its model; `Trace` says what the common arguments mean."""

    def skip(self: Chain, layers: Any, *, part: Part = "block", steps: StepSpec = None, noise: Noise = None) -> Chain:
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

    def swap(self: Chain, i: SupportsIndex, j: SupportsIndex, *, steps: StepSpec = None, noise: Noise = None) -> Chain:
        """Run the block of place `i` in place `j` and the other way round; swaps compose left to right.

        Examples:
            >>> import dlens
            >>> dlens.trace("trio/ar").swap(2, 7).forward("Once upon a time").saved_flops
            0
        """
        return self._with(Swap(i=self.target.layer(i), j=self.target.layer(j), scope=Scope(steps, noise)))

    def repeat(
        self: Chain, layer: SupportsIndex, times: SupportsIndex = 2, *, steps: StepSpec = None, noise: Noise = None
    ) -> Chain:
        """Run a block `times` times in a row, each time on what it returned before.

        Examples:
            >>> import dlens
            >>> dlens.trace("trio/ar").repeat(4).forward("Once upon a time").saved_flops < 0
            True
        """
        place, runs = self.target.layer(layer), as_index(times, "times")
        return self._with(Repeat(layer=place, times=runs, scope=Scope(steps, noise)))

    def ablate(
        self: Chain,
        layers: Indices,
        channels: Indices = None,
        value: Any = "zero",
        *,
        at: str = "resid_post",
        steps: StepSpec = None,
        noise: Noise = None,
        tokens: TokenSpec = "all",
        heads: Indices = None,
    ) -> Chain:
        """Set channels of the stream, or of another hook point, to a value.

        Args:
            layers: places; None is all.
            channels: which channels, along the last axis of `at`: neurons at mlp_post; None is all.
            value: "zero", "mean" (over the shipped calibration text), a number or a tensor or array
                ([channel] in the order of `channels`, [d_model], or a row of these for each layer of the model).
            heads: which heads, where `at` has any ("q", "k", "v", "z", "result", "pattern", ...); None is all.

        Examples:
            Without heads 0 and 2 of layer 3:

            >>> import dlens
            >>> dlens.trace("trio/ar").ablate(3, at="z", heads=[0, 2]).forward("Once upon a time").plan[0]["heads"]
            [0, 2]

            Channels of the stream:

            >>> import dlens
            >>> record = dlens.trace("trio/ar").ablate(3, [0, 5], 1.5).capture("resid_post").forward("Once upon a time")
            >>> record["blocks.3.hook_resid_post"][0, 0, [0, 5]].tolist()
            [1.5, 1.5]
        """
        try:
            edit = self._edit(at, layers, tokens, steps, noise, heads)
            width = self.target.width(edit["at"], edit["layers"])
            named = as_indices(channels, "channel", self.target.d_model if width is None else width)
        except IndexError as error:
            if channels is None:
                raise
            raise IndexError(f"{error}; the order is ablate(layers, channels)") from None
        return self._with(Ablate(channels=named, value=as_value(value), **edit))

    def ablate_outlier(
        self: Chain,
        channel: SupportsIndex | None = None,
        layers: Indices = None,
        value: Any = "zero",
        *,
        at: str = "resid_post",
        steps: StepSpec = None,
        noise: Noise = None,
        tokens: TokenSpec = "all",
    ) -> Chain:
        """Set the super-outlier channel to a value.

        Args:
            channel: which; None finds the one with the largest energy share on the shipped
                calibration text when the run starts; `record.plan` names it with its share.
            layers: places; None is all blocks but the last.
            value: as in `ablate`.

        After Layer Collapse in Diffusion Language Models (arXiv:2605.06366), which does not say how it prunes the
        channel: setting its values is dlens's choice.

        Examples:
            >>> import dlens
            >>> record = dlens.trace("trio/diffusion").ablate_outlier().forward("Once upon a time")
            >>> record.plan[0]["channel"], record.plan[0]["share"] > 0.1
            (111, True)
        """
        known = None if channel is None else as_index(channel, "channel")
        edit = self._edit(at, layers, tokens, steps, noise, points=STREAM_POINTS)
        return self._with(AblateOutlier(channel=known, value=as_value(value), **edit))

    def steer(
        self: Chain,
        vector: Any,
        layers: Indices = None,
        scale: Scale = 1.0,
        *,
        at: str = "resid_post",
        steps: StepSpec = None,
        noise: Noise = None,
        tokens: TokenSpec = "all",
        heads: Indices = None,
    ) -> Chain:
        """Add `scale * vector` to the stream, or to another hook point, not normalised.

        Args:
            vector: [d_model] (or the width of `at`), or [layer, d_model] with a row for each layer named, in their
                order; a tensor, an array or a list.
            scale: a number, or one for each planned step, such as the scales of `dlens.plan_steering`.
            heads: which heads, where `at` has any; each gets the vector.

        Examples:
            >>> import dlens, torch
            >>> vector = torch.zeros(192)
            >>> trace = dlens.trace("trio/diffusion")
            >>> print(trace.steer(vector, layers=8, scale=4.0, noise=(0.5, 1.0), tokens="masked"))
            trace of trio/diffusion (16 layers, diffusion)
              add 4 x a vector [192] to resid_post of layers 8 on masked tokens at noise 0.5 to 1
        """
        kept = as_vector(vector, layers)
        edit = self._edit(at, layers, tokens, steps, noise, heads)
        return self._with(Steer(vector=kept, scale=as_scale(scale), **edit))

    def splice(
        self: Chain,
        sae: SparseAutoencoder,
        layers: Indices = None,
        *,
        error: bool = True,
        features: Indices = None,
        value: float = 0.0,
        at: str | None = None,
        steps: StepSpec = None,
        noise: Noise = None,
        tokens: TokenSpec = "all",
    ) -> Chain:
        """Put a sparse autoencoder into the stream: values are encoded, features set, and what they decode to goes on.

        Args:
            layers, at: where; its own site by default.
            error: whether what it does not reconstruct is added again, so that only the features set change anything.
            features: which are set to `value`; None is none.

        Examples:
            >>> import dlens
            >>> sae = dlens.load_sae("trio/diffusion")
            >>> print(dlens.trace("trio/diffusion").splice(sae, error=False, tokens="masked"))
            trace of trio/diffusion (16 layers, diffusion)
              splice an autoencoder of 1024 features without its error into resid_post of layers 8 on masked tokens
        """
        as_flag(error, "error")
        at, layers = site_of(sae, at, layers)
        named = as_indices(features, "feature", sae.n_features)
        edit = self._edit(at, layers, tokens, steps, noise)
        del edit["heads"]
        return self._with(Splice(sae=sae, error=error, features=named, value=as_number(value, "value"), **edit))

    def patch(
        self: Chain,
        record: Record,
        layers: Indices = None,
        *,
        at: str = "resid_post",
        steps: StepSpec = None,
        noise: Noise = None,
        tokens: TokenSpec = "all",
        heads: Indices = None,
    ) -> Chain:
        """Replace values by those another run had at the same place and step.

        Where a row of the other run, or that run itself, had ended, values stay as they are.

        Args:
            record: of a run that captured `at`, by its short form or its full names; its layers, steps, batch and
                positions must fit. Its tensors are used as they are, not copied.
            layers: places; None is every layer that the record holds.
            heads: which heads, where `at` has any.

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
        edit = self._edit(at, layers, tokens, steps, noise, heads)
        source = source_of(record, edit["at"])
        if layers is None:
            edit["layers"] = source.layers
        return self._with(Patch(source=source, **edit))

    def hook(
        self: Chain,
        name: str,
        fn: Callable[[Tensor, HookPoint], Tensor | None],
        *,
        layers: Indices = None,
        steps: StepSpec = None,
        noise: Noise = None,
        tokens: TokenSpec = "all",
        heads: Indices = None,
    ) -> Chain:
        """Call `fn(value, hook)` at a hook point; what it returns replaces the value, None leaves it.

        Args:
            name: a full TransformerLens name ("blocks.5.hook_resid_post") or a short form.
            fn: gets a copy of the value [batch, position, ...] and a `HookPoint` with `name`, `layer`, `step`,
                `noise` and `masked`. Under guidance the batch holds both halves.
            layers: for a short form the places; None is all.
            heads: where what it returns counts, at a point with heads; None is all.

        Examples:
            >>> import dlens
            >>> def double(value, hook):
            ...     return 2 * value if hook.step == 0 else None
            >>> record = dlens.trace("trio/ar").hook("blocks.5.hook_mlp_out", double).generate("Once upon a time", 4)
        """
        point, places = self._point(name, layers)
        named = None if heads is None else self._heads(point, heads)
        scope = Scope(steps, noise)
        return self._with(Hook(fn=fn, at=point, layers=places, tokens=as_tokens(tokens), heads=named, scope=scope))

    def knockout(
        self: Chain,
        layers: Indices = None,
        source: TokenSpec = "all",
        target: TokenSpec = "all",
        *,
        heads: Indices = None,
        steps: StepSpec = None,
        noise: Noise = None,
    ) -> Chain:
        """Stop tokens from attending to others: what is left of their attention adds up to 1 again.

        A token that is left with nothing to attend to takes nothing from attention.

        Args:
            layers: places; None is all.
            source: the tokens that are hidden, as of `tokens=`.
            target: the tokens that they are hidden from.
            heads: in which heads; None is all.

        After Dissecting Recall of Factual Associations in Auto-Regressive Language Models (arXiv:2304.14767, section
        5): scores are set to minus infinity before the softmax.

        Examples:
            >>> import dlens
            >>> trace = dlens.trace("trio/diffusion").knockout([3, 4], source="masked", target="prompt", heads=[0])
            >>> print(trace)
            trace of trio/diffusion (16 layers, diffusion)
              knock masked tokens out of heads 0 of attn_scores of layers 3, 4 on prompt tokens
            >>> record = trace.capture("pattern").generate("Once upon a time", 4)
            >>> float(record["pattern"][0, 3, 0, 0, :4, 4:].abs().max())
            0.0
        """
        edit = self._edit("attn_scores", layers, target, steps, noise, heads)
        return self._with(Knockout(source=as_tokens(source), **edit))

    def capture(
        self: Chain, *points: str, layers: Indices = None, steps: StepSpec = None, noise: Noise = None
    ) -> Chain:
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
            chain = chain._with(Capture(**self._keep(name, layers), scope=Scope(steps)))
        return chain

    def gradient(self: Chain, *points: str, of: Metric, layers: Indices = None, steps: StepSpec = None) -> Chain:
        """Keep gradients of a metric with respect to the values of hook points.

        Each step has one backward pass, over its own forward alone: neither the sampler nor a cache is differentiated.
        A value that an operation replaced further on has gradient 0 where it was replaced. `record.flops` counts the
        forwards alone.

        Args:
            points: full names or short forms.
            of: a function of a step's logits and the step that gives one number a row, such as those of
                `dlens.metrics`. Logits of a diffusion model are aligned: those at a position predict its token.
            layers: for short forms the places; None is all.
            steps: when.

        Examples:
            >>> import dlens
            >>> metric = dlens.metrics.logit_difference(right=301, wrong=302)
            >>> trace = dlens.trace("trio/diffusion").gradient("resid_post", "z", of=metric, layers=[3, 8])
            >>> record = trace.generate("Once upon a time", 4)
            >>> record.gradients["z"].shape, record.metric.shape
            (torch.Size([4, 2, 1, 8, 3, 64]), torch.Size([4, 1]))
        """
        if not points:
            raise ValueError(
                "gradient got no hook points; expected at least one; write .gradient('resid_post', of=...)"
            )
        chain = self
        for name in points:
            chain = chain._with(Gradient(of=of, **self._keep(name, layers), scope=Scope(steps)))
        return chain

    def measure(self: Chain, *measures: Measure) -> Chain:
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
                raise ValueError(f"measure got {quoted(measure)}; expected a measure; make one, such as dlens.Cosine()")
            chain = chain._with(Measured(measure=measure))
        return chain

    def apply(self: Chain, op: Op) -> Chain:
        """Add an operation of one's own: a subclass of `dlens.Op`, or of `dlens.Edit` for one that writes values.

        Args:
            op: plain data that says what it does; see `dlens.Op`.

        Raises:
            ValueError: something else, or an operation that says it writes and has no `edit`.

        Examples:
            >>> import dlens
            >>> from dlens.ops.skip import Skip
            >>> print(dlens.trace("trio/ar").apply(Skip(layers=(3,))))
            trace of trio/ar (16 layers, autoregressive)
              skip layers 3
        """
        if not isinstance(op, Op):
            raise ValueError(
                f"apply got {quoted(op)}; expected an operation; pass an instance of a subclass of dlens.Op"
            )
        if not isinstance(op, Edit) and any(touch.use == "write" for touch in op.touches(self.target)):
            raise ValueError(
                f"'{op.words()}' says that it writes and is a {type(op).__name__}; expected a subclass of dlens.Edit, "
                f"whose edit(value, place) gives the new value; extend that"
            )
        return self._with(op)
