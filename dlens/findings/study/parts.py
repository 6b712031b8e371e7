"""The parts of a study: pure functions of a model, whose results are plain numbers, text by text."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from dlens.findings.effects.disruption import disruption
from dlens.findings.effects.phases import phases
from dlens.findings.scores.accuracy import Scores, score_problems
from dlens.findings.scores.batches import mask_share, rng
from dlens.findings.scores.canvases import Canvases
from dlens.findings.scores.loss import losses_of
from dlens.findings.scores.repetition import repetition
from dlens.findings.study.changes import third
from dlens.measures import Cosine, Outliers, Recency, pool
from dlens.models.model import Model
from dlens.samplers import LLaDA, Sampler
from dlens.tasks import Problem, Task
from dlens.tracing.chain import Trace
from dlens.tracing.probes.outlier import channel_shares

__all__ = ["MASK_RATES", "answers", "disrupted", "losses", "reading", "thirds", "two_tokens_a_step"]

MASK_RATES = (0.25, 0.5, 0.75)
_CELLS = ("step", "noise", "state")
_DISTANCES = 32
_BLOCK = 32
_EXAMPLES = 2
_PROMPTS, _PROMPT_TOKENS, _NEW_TOKENS = 16, 24, 32


def reading(chain: Trace, rows: Sequence[list[int]], seed: int = 0) -> dict[str, Any]:
    """What every layer does while a model reads texts, clean, and for a diffusion model also masked.

    Args:
        chain: the model.
        rows: token ids of the texts.
        seed: of the masks.

    Returns:
        "channel", the one with the largest share of the stream's energy on the calibration text, "early_channels", the
        two largest of the first third of the blocks, and by share of masked tokens, as text, for each text: "cosine"
        of each block, of all positions and of the masked ones apart, the channel's "share" of the energy by layer,
        "early_share" and "early_next_share" of the other two, "recency" by layer, and "similarity" of two positions
        by distance, averaged over layers.

    Raises:
        ValueError: activations that are not finite.
    """
    shares = channel_shares(chain.model, chain.target)
    _need_finite(chain.model, shares.tolist())
    channel = int(shares.argmax())
    early = channel_shares(chain.model, chain.target, third(chain.target.n_layers)).topk(2).indices.tolist()
    mask, generator = chain.model.family.mask_token_id, rng(seed)
    found: dict[str, Any] = {
        "channel": channel,
        "share": float(shares[channel]),
        "early_channels": early,
        "noise": {},
    }
    for rate in (0.0, *MASK_RATES) if chain.target.has_noise else (0.0,):
        canvases = [row if mask is None or not rate else mask_share(row, rate, mask, generator) for row in rows]
        read = [_read(chain, canvas, (channel, *early)) for canvas in canvases]
        found["noise"][f"{rate:g}"] = {name: [text[name] for text in read] for name in read[0]}
    return found


def _read(chain: Trace, canvas: list[int], channels: tuple[int, ...]) -> dict[str, list[float]]:
    measures = (Cosine(), Outliers(top=chain.model.d_model), Recency(max_distance=_DISTANCES))
    measured = chain.measure(*measures).forward(canvas).measures
    cosine, recency = measured["cosine"], measured["recency"]
    by_state = pool(cosine, "cosine", ["step", "noise"])
    own, first, second = (measured["outliers"].sel(channel=channel) for channel in channels)
    found = {
        "cosine": pool(cosine, "cosine", _CELLS),
        "cosine_masked": by_state.sel(state="masked"),
        "cosine_unmasked": by_state.sel(state="prompt"),
        "share": pool(own, "energy_share", _CELLS),
        "early_share": pool(first, "energy_share", _CELLS),
        "early_next_share": pool(second, "energy_share", _CELLS),
        # One text is in one bin of the noise axis.
        "recency": _only(recency["recency_index"]),
        "similarity": _only(recency["similarity"]).mean("layer"),
    }
    _need_finite(chain.model, found["cosine"].values.tolist())
    return {name: values.values.tolist() for name, values in found.items()}


def _only(values: Any) -> Any:
    return values.max("noise") if "noise" in values.dims else values


def losses(trace: Trace, texts: Sequence[Canvases]) -> dict[str, Any]:
    """The loss of each text, next-token or denoising, in nats a token; the share of FLOPs that is saved, as counted."""
    found = losses_of(trace, texts)
    record = trace.forward(texts[0].rows[0].inputs)
    saved = record.saved_flops / (record.flops + record.saved_flops)
    return {"losses": [loss.value for loss in found], "estimator": found[0].estimator, "flops_saved": saved}


def answers(trace: Trace, task: Task, problems: Sequence[Problem], seed: int = 0) -> dict[str, Any]:
    """Which problems are solved, with how repetitive the answers are and what they look like."""
    sampler = two_tokens_a_step(task.max_new_tokens) if trace.target.has_noise else None
    scores = score_problems(trace, task, problems, seed=seed, sampler=sampler, progress=False)
    return {
        "correct": [int(right) for right in scores.correct],
        "repetition": repetition(_tokens(trace.model, scores)),
        "examples": [text[:200] for text in scores.texts[:_EXAMPLES]],
        "notes": [*scores.notes, *scores.unfired],
    }


def disrupted(chain: Trace, layers: Sequence[int], rows: Sequence[list[int]], seed: int = 0) -> dict[str, Any]:
    """Cosine of the stream with and without blocks, by share of decided tokens and by layer, at deciding positions."""
    prompts = [row[:_PROMPT_TOKENS] for row in rows[:_PROMPTS]]
    sampler = two_tokens_a_step(_NEW_TOKENS) if chain.target.has_noise else None
    found = disruption(chain, layers, prompts, sampler=sampler, max_new_tokens=_NEW_TOKENS, seed=seed)
    data = found.data.sel(positions="deciding")
    values = {name: data[name].values.tolist() for name in ("cosine", "low", "high")}
    return values | {"fraction": data["fraction"].values.tolist(), "n": len(prompts)}


def thirds(chain: Trace, layers: Sequence[int], task: Task, n: int, seed: int = 0) -> dict[str, Any]:
    """Which problems are solved where blocks are skipped in one third of decoding only, and which without."""
    sampler = two_tokens_a_step(task.max_new_tokens) if chain.target.has_noise else None
    found = phases(chain, layers, task, n, seed, sampler=sampler, progress=False)
    kept = {
        third: {"before": [*map(int, own.before.correct)], "after": [*map(int, own.after.correct)]}
        for third, own in found.thirds.items()
    }
    return {"kept": kept, "notes": list(found.notes)}


def two_tokens_a_step(new_tokens: int) -> Sampler:
    """LLaDA's sampler at half as many steps as tokens, in blocks of 32, whatever the diffusion model.

    Examples:
        >>> two_tokens_a_step(64).planned_steps(64), two_tokens_a_step(9).planned_steps(9)
        (32, 4)
    """
    block = new_tokens if new_tokens % _BLOCK else _BLOCK
    return LLaDA(steps=new_tokens // block * max(1, block // 2), block_length=block)


def _tokens(model: Model, scores: Scores) -> list[list[int]]:
    return [model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in scores.texts]


def _need_finite(model: Model, values: Sequence[float]) -> None:
    if not all(map(isfinite, values)):
        raise ValueError(
            f"activations of {model.name} hold NaN, infinity or nothing but zeros; expected a finite direction at "
            f"every layer; load it in a wider dtype, such as dtype='float32'"
        )
