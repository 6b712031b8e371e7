"""The changes that a study compares with the model as it is: which blocks are skipped, which channels are set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dlens.findings.effects.change import Change, equal_energy, random_channel
from dlens.findings.skipping.plan_skip import PAPER_THRESHOLD
from dlens.findings.skipping.rules import paper_rule
from dlens.findings.study.results import Reading
from dlens.tracing.chain import Trace
from dlens.tracing.probes.outlier import channel_shares

__all__ = ["SHARE", "changes", "runs_of_blocks"]

# Six of LLaDA-8B's 32 blocks (arXiv 2603.07475).
SHARE = 0.1875


def changes(chain: Trace, reading: Reading, seed: int = 0) -> dict[str, Change]:
    """Every change by its name, chosen from what `dlens.findings.study.parts.reading` found.

    The outlier is the largest channel of the early blocks, which arXiv 2605.06366 speaks of. Where another is the
    largest over all blocks but the last, that one is taken out, too, and stands in no control.

    Args:
        chain: the model.
        reading: of this model.
        seed: of the random channel.
    """
    n_layers, largest, outlier = chain.target.n_layers, reading.channel, reading.early_channels[0]
    n = max(1, round(SHARE * n_layers))
    apart, why = _apart(reading, n_layers, n)
    early, late = runs_of_blocks(n_layers, n)
    shares = channel_shares(chain.model, chain.target)
    random = random_channel(outlier, len(shares), seed, besides=(largest,))
    following = equal_energy(shares, outlier, besides=(largest,))
    found = [
        Change("whole", "as it is"),
        Change("apart", f"skip {_listed(apart)}: {why}", apart),
        Change("early run", f"skip {_listed(early)}: consecutive, early", early),
        Change("late run", f"skip {_listed(late)}: consecutive, late", late),
        Change("no outlier", f"channel {outlier} to zero", channels=(outlier,)),
        Change("no random", f"channel {random} to zero: chosen at random", channels=(random,)),
        Change("mean outlier", f"channel {outlier} to its mean", channels=(outlier,), value="mean"),
        Change("no next", _next(len(following)), channels=following),
    ]
    if largest != outlier:
        found.append(Change("no largest", f"channel {largest} to zero: the largest over all", channels=(largest,)))
    return {change.name: change for change in found}


def runs_of_blocks(n_layers: int, n: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """n blocks in a row in the middle of the first and of the last third of depth, the ends of four and more spared.

    Examples:
        >>> runs_of_blocks(16, 3)
        ((2, 3, 4), (11, 12, 13))
    """
    spared = int(n_layers > 3)
    inner = n_layers - 2 * spared
    starts = (round(spared + inner * centre / 6 - n / 2) for centre in (1, 5))
    early, late = (tuple(range(start, start + n)) for start in starts)
    return early, late


def _apart(reading: Reading, n_layers: int, n: int) -> tuple[tuple[int, ...], str]:
    """The published rule, over the mean cosine at all noise levels; without its threshold where that leaves too few."""
    cosine = np.mean([np.mean(texts.cosine, axis=0) for texts in reading.noise.values()], axis=0).tolist()
    for threshold in (PAPER_THRESHOLD, None):
        chosen, _ = paper_rule(cosine, range(n_layers), n, threshold)
        if len(chosen) == n:
            break
    rates = [f"{100 * rate:g}" for rate in sorted(reading.noise)]
    masked = f" by the cosine averaged over {', '.join(rates[:-1])} and {rates[-1]} % of the tokens masked"
    why = f"the most similar{masked if len(rates) > 1 else ''}, no two neighbours"
    if threshold is None:
        why += f", as too few are above {PAPER_THRESHOLD:g}"
    return tuple(sorted(chosen)), why


def _next(n: int) -> str:
    """What is set to zero as a control of equal energy."""
    if not n:
        return "nothing to zero, as half of all channels hold too little to be a control of equal energy"
    if n == 1:
        return "the next channel to zero: alone it comes closest in energy on the calibration texts"
    return f"the next {n} channels to zero: as many as come closest in energy on the calibration texts"


def _listed(layers: Sequence[int]) -> str:
    return ", ".join(map(str, layers))
