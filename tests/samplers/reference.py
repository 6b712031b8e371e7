"""The samplers once more, from their published description: one prompt, the whole canvas, plain loops."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dlens.samplers import Ancestral, BlockDiffusion, Dream, FirstHitting, LLaDA, Threshold
from tests.samplers.fakes import EOS, MASK, TURN, VOCAB, Draws, Network


def softmax(scores: list[float]) -> list[float]:
    top = max(scores)
    parts = [math.exp(score - top) for score in scores]
    whole = sum(parts)
    return [part / whole for part in parts]


def best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda i: values[i])


def scores_at(logits: Tensor, position: int, guidance: float = 0.0) -> list[float]:
    if guidance:
        c, u = logits[0, 0, position].double(), logits[1, 0, position].double()
        scores = (u + (guidance + 1) * (c - u)).tolist()
    else:
        scores = logits[0, position].double().tolist()
    scores[MASK] = -math.inf
    return scores


def gumbel_token(scores: list[float], temperature: float, uniform: Tensor | None) -> int:
    if uniform is None:
        return best(scores)
    noisy = [math.exp(s) / (-math.log(u)) ** temperature for s, u in zip(scores, uniform.tolist(), strict=True)]
    return best(noisy)


def llada(sampler: LLaDA, network: Network, prompt: list[int], new: int, draws: Draws) -> list[int]:
    """Section by section as in LLaDA's `generate`, with explicit steps and block length."""
    assert sampler.steps is not None and sampler.block_length is not None
    x, size, g = [*prompt, *[MASK] * new], sampler.block_length, sampler.guidance
    steps = sampler.steps // (new // size)
    for first in range(len(prompt), len(x), size):
        block = range(first, first + size)
        for step in range(steps):
            quota = size // steps + (step < size % steps)
            bare = [MASK] * len(prompt) + x[len(prompt) :]
            logits = network(torch.tensor([x]), torch.tensor([bare]) if g else None)
            noise = draws((1, size, VOCAB)) if sampler.temperature else None
            chance = draws((1, size)) if sampler.remasking == "random" else None
            tokens, confidence = {}, {}
            for place, position in enumerate(block):
                if x[position] != MASK:
                    continue
                scores = scores_at(logits, position, g)
                if sampler.eos_inf:
                    scores[EOS] = -math.inf
                token = gumbel_token(scores, sampler.temperature, None if noise is None else noise[0, place])
                if sampler.confidence_eos_inf:
                    scores[EOS] = scores[TURN] = -math.inf
                tokens[position] = token
                confidence[position] = softmax(scores)[token] if chance is None else chance[0, place].item()
            for position in sorted(tokens, key=lambda p: -confidence[p])[:quota]:
                x[position] = tokens[position]
    return x


def threshold(sampler: Threshold, network: Network, prompt: list[int], new: int, draws: Draws) -> list[int]:
    """Fast-dLLM's parallel decoding, with an explicit block length."""
    assert sampler.block_length is not None
    x, size = [*prompt, *[MASK] * new], sampler.block_length
    for first in range(len(prompt), len(x), size):
        while MASK in x[first : first + size]:
            logits = network(torch.tensor([x]))
            noise = draws((1, size, VOCAB)) if sampler.temperature else None
            tokens, confidence = {}, {}
            for place, position in enumerate(range(first, first + size)):
                if x[position] == MASK:
                    scores = scores_at(logits, position)
                    token = gumbel_token(scores, sampler.temperature, None if noise is None else noise[0, place])
                    tokens[position], confidence[position] = token, softmax(scores)[token]
            ordered = sorted(tokens, key=lambda p: -confidence[p])
            taken = 1
            for n, position in enumerate(ordered[1:], start=2):
                need = sampler.threshold if sampler.factor is None else 1 - sampler.factor / (n + 1)
                if confidence[position] < need:
                    break
                taken += 1
            for position in ordered[:taken]:
                x[position] = tokens[position]
    return x


def dream_distribution(sampler: Dream, scores: list[float]) -> list[float]:
    """Temperature, then top_p, then top_k, then softmax."""
    if sampler.temperature:
        scores = [score / sampler.temperature for score in scores]
    if sampler.top_p is not None:
        before, kept = 0.0, softmax(scores)
        for token in sorted(range(VOCAB), key=lambda t: -scores[t]):
            if before > sampler.top_p:
                scores[token] = -math.inf
            before += kept[token]
    if sampler.top_k is not None:
        least = sorted(scores, reverse=True)[sampler.top_k - 1]
        scores = [score if score >= least else -math.inf for score in scores]
    return softmax(scores)


