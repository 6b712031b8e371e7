"""How likely continuations of contexts are: exactly for AR models, a Monte-Carlo bound for diffusion models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any, final

from dlens.checks import as_flag, finite, plain_fields, refuse
from dlens.evaluation.draws import draw_masks, own_seed
from dlens.evaluation.reading import ReadTokens, Wanted
from dlens.findings.scores.batches import length_batches
from dlens.findings.scores.decoding import Decoding
from dlens.findings.scores.loss import forward_or_idle, refuse_idle
from dlens.models.model import Model
from dlens.ops.base.given import as_index
from dlens.samplers import LLaDA
from dlens.tracing.chain import Trace
from dlens.tracing.progress import quiet
from dlens.tracing.records.record import Record

__all__ = ["Bound", "Likelihood", "Pair", "log_likelihoods"]


@final
@dataclass(frozen=True)
class Bound:
    """How the likelihood of a diffusion model is bounded; nothing of it concerns an AR model.

    Args:
        draws: how many times each continuation is masked.
        guidance: g of classifier-free guidance, u + (g + 1)(c - u), with the context masked in u; 0 is none.
        check_greedy: decode each continuation greedily and compare, one forward a token; otherwise `greedy` is False.

    Examples:
        >>> Bound().draws
        128
    """

    draws: int = 128
    guidance: float = 0.0
    check_greedy: bool = False

    def __post_init__(self) -> None:
        as_flag(self.check_greedy, "check_greedy")
        if as_index(self.draws, "draws") < 1:
            refuse(
                "draws", self.draws, "at least 1, how many times each continuation is masked", "give for example 128"
            )
        guidance = finite(self.guidance)
        if guidance is None or guidance < 0:
            refuse("guidance", self.guidance, "0 or more", "0 is no guidance")
        plain_fields(self)


@final
@dataclass(frozen=True)
class Pair:
    """A continuation whose likelihood is asked for, after a context; both as token ids, and neither empty."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.context) + len(self.continuation)


@final
@dataclass(frozen=True)
class Likelihood:
    """How likely a continuation is.

    Args:
        value: its log-likelihood in nats, or a bound from below.
        greedy: whether greedy decoding gives it; False where nobody looked.
    """

    value: float
    greedy: bool


@final
@dataclass(frozen=True)
class _Row:
    """One row of a forward.

    Args:
        inputs: token ids.
        alone: the same with the context masked.
        wanted: what is read off its logits.
        weight: of their log-probability in that of the continuation.
        pair: whose row it is.
    """

    inputs: list[int]
    alone: list[int]
    wanted: Wanted
    weight: float
    pair: int


_BOUND, _DECODING = Bound(), Decoding(batch_size=8)


def log_likelihoods(
    trace: Trace, pairs: Sequence[Pair], bound: Bound = _BOUND, decoding: Decoding = _DECODING
) -> list[Likelihood]:
    """The log-likelihood of each continuation after its context.

    An AR model's is exact: the sum of the log-probabilities of its tokens. A diffusion model's is bounded from below:
    each draw masks `count` of its `length` tokens, and the mean over draws of length / count x the log-probability of
    the masked tokens is the bound; the context is never masked. Rows of many continuations share a forward.

    Args:
        trace: the model with whatever operations it has.
        pairs: contexts and continuations.
        bound: draws and guidance of a diffusion model.
        decoding: `batch_size` rows a forward, twice as many with guidance; `seed` of the draws; `progress`.

    Raises:
        ValueError: guidance of an AR model, an empty context or continuation, a mask token in a text; before anything
            is computed.
        NeverFired: an operation found nothing to act on in any batch.

    Source: LLaDA (arXiv 2502.09992), equation 6 and appendix B.5.

    Examples:
        >>> import dlens
        >>> pairs = [Pair((652, 401), (5, 6)), Pair((652,), (401, 5, 6))]
        >>> after_one, after_two = log_likelihoods(dlens.trace("trio/ar"), pairs)
        >>> after_one.value > after_two.value
        True
        >>> bound = log_likelihoods(dlens.trace("trio/diffusion"), pairs, Bound(draws=4))
        >>> [each.value < 0 for each in bound]
        [True, True]
    """
    _check(trace.model, pairs, bound)
    order = sorted(range(len(pairs)), key=lambda i: -len(pairs[i]))
    rows = (row for i in order for row in _rows(trace.model, pairs[i], i, bound, decoding.seed))
    values, greedy = [0.0] * len(pairs), [True] * len(pairs)
    idle: set[str] | None = None
    record: Record | None = None
    with _bar(len(pairs) * (1 if _is_ar(trace.model) else bound.draws), decoding.progress) as bar:
        for batch in _batches(trace.model, rows, decoding.batch_size):
            read, record, unfired = _read(trace, batch, bound.guidance)
            idle = unfired if idle is None else idle & unfired
            for row, (value, likeliest) in zip(batch, read, strict=True):
                values[row.pair] += row.weight * value
                greedy[row.pair] &= bool(likeliest)
            bar.update(len(batch))
    refuse_idle(idle, record)
    if not _is_ar(trace.model):
        greedy = _greedy(trace, pairs, bound, decoding) if bound.check_greedy else [False] * len(pairs)
    return [Likelihood(*each) for each in zip(values, greedy, strict=True)]


