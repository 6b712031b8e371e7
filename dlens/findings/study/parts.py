"""The parts of a study: what profiles, losses, answers, disruption and phases say of a model, text by text."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from dlens.compression.compress import compressed as compress
from dlens.compression.recipe import Recipe
from dlens.compression.spectral_alpha import spectral_alpha
from dlens.findings.effects.applied import flops_saved
from dlens.findings.effects.disruption import disruption
from dlens.findings.effects.phases import phases
from dlens.findings.layers.compare import third
from dlens.findings.layers.profile import profile
from dlens.findings.scores.accuracy import answer_tokens, score_problems
from dlens.findings.scores.batches import batched, masked_rows, rng
from dlens.findings.scores.canvases import Canvases
from dlens.findings.scores.decoding import Decoding
from dlens.findings.scores.loss import losses_of
from dlens.findings.scores.repetition import repetition
from dlens.findings.study.results import (
    Answers,
    Compressed,
    Disrupted,
    Losses,
    Reading,
    Solved,
    Spectra,
    TextReading,
    Thirds,
)
from dlens.measures import Cosine, Outliers, Recency
from dlens.models.model import Model
from dlens.ops.base.scope import Third
from dlens.samplers import LLaDA, Sampler
from dlens.tasks import Problem, Task
from dlens.tracing.chain import Trace, trace
from dlens.tracing.planning.kv_cache import Caching
from dlens.tracing.probes.outlier import channel_shares

__all__ = [
    "NEW_TOKENS",
    "PROMPTS",
    "PROMPT_TOKENS",
    "READING_RATES",
    "answers",
    "compressed",
    "disrupted",
    "losses",
    "reading",
    "spectra",
    "thirds",
    "two_tokens_a_step",
]

# Shares of masked tokens at which a diffusion model reads, besides text without masks.
READING_RATES = (0.25, 0.5, 0.75)
# What is continued to compare representations at matched points: so many texts, so many tokens of each, by so many.
PROMPTS, PROMPT_TOKENS, NEW_TOKENS = 16, 24, 32
_DISTANCES = 32
_BLOCK = 32
_EXAMPLES, _EXAMPLE_LENGTH = 2, 200


def reading(chain: Trace, rows: Sequence[list[int]], seed: int = 0) -> Reading:
    """What every layer does while a model reads texts, clean, and for a diffusion model also masked.

    Args:
        chain: the model.
        rows: token ids of the texts.
        seed: of the masks.

    Raises:
        ValueError: activations that are not finite.
    """
    shares = channel_shares(chain.model, chain.target)
    _need_finite(chain.model, shares.tolist())
    channel = int(shares.argmax())
    first, second = channel_shares(chain.model, chain.target, third(chain.target.n_layers)).topk(2).indices.tolist()
    noise = {
        rate: TextReading.of([_read(chain, canvas, (channel, first, second)) for canvas in canvases])
        for rate, canvases in _canvases(chain, rows, seed).items()
    }
    return Reading(channel, float(shares[channel]), (first, second), noise)


def _canvases(chain: Trace, rows: Sequence[list[int]], seed: int) -> dict[float, Sequence[list[int]]]:
    """The texts at each share of masked tokens."""
    mask = chain.model.family.mask_token_id
    if mask is None or not chain.target.has_noise:
        return {0.0: rows}
    masked = masked_rows(rows, READING_RATES, mask, rng(seed))
    return {0.0: rows} | dict(zip(READING_RATES, batched(masked, len(rows)), strict=True))


def _read(chain: Trace, canvas: list[int], channels: tuple[int, int, int]) -> dict[str, list[float]]:
    measures = (Cosine(), Outliers(top=chain.model.d_model), Recency(max_distance=_DISTANCES))
    found = profile(chain, [canvas], "clean", measures=measures)
    by_state, recency = found.pooled("cosine", "cosine", by=["state"]), found.measures["recency"]
    shares = found.pooled("outliers", "energy_share")
    own, early, following = (shares.sel(channel=channel) for channel in channels)
    values = {
        "cosine": found.pooled("cosine", "cosine"),
        "cosine_masked": by_state.sel(state="masked"),
        "cosine_unmasked": by_state.sel(state="prompt"),
        "share": own,
        "early_share": early,
        "early_next_share": following,
        # One text is in one bin of the noise axis.
        "recency": _only(recency["recency_index"]),
        "similarity": _only(recency["similarity"]).mean("layer"),
    }
    _need_finite(chain.model, values["cosine"].values.tolist())
    return {name: own.values.tolist() for name, own in values.items()}


def _only(values: Any) -> Any:
    return values.max("noise") if "noise" in values.dims else values


def losses(trace: Trace, texts: Sequence[Canvases]) -> Losses:
    """The loss of each text, next-token or denoising; the share of a forward's FLOPs that is saved."""
    found = losses_of(trace, texts, mixed=True)
    _need_finite(trace.model, [loss.value for loss in found])
    skips = any(op.structure(trace.target) for op in trace.ops)
    saved = flops_saved(trace.forward(texts[0].rows[0].inputs)) if skips else 0.0
    return Losses(tuple(loss.value for loss in found), found[0].estimator, saved)