def dream_guess(sampler: Dream, scores: list[float], uniform: float | None) -> tuple[int, float]:
    p = dream_distribution(sampler, scores)
    token = best(p)
    if uniform is not None:
        token, cumulated = 0, p[0]
        while cumulated <= uniform:
            token += 1
            cumulated += p[token]
    first, second = sorted(p, reverse=True)[:2]
    entropy = -sum(q * math.log(q + 1e-10) for q in p)
    return token, {"topk_margin": first - second, "entropy": -entropy}.get(sampler.algorithm, p[token])


def dream(sampler: Dream, network: Network, prompt: list[int], new: int, draws: Draws) -> list[int]:
    """Dream's `diffusion_generate`, with explicit steps; a run ends when nothing is masked."""
    assert sampler.steps is not None
    x, width = [*prompt, *[MASK] * new], len(prompt)
    levels = torch.linspace(1, sampler.eps, sampler.steps + 1)
    for step in range(sampler.steps):
        masked = [p for p in range(width, len(x)) if x[p] == MASK]
        if not masked:
            break
        last = step == sampler.steps - 1
        share = 1.0 if last else (1 - levels[step + 1] / levels[step]).item()
        logits = network(torch.tensor([x]))
        if sampler.algorithm == "origin":
            chance = draws((1, new))[0]
            masked = [p for p in masked if chance[p - width] < share]
        noise = draws((1, new))[0].tolist() if sampler.temperature else None
        guesses = {
            p: dream_guess(sampler, scores_at(logits, p), None if noise is None else noise[p - width]) for p in masked
        }
        if sampler.algorithm == "origin":
            taken = masked
        else:
            keys = {p: guess[1] for p, guess in guesses.items()}
            if sampler.alg_temp:
                race = draws((1, new))[0].tolist()
                keys = {p: math.exp(key / sampler.alg_temp) / -math.log(race[p - width]) for p, key in keys.items()}
            count = len(masked) if last else int(torch.tensor(float(len(masked))) * share)
            taken = sorted(keys, key=lambda p: -keys[p])[:count]
        for position in taken:
            x[position] = guesses[position][0]
    return x