def _is_ar(model: Model) -> bool:
    return model.family.objective == "autoregressive"


def _check(model: Model, pairs: Sequence[Pair], bound: Bound) -> None:
    if bound.guidance and _is_ar(model):
        refuse("guidance", bound.guidance, f"0, as {model.name} is autoregressive and masks nothing", "leave it out")
    for pair in pairs:
        if not (pair.context and pair.continuation):
            raise ValueError(
                f"a context of {len(pair.context)} tokens with a continuation of {len(pair.continuation)}; expected at "
                f"least one each; begin with the tokenizer's first or last token, and drop empty continuations"
            )
        if model.family.mask_token_id in (*pair.context, *pair.continuation):
            raise ValueError(
                f"a text with the mask token of {model.name} in it; expected none, as only what is drawn is masked; "
                f"drop such texts, or load with a Family of another mask_token_id"
            )


def _rows(model: Model, pair: Pair, number: int, bound: Bound, seed: int) -> Iterator[_Row]:
    """What a model reads to say how likely a continuation is."""
    whole, length = [*pair.context, *pair.continuation], len(pair.continuation)
    if _is_ar(model):
        # Nothing is predicted from the last token.
        yield _Row(whole[:-1], [], Wanted(range(-length, 0), pair.continuation), 1.0, number)
        return
    mask, shift = model.family.mask_token_id, model.family.shift
    assert mask is not None
    for masked in draw_masks(length, bound.draws, own_seed(seed, pair.context, pair.continuation)):
        places = masked.nonzero().flatten().tolist()
        shown = [mask if hidden else token for hidden, token in zip(masked.tolist(), pair.continuation, strict=True)]
        wanted = Wanted([place - length - shift for place in places], [pair.continuation[place] for place in places])
        alone = [mask] * len(pair.context) + shown
        yield _Row([*pair.context, *shown], alone, wanted, length / len(places) / bound.draws, number)


def _batches(model: Model, rows: Iterator[_Row], size: int) -> Iterator[list[_Row]]:
    """Rows that run together; those of one length where the model does not hide padding."""
    groups = (rows,) if model.honours_padding else (same for _, same in groupby(rows, lambda row: len(row.inputs)))
    for group in groups:
        while batch := list(islice(group, size)):
            yield batch


def _read(trace: Trace, batch: Sequence[_Row], guidance: float) -> tuple[list[list[float]], Record, set[str]]:
    """Per row its log-probability, and whether each token is the likeliest; and what found nothing to act on."""
    read = ReadTokens(wanted=tuple(row.wanted for row in batch), guidance=guidance)
    inputs = [row.inputs for row in batch] + [row.alone for row in batch if guidance]
    record, unfired = forward_or_idle(trace.apply(read), inputs)
    return read.numbers().tolist(), record, unfired


def _greedy(trace: Trace, pairs: Sequence[Pair], bound: Bound, decoding: Decoding) -> list[bool]:
    """Whether decoding one token a step, the surest first, gives each continuation."""
    found = [False] * len(pairs)
    lengths = [len(pair.continuation) for pair in pairs]
    for length in sorted(set(lengths), reverse=True):
        members = [i for i, own in enumerate(lengths) if own == length]
        sampler = LLaDA(steps=length, block_length=length, guidance=bound.guidance)
        for batch in length_batches(trace.model, [pairs[i].context for i in members], decoding.batch_size):
            chosen = [members[i] for i in batch]
            record = trace.generate([list(pairs[i].context) for i in chosen], length, sampler=sampler, progress=False)
            for i, tokens in zip(chosen, record.tokens[:, -length:].tolist(), strict=True):
                found[i] = tuple(tokens) == pairs[i].continuation
    return found


def _bar(total: int, progress: bool) -> Any:
    from tqdm.auto import tqdm

    return tqdm(total=total, unit="row", delay=1.0, leave=False, disable=quiet(progress))