def answers(trace: Trace, task: Task, problems: Sequence[Problem], seed: int = 0, cache: Caching = "auto") -> Answers:
    """Which problems are solved, with how repetitive the answers are and what they look like."""
    decoding = Decoding(_sampler(trace, task.max_new_tokens), cache=cache, seed=seed, progress=False)
    scores = score_problems(trace, task, problems, decoding)
    examples = tuple(text[:_EXAMPLE_LENGTH] for text in scores.texts[:_EXAMPLES])
    return Answers(
        scores.correct, repetition(answer_tokens(trace.model, scores)), examples, (*scores.notes, *scores.unfired)
    )


def disrupted(
    chain: Trace, layers: Sequence[int], rows: Sequence[list[int]], seed: int = 0, cache: Caching = "auto"
) -> Disrupted:
    """Cosine of the stream with and without blocks, by share of decided tokens and by layer, at deciding positions."""
    prompts = [row[:PROMPT_TOKENS] for row in rows[:PROMPTS]]
    sampler = _sampler(chain, NEW_TOKENS)
    found = disruption(chain, layers, prompts, sampler=sampler, max_new_tokens=NEW_TOKENS, cache=cache, seed=seed)
    data = found.data.sel(positions="deciding")
    cosine, low, high = (data[name].values for name in ("cosine", "low", "high"))
    return Disrupted(cosine, low, high, tuple(data["fraction"].values.tolist()), len(prompts))


def thirds(chain: Trace, layers: Sequence[int], task: Task, n: int, seed: int = 0) -> Thirds:
    """Which problems are solved where blocks are skipped in one third of decoding only, and which without."""
    found = phases(chain, layers, task, n, seed, sampler=_sampler(chain, task.max_new_tokens), progress=False)
    kept: dict[Third, Solved] = {
        name: Solved(own.before.correct, own.after.correct) for name, own in found.thirds.items()
    }
    return Thirds(kept, found.notes)


def compressed(
    chain: Trace,
    recipe: Recipe,
    task: Task,
    problems: Sequence[Problem],
    texts: Sequence[Canvases],
    seed: int = 0,
    cache: Caching = "auto",
) -> Compressed:
    """What a model does with fewer bits or weights: the same problems and texts."""
    small = compress(chain.model, recipe, progress=False)
    assert small.compression is not None
    own = trace(small)
    solved, read = answers(own, task, problems, seed, cache), losses(own, texts)
    return Compressed(small.compression.words, tuple(small.compression.left_out), solved.correct, read.losses)


def spectra(chain: Trace) -> Spectra:
    """How heavy the tails of the weights' spectra are."""
    return Spectra(spectral_alpha(chain.model, progress=False)["alpha"].values)


def _sampler(trace: Trace, new_tokens: int) -> Sampler | None:
    """What a diffusion model decodes with."""
    return two_tokens_a_step(new_tokens) if trace.target.has_noise else None


def two_tokens_a_step(new_tokens: int) -> Sampler:
    """LLaDA's sampler at half as many steps as tokens, in blocks of 32, whatever the diffusion model.

    Examples:
        >>> two_tokens_a_step(64).planned_steps(64), two_tokens_a_step(9).planned_steps(9)
        (32, 4)
    """
    block = new_tokens if new_tokens % _BLOCK else _BLOCK
    return LLaDA(steps=new_tokens // block * max(1, block // 2), block_length=block)


def _need_finite(model: Model, values: Sequence[float]) -> None:
    if not all(map(isfinite, values)):
        raise ValueError(
            f"activations of {model.name} hold NaN, infinity or nothing but zeros; expected a finite direction at "
            f"every layer; load it in a wider dtype, such as dtype='float32'"
        )
