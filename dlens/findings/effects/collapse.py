"""What depends on the super-outlier channel: it is taken out, and so are others, as controls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final, get_args

from jaxtyping import Float
from torch import Tensor

from dlens.checks import check_fields
from dlens.findings.effects.change import Change, Where, equal_energy, random_channels
from dlens.findings.effects.residence import residence
from dlens.findings.effects.retention import Retention, asked_of_both, judged
from dlens.findings.effects.weights import Side, channel_weights
from dlens.findings.layers.compare import third
from dlens.findings.scores.accuracy import Scores, answer_tokens, refuse_other_answers, score_problems
from dlens.findings.scores.canvases import Canvases, text_canvases
from dlens.findings.scores.decoding import Decoding
from dlens.findings.scores.loss import loss_of
from dlens.findings.scores.repetition import distinct, repetition
from dlens.findings.skipping.choosable import bare
from dlens.ops.base.given import as_index
from dlens.samplers import Sampler
from dlens.tasks import Problem, Task
from dlens.tracing.chain import Trace
from dlens.tracing.probes.outlier import channel_shares

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Collapse", "Effect", "collapse"]

_LEAST_LAYERS = 3
_EXAMPLES = 3


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

    def __post_init__(self) -> None:
        check_fields(self, "let dlens.collapse make it", Retention)

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
        effects: the model as it is, then without the channel, then without others, first that of the early blocks
            where it is another.
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

    def __post_init__(self) -> None:
        import xarray as xr

        check_fields(self, "let dlens.collapse make it", Effect, xr.Dataset)

    def __str__(self) -> str:
        layers = f"largest after layers {', '.join(map(str, self.layers))}" if self.layers else "nowhere the largest"
        head = (
            f"Collapse of {self.model} on {self.task}: channel {self.channel}, {self.share:.1%} of the energy, {layers}"
        )
        rows = [
            f"  {own.name}: {sum(own.kept.after.correct)} of {self.n} solved, loss {own.loss:.4f}"
            for own in self.effects
        ]
        return "\n".join([head, *rows])

    __repr__ = __str__

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
    progress: bool = True,
) -> Collapse:
    """Find the super-outlier channel, say where it lives, and measure what breaks without it.

    It is set to zero and to its mean after every block but the last, and the weights that write to it
    (rows) or read from it (columns) are set to zero in every block. Where another channel is the largest of the
    first third of the blocks, it is set to zero and to its mean, too: arXiv 2605.06366 speaks of an outlier of early
    layers. Controls set to zero single channels at
    random, and the next-largest channels that together hold as much energy.
    How arXiv 2605.06366 prunes the channel is not public, so each of these is its own row.

    Args:
        model: anything `dlens.trace` takes; its weights are afterwards bit for bit what they were.
        task, n, seed, baseline, split, sampler, max_new_tokens, batch_size, progress: as in `retention`.
        channel: the channel, where it is known, and then no other; found on the shipped calibration text by default.
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
    task, problems = asked_of_both(task, n, seed, split, baseline)
    _check_size(chain, channel, n_random)
    canvases = text_canvases(chain.model, texts, draws, seed)
    decoding = Decoding(sampler, max_new_tokens, batch_size=batch_size, seed=seed, progress=progress)
    refuse_other_answers(chain.model, task, decoding.of(task), baseline)
    exam = _Exam(chain, task, problems, canvases, decoding)
    shares = _shares(chain)
    found = int(shares.argmax()) if channel is None else channel
    early = _early(chain) if channel is None else found
    changes, notes = _changes(chain, found, early, shares, n_random, seed)
    # The default sampler, as one for the answers may not fit another number of tokens.
    where = residence(chain, found, prompts, seed=seed)
    before = exam.answers(chain) if baseline is None else baseline
    effects = tuple(exam.effect(change, before, shares) for change in changes)
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


@dataclass(frozen=True)
class _Exam:
    """What the model answers and reads with every change: the same problems, the same texts."""

    chain: Trace
    task: Task
    problems: tuple[Problem, ...]
    canvases: Canvases
    decoding: Decoding

    def answers(self, trace: Trace) -> Scores:
        return score_problems(trace, self.task, self.problems, self.decoding)

    def effect(self, change: Change, before: Scores, shares: Float[Tensor, " d_model"]) -> Effect:
        trace = change.applied(self.chain)
        with change.holding(self.chain):
            after = before if change.where == "nowhere" else self.answers(trace)
            loss = loss_of(trace, self.canvases)
        tokens = answer_tokens(self.chain.model, after)
        seed = self.decoding.seed
        return Effect(
            name=change.name,
            channels=change.channels,
            where=change.where,
            value=change.value,
            share=float(shares[list(change.channels)].sum()),
            kept=judged(self.chain.model.name, before, after, seed),
            loss=loss.value,
            repetition=repetition(tokens),
            distinct_1=distinct(tokens, 1),
            distinct_2=distinct(tokens, 2),
            empty=sum(not own for own in tokens) / len(tokens),
            examples=after.texts[:_EXAMPLES],
        )


def _changes(
    chain: Trace, channel: int, early: int, shares: Float[Tensor, " d_model"], n_random: int, seed: int
) -> tuple[list[Change], tuple[str, ...]]:
    """Every change, and notes on what the controls are."""
    changes = [
        Change("none"),
        Change("outlier to zero", channels=(channel,)),
        Change("outlier to mean", channels=(channel,), value="mean"),
    ]
    notes: list[str] = []
    for side in get_args(Side):
        try:
            channel_weights(chain.model, channel, side)
        except ValueError as error:
            notes.append(f"no {side} to zero: {error}")
        else:
            changes.append(Change(f"outlier's {side} to zero", channels=(channel,), weights=side))
    if early != channel:
        changes.append(Change("early outlier to zero", channels=(early,)))
        changes.append(Change("early outlier to mean", channels=(early,), value="mean"))
        notes.append(
            f"channel {early} is the largest of the first third of the blocks, {channel} over all but the last"
        )
    drawn = [other for other in random_channels(channel, len(shares), n_random + 1, seed) if other != early]
    for other in drawn[:n_random]:
        changes.append(Change(f"random channel {other} to zero", channels=(other,)))
    next_largest = equal_energy(shares, channel)
    if not next_largest:
        notes.append(f"no control of equal energy: the outlier holds {shares[channel]:.1%}, half of all channels less")
        return changes, tuple(notes)
    changes.append(Change("next channels to zero", channels=next_largest))
    notes.append(
        f"the next {len(next_largest)} channels hold {shares[list(next_largest)].sum():.1%} of the energy, "
        f"the outlier {shares[channel]:.1%}"
    )
    return changes, tuple(notes)


def _early(chain: Trace) -> int:
    """The channel with the largest share of the energy in the first third of the blocks."""
    return int(channel_shares(chain.model, chain.target, third(chain.target.n_layers)).argmax())


def _check_size(chain: Trace, channel: int | None, n_random: int) -> None:
    n_layers, d_model = chain.target.n_layers, chain.target.d_model
    if n_layers < _LEAST_LAYERS:
        raise ValueError(
            f"{chain.model.name} has {n_layers} blocks; expected at least {_LEAST_LAYERS}, as the first may make an "
            f"outlier, the last may remove it, and it is measured between them; take a deeper model"
        )
    if channel is not None and not 0 <= as_index(channel, "channel") < d_model:
        raise IndexError(f"channel {channel} of {chain.model.name}; expected 0 to {d_model - 1}; give a smaller number")
    if not 0 <= as_index(n_random, "n_random") < d_model:
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
