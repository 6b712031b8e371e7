"""What depends on the super-outlier channel: it is taken out, and so are others, as controls."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, final, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from dlens.findings.effects.residence import residence
from dlens.findings.effects.retention import Retention, check_baseline, enough, judged
from dlens.findings.effects.weights import Side, channel_weights, without_weights
from dlens.findings.scores.accuracy import Scores, score_task
from dlens.findings.scores.batches import rng
from dlens.findings.scores.canvases import Canvases, text_canvases
from dlens.findings.scores.loss import loss_of
from dlens.findings.scores.repetition import distinct, repetition
from dlens.findings.skipping.plan_skip import bare
from dlens.samplers import Sampler
from dlens.tasks import Task, get
from dlens.tracing.chain import Trace
from dlens.tracing.probes.outlier import channel_shares

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Collapse", "Effect", "collapse", "equal_energy"]

Where = Literal["nowhere", "activations", "rows", "columns"]
_LEAST_LAYERS = 3
_EXAMPLES = 3
_ENOUGH_ENERGY = 0.9


@dataclass(frozen=True)
class _Change:
    """One way to take channels out: its name, which channels, where, and what they are set to."""

    name: str
    channels: tuple[int, ...] = ()
    where: Where = "nowhere"
    value: Literal["zero", "mean"] = "zero"

    def applied(self, chain: Trace) -> Trace:
        if self.where != "activations":
            return chain
        return chain.ablate(range(chain.target.n_layers - 1), self.channels, self.value)


@final
@dataclass(frozen=True, eq=False)
class Effect:
    """What a model does without some channels.

    Args:
        name: of the change; "none" is the model as it is.
        channels: which were taken out.
        where: "activations" (resid_post of all blocks but the last), "rows" (weights that write to the channel),
            "columns" (weights that read from it), or "nowhere".
        value: what they were set to.
        share: their part of the stream's energy on the calibration text.
        kept: accuracy relative to the model as it is.
        loss: nats a token on text, next-token or denoising.
        repetition: share of repeated 4-grams in an answer.
        distinct_1, distinct_2: different tokens and pairs of tokens as a share of all, over all answers.
        empty: share of answers without any token.
        examples: the first answers.

    Examples:
        >>> import dlens
        >>> found = dlens.collapse("trio/ar", n=2, n_random=1, max_new_tokens=2, texts=["Once upon a time"])
        >>> zeroed = found.effects[1]
        >>> zeroed.name, zeroed.where, zeroed.value, zeroed.channels == (found.channel,)
        ('outlier to zero', 'activations', 'zero', True)
        >>> zeroed.row()["loss"] == zeroed.loss
        True
    """

    name: str
    channels: tuple[int, ...]
    where: Where
    value: str
    share: float
    kept: Retention = field(repr=False)
    loss: float
    repetition: float
    distinct_1: float
    distinct_2: float
    empty: float
    examples: tuple[str, ...] = field(repr=False)

    def row(self) -> dict[str, Any]:
        """The numbers, as a row of a table."""
        kept = ("accuracy", "retained", "low", "high", "p_value", "n")
        own = {name: value for name, value in vars(self).items() if name not in ("kept", "examples")}
        return own | {name: getattr(self.kept, name) for name in kept}


@final
@dataclass(frozen=True, eq=False)
class Collapse:
    """The super-outlier channel of a model, and what depends on it.

    Args:
        model, task, n, seed: what was asked of whom.
        channel: the channel with the largest share of the stream's energy on the calibration text.
        share: that share, averaged over all blocks but the last.
        where: by layer, state, noise and step, as `dlens.findings.effects.residence.residence` returns it.
        layers: where it is the largest channel at more than half of the positions.
        effects: the model as it is, then without the channel, then without others.
        notes: what a reader must know to read the numbers.

    Examples:
        >>> import dlens
        >>> found = dlens.collapse("trio/ar", n=2, n_random=0, max_new_tokens=2, texts=["Once upon a time"])
        >>> 0 <= found.channel < 192, 0 < found.share < 1, found.effects[0].name, found.table()[0]["model"]
        (True, True, 'none', 'trio/ar')
    """

    model: str
    task: str
    n: int
    seed: int
    channel: int
    share: float
    where: xr.Dataset = field(repr=False)
    layers: tuple[int, ...]
    effects: tuple[Effect, ...]
    notes: tuple[str, ...]

    def table(self) -> list[dict[str, Any]]:
        """One row a change."""
        return [{"model": self.model} | effect.row() for effect in self.effects]


def collapse(
    model: Any,
    task: Task | str = "trio-math",
    n: int = 64,
    seed: int = 0,
    *,
    channel: int | None = None,
    n_random: int = 3,
    prompts: Any = None,
    texts: Any = None,
    baseline: Scores | None = None,
    split: str = "test",
    sampler: Sampler | None = None,
    max_new_tokens: int | None = None,
    batch_size: int = 16,
    draws: int = 4,
    resamples: int = 9999,
    progress: bool = True,
) -> Collapse:
    """Find the super-outlier channel, say where it lives, and measure what breaks without it.

    It is set to zero and to its mean after every block but the last, and the weights that write to it
    (rows) or read from it (columns) are set to zero in every block. Controls set to zero single channels at
    random, and the next-largest channels that together hold as much energy.
    How arXiv 2605.06366 prunes the channel is not public, so each of these is its own row.

    Args:
        model: anything `dlens.trace` takes; its weights are afterwards bit for bit what they were.
        task, n, seed, split, sampler, max_new_tokens, batch_size, baseline, resamples, progress: as in `retention`.
        channel: the channel, where it is known; found on the shipped calibration text by default.
        n_random: how many random channels.
        prompts: where the channel lives is read while these are continued; see `residence`.
        texts, draws: of the loss; see `dlens.findings.scores.loss.text_loss`.

    Raises:
        ValueError, IndexError: before anything is computed: fewer than 3 blocks, an unknown task, too few
            problems, a baseline on other problems; afterwards: activations that are not finite.

    Examples:
        >>> import dlens
        >>> found = dlens.collapse("trio/ar", n=2, n_random=0, max_new_tokens=2, texts=["Once upon a time"])
        >>> [effect.name for effect in found.effects][:3]
        ['none', 'outlier to zero', 'outlier to mean']
    """
    chain = bare(model, "collapse")
    task = get(task) if isinstance(task, str) else task
    check_baseline(baseline, task, task.problems(enough(n), seed, split))
    _check_size(chain, channel, n_random)
    options: dict[str, Any] = {"split": split, "sampler": sampler, "max_new_tokens": max_new_tokens}
    options |= {"batch_size": batch_size, "progress": progress}
    canvases = text_canvases(chain.model, texts, draws, seed)
    asking = _Asking(chain, task, n, seed, options, canvases, resamples)
    shares = _shares(chain)
    found = int(shares.argmax()) if channel is None else channel
    changes, notes = _changes(chain, found, shares, n_random, seed)
    # The default sampler, as one for the answers may not fit another number of tokens.
    where = residence(chain, found, prompts, seed=seed)
    before = asking.answers(chain) if baseline is None else baseline
    effects = tuple(asking.effect(change, before, shares) for change in changes)
    return Collapse(
        model=chain.model.name,
        task=task.name,
        n=n,
        seed=seed,
        channel=found,
        share=float(shares[found]),
        where=where,
        layers=tuple(where["layer"].values[where["peak_share"].values > 0.5].tolist()),
        effects=effects,
        notes=notes,
    )


def equal_energy(shares: Float[Tensor, " d_model"], channel: int) -> tuple[int, ...]:
    """The largest channels but one, as many as come closest to its share of the energy.

    Empty where half of all channels hold less than nine tenths of it together: without so many, nothing is left
    to compare with.

    Examples:
        >>> equal_energy(torch.tensor([0.1, 0.4, 0.3, 0.15, 0.05]), 1)
        (2, 3)
    """
    others = [c for c in shares.argsort(descending=True).tolist() if c != channel]
    total = shares[others].cumsum(0)[: max(1, len(shares) // 2)]
    if total[-1] < _ENOUGH_ENERGY * shares[channel]:
        return ()
    return tuple(others[: int((total - shares[channel]).abs().argmin()) + 1])


@dataclass(frozen=True)
class _Asking:
    """How every change is measured: the same problems, the same texts."""

    chain: Trace
    task: Task
    n: int
    seed: int
    options: dict[str, Any]
    canvases: Canvases
    resamples: int

    def answers(self, trace: Trace) -> Scores:
        return score_task(trace, self.task, self.n, self.seed, **self.options)

    def effect(self, change: _Change, before: Scores, shares: Float[Tensor, " d_model"]) -> Effect:
        trace = change.applied(self.chain)
        with _without(self.chain, change):
            after = before if change.where == "nowhere" else self.answers(trace)
            loss = loss_of(trace, self.canvases)
        tokens = [self.chain.model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in after.texts]
        return Effect(
            name=change.name,
            channels=change.channels,
            where=change.where,
            value=change.value,
            share=float(shares[list(change.channels)].sum()),
            kept=judged(self.chain.model.name, before, after, self.seed, resamples=self.resamples),
            loss=loss.value,
            repetition=repetition(tokens),
            distinct_1=distinct(tokens, 1),
            distinct_2=distinct(tokens, 2),
            empty=sum(not own for own in tokens) / len(tokens),
            examples=after.texts[:_EXAMPLES],
        )


def _without(chain: Trace, change: _Change) -> AbstractContextManager[None]:
    if change.where == "rows" or change.where == "columns":
        return without_weights(chain.model, change.channels[0], change.where)
    return nullcontext()


def _changes(
    chain: Trace, channel: int, shares: Float[Tensor, " d_model"], n_random: int, seed: int
) -> tuple[list[_Change], tuple[str, ...]]:
    """Every change, and notes on what the controls are."""
    only = (channel,)
    changes = [
        _Change("none"),
        _Change("outlier to zero", only, "activations"),
        _Change("outlier to mean", only, "activations", "mean"),
    ]
    notes: list[str] = []
    for side in get_args(Side):
        try:
            channel_weights(chain.model, channel, side)
        except ValueError as error:
            notes.append(f"no {side} to zero: {error}")
        else:
            changes.append(_Change(f"outlier's {side} to zero", only, side))
    others = torch.tensor([c for c in range(len(shares)) if c != channel])
    chosen = others[torch.randperm(len(others), generator=rng(seed))[:n_random]].tolist()
    changes += [_Change(f"random channel {c} to zero", (c,), "activations") for c in chosen]
    next_largest = equal_energy(shares, channel)
    if not next_largest:
        notes.append(f"no control of equal energy: the outlier holds {shares[channel]:.1%}, half of all channels less")
        return changes, tuple(notes)
    changes.append(_Change("next channels to zero", next_largest, "activations"))
    notes.append(
        f"the next {len(next_largest)} channels hold {shares[list(next_largest)].sum():.1%} of the energy, "
        f"the outlier {shares[channel]:.1%}"
    )
    return changes, tuple(notes)


def _check_size(chain: Trace, channel: int | None, n_random: int) -> None:
    n_layers, d_model = chain.target.n_layers, chain.target.d_model
    if n_layers < _LEAST_LAYERS:
        raise ValueError(
            f"{chain.model.name} has {n_layers} blocks; expected at least {_LEAST_LAYERS}, as the first may make an "
            f"outlier, the last may remove it, and it is measured between them; take a deeper model"
        )
    if channel is not None and not 0 <= channel < d_model:
        raise IndexError(f"channel {channel} of {chain.model.name}; expected 0 to {d_model - 1}; give a smaller number")
    if not 0 <= n_random < d_model:
        raise ValueError(f"n_random={n_random}; expected 0 to {d_model - 1} random channels; give 3")


def _shares(chain: Trace) -> Float[Tensor, " d_model"]:
    """Each channel's share of the energy, if it has one."""
    shares = channel_shares(chain.model, chain.target)
    if not shares.isfinite().all():
        raise ValueError(
            f"activations of {chain.model.name} on the calibration text hold NaN, infinity or nothing but zeros; "
            f"expected finite ones, as channels are compared by their energy; load in a wider dtype"
        )
    return shares