def block_diffusion(sampler: BlockDiffusion, network: Network, prompt: list[int], new: int, draws: Draws) -> list[int]:
    """LLaDA2's and SDAR's loop, with LLaDA2.1's edits, and Fast-dLLM v2's parts of a block and first token."""
    size, heat = sampler.block_length, sampler.temperature
    x = [*prompt, *[MASK] * new]
    x += [MASK] * (-len(x) % size)
    for first in range(len(prompt) // size * size, len(x), size):
        mine = range(max(first, len(prompt)), first + size)
        step = after = 0
        while True:
            masked = [p for p in mine if x[p] == MASK]
            if not masked:
                if sampler.edit_threshold is None or after == sampler.max_post_steps:
                    break
                after += 1
            logits = network(torch.tensor([x[: first + size]]))
            noise: Any = draws((1, size))[0].tolist() if heat else None
            token, sure = {}, {}
            for p in masked if sampler.edit_threshold is None else mine:
                token[p], sure[p] = guessed(sampler, scores_at(logits, p), noise and noise[p - first])
            if sampler.first_alone and first and first in masked:
                x[first] = best(scores_at(logits, first))
            else:
                old = list(x)
                for p in due(sampler, masked, sure, step, first, new):
                    x[p] = token[p]
                edits = [
                    p
                    for p in token
                    if p not in masked and token[p] != old[p] and above(sampler, sure[p], sampler.edit_threshold)
                ]
                for p in edits:
                    x[p] = token[p]
                step += 1
                if not masked and not edits:
                    break
            if sampler.stop == "token" and (cut := ended(x, len(prompt))) is not None:
                return cut[: len(prompt) + new]
        if sampler.stop == "block" and (cut := ended(x, len(prompt))) is not None:
            return cut[: len(prompt) + new]
    return x[: len(prompt) + new]


def guessed(sampler: BlockDiffusion, scores: list[float], uniform: float | None) -> tuple[int, float]:
    """A token and its probability: the likeliest, or where cumulated probabilities pass a uniform number."""
    if uniform is None:
        return best(scores), max(softmax(scores))
    scores = [score / sampler.temperature for score in scores]
    if sampler.top_k is not None:
        least = sorted(scores)[-sampler.top_k]
        scores = [score if score >= least else -math.inf for score in scores]
    if sampler.top_p is not None:
        chances, mass = softmax(scores), 0.0
        for token in sorted(range(VOCAB), key=lambda t: -chances[t]):
            if mass > sampler.top_p:
                scores[token] = -math.inf
            mass += chances[token]
    chances = softmax(scores)
    masses = [sum(chances[: token + 1]) for token in range(VOCAB)]
    drawn = next(token for token, mass in enumerate(masses) if mass > uniform * masses[-1])
    return drawn, chances[drawn]


def above(sampler: BlockDiffusion, confidence: float, threshold: float | None) -> bool:
    if threshold is None:
        return False
    return confidence > threshold if sampler.strict else confidence >= threshold


def due(
    sampler: BlockDiffusion, masked: list[int], sure: dict[int, float], step: int, first: int, new: int
) -> list[int]:
    """The masks that are committed: all that are sure enough if they are as many as planned, else the surest."""
    if sampler.small_block is not None and masked:
        part = (masked[0] - first) // sampler.small_block
        masked = [p for p in masked if (p - first) // sampler.small_block == part]
    count = 1
    if sampler.steps is not None:
        steps = sampler.steps if sampler.minimal_topk is None else min(sampler.steps, new // sampler.minimal_topk)
        count = ([sampler.block_length // steps + (i < sampler.block_length % steps) for i in range(steps)] + [0] * 99)[
            step
        ]
    high = [p for p in masked if above(sampler, sure[p], sampler.threshold)]
    return high if len(high) >= count else sorted(masked, key=lambda p: -sure[p])[:count]


def ended(x: list[int], start: int) -> list[int] | None:
    """The row with ends of sequence for masks, if one stands before them all; None if not."""
    first = next((p for p in range(start, len(x)) if x[p] in (EOS, TURN)), None)
    if first is None or MASK in x[start:first]:
        return None
    return [EOS if p >= start and token == MASK else token for p, token in enumerate(x)]


def first_hitting(sampler: FirstHitting, network: Network, prompt: list[int], new: int, draws: Draws) -> list[int]:
    """BD3-LM's loop in its sampling mode without times, which its networks are not told."""
    size = sampler.block_length
    x = [*prompt, *[MASK] * new]
    x += [MASK] * (-len(x) % size)
    for first in range(len(prompt) // size * size, len(x), size):
        while masked := [p for p in range(first, first + size) if x[p] == MASK]:
            logits = network(torch.tensor([x[: first + size]]))
            noise, where = draws((1, size, VOCAB))[0], draws((1,)).item()
            place = masked[int(where * len(masked))]
            chances = softmax(scores_at(logits, place))
            if sampler.top_p is not None:
                order, mass = sorted(range(VOCAB), key=lambda t: -chances[t]), 0.0
                for rank, token in enumerate(order):
                    mass += chances[token]
                    if rank and mass > sampler.top_p:
                        chances[token] = 0.0
            x[place] = best(
                [c / -math.log(u) if c else 0.0 for c, u in zip(chances, noise[place - first].tolist(), strict=True)]
            )
        if sampler.stop != "never" and (cut := ended(x, len(prompt))) is not None:
            return cut[: len(prompt) + new]
    return x[: len(prompt) + new]


def ancestral(sampler: Ancestral, network: Network, prompt: list[int], new: int, draws: Draws) -> list[int]:
    """MDLM's cached loop: probabilities are computed anew when the canvas changed; at the end the likeliest."""
    assert sampler.steps is not None
    x, chances = [*prompt, *[MASK] * new], None
    times = torch.linspace(1, sampler.eps, sampler.steps + 1, dtype=torch.float64).tolist()
    for t, s in zip(times, times[1:], strict=False):
        if MASK not in x:
            return x
        if chances is None:
            logits = network(torch.tensor([x]))
            chances = {p: softmax(scores_at(logits, p)) for p in range(len(prompt), len(x)) if x[p] == MASK}
        noise, changed = draws((1, new, VOCAB))[0], False
        for p, chance in chances.items():
            rates = [c * (t - s) for c in chance]
            rates[MASK] = s
            pairs = zip(rates, noise[p - len(prompt)].tolist(), strict=True)
            x[p] = best([rate / -math.log(u) for rate, u in pairs])
            changed |= x[p] != MASK
        chances = None if changed else chances
    if MASK in x and chances is None:
        logits = network(torch.tensor([x]))
        chances = {p: softmax(scores_at(logits, p)) for p in range(len(x))}
    return [best(chances[p]) if chances and token == MASK else token for p, token in enumerate(x)]
