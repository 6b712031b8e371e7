"""The same skip in the early, the middle or the late third of decoding."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final, get_args

from dlens.checks import check_fields
from dlens.errors import UnfiredWarning
from dlens.findings.effects.applied import skipped_blocks
from dlens.findings.effects.retention import Retention, asked_of_both, judged
from dlens.findings.scores.accuracy import Scores, refuse_other_answers, score_problems
from dlens.findings.scores.batches import batched
from dlens.findings.scores.decoding import Decoding
from dlens.findings.skipping.choosable import bare
from dlens.ops.base.scope import Third
from dlens.samplers import Sampler
from dlens.tasks import Task
from dlens.tracing.chain import Trace

__all__ = ["Phases", "phases"]

THIRDS: tuple[Third, ...] = get_args(Third)
_NOISY = "thirds of the planned denoising steps"
_CAUSAL = (
    "thirds of the steps that the answer of the model as it is takes, the longest of each batch of answers that differ "
    "by a quarter at most; every step computes the whole sequence again"
)


@final
@dataclass(frozen=True, eq=False)
class Phases:
    """What is retained where blocks are skipped in one third of decoding only.

    Args:
        model: what decoded.
        layers: the blocks that were skipped.
        thirds: "early", "middle", "late" -> what is retained.
        notes: what a third is.

    Examples:
        >>> import dlens
        >>> found = dlens.phases("trio/diffusion", [5], n=2, max_new_tokens=3)
        >>> found.layers, [row["third"] for row in found.table()]
        ((5,), ['early', 'middle', 'late'])
    """

    model: str
    layers: tuple[int, ...]
    thirds: Mapping[Third, Retention]
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        check_fields(self, "let dlens.phases make it", Retention)

    def table(self) -> list[dict[str, Any]]:
        """One row a third."""
        layers = ", ".join(map(str, self.layers))
        return [
            {"third": third} | kept.row() | {"plan": f"skip layers {layers}"} for third, kept in self.thirds.items()
        ]


def phases(
    model: Any,
    plan: Any,
    task: Task | str = "trio-math",
    n: int = 64,
    seed: int = 0,
    *,
    baseline: Scores | None = None,
    split: str = "test",
    sampler: Sampler | None = None,
    max_new_tokens: int | None = None,
    batch_size: int = 16,
    progress: bool = True,
) -> Phases:
    """Task accuracy where the same blocks are skipped in the early, the middle or the late third of decoding.

    Autoregressive and diffusion models are made to do the same: both compute the whole sequence
    at every step, so that a skip acts on every position and on none before its third. Thirds
    are of the planned steps of a diffusion model, which fills the rest of its canvas after an
    answer ends. An autoregressive model stops there, so its thirds are those of its own answer
    before the change.

    Args:
        model: anything `dlens.trace` takes.
        plan: the blocks to skip: a SkipPlan or layers.
        task, n, seed, baseline, split, sampler, max_new_tokens, batch_size, progress: as in `retention`.

    Returns:
        `.thirds["early"]` and so on, each as `retention` returns it; FLOPs are not counted.

    Raises:
        ValueError, IndexError: before anything is computed: layers that the model lacks, an unknown
            task, too few problems, fewer than 3 steps, or a baseline on other problems.

    Examples:
        >>> import dlens
        >>> found = dlens.phases("trio/diffusion", [5], n=2, max_new_tokens=3)
        >>> list(found.thirds), found.thirds["late"].blocks_saved == 1 / 16 / 3
        (['early', 'middle', 'late'], True)
    """
    chain = bare(model, "phases")
    layers = skipped_blocks(chain, plan)
    task, problems = asked_of_both(task, n, seed, split, baseline)
    causal = not chain.target.has_noise
    cache = "off" if causal else "auto"
    decoding = Decoding(sampler, max_new_tokens, cache, batch_size, seed, progress).of(task)
    refuse_other_answers(chain.model, task, decoding, baseline)
    _need_thirds(chain, decoding.planned_steps(chain.model))
    before = score_problems(chain, task, problems, decoding) if baseline is None else baseline
    thirds: dict[Third, Retention] = {}
    for third in THIRDS:
        if causal:
            after = _answer_thirds(task, decoding, chain, layers, third, before)
        else:
            after = score_problems(chain.skip(layers, steps=third), task, problems, decoding)
        saved = len(layers) / chain.target.n_layers / len(THIRDS)
        thirds[third] = judged(chain.model.name, before, after, seed, saved)
    return Phases(chain.model.name, layers, thirds, (_CAUSAL if causal else _NOISY,))


def _answer_thirds(
    task: Task, decoding: Decoding, chain: Trace, layers: tuple[int, ...], third: Third, before: Scores
) -> Scores:
    """Scores with a skip in a third of the answers before it, in batches of answers of similar length."""
    groups = [part for alike in _alike(before.lengths) for part in batched(alike, decoding.batch_size)]
    parts = []
    for indices in groups:
        steps = _part(third, max(before.lengths[i] for i in indices))
        if third == "late":
            steps = range(steps.start, decoding.length)
        changed = chain.skip(layers, steps=steps) if steps else chain
        with warnings.catch_warnings():
            # Answers of a token or two have no late third.
            warnings.simplefilter("ignore", UnfiredWarning)
            parts.append(score_problems(changed, task, [before.problems[i] for i in indices], decoding))
    return _joined(parts, [i for indices in groups for i in indices])


def _alike(lengths: Sequence[int]) -> list[list[int]]:
    """Indices of lengths, in groups whose longest is at most a quarter longer than the shortest.

    Examples:
        >>> _alike([4, 9, 5, 10])
        [[0, 2], [1, 3]]
    """
    groups: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if groups and lengths[i] <= 1.25 * lengths[groups[-1][0]]:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def _part(third: Third, steps: int) -> range:
    """The steps of a third, as `Trace` takes them."""
    number = THIRDS.index(third)
    return range(number * steps // 3, (number + 1) * steps // 3)


def _joined(parts: Sequence[Scores], order: Sequence[int]) -> Scores:
    """The scores of parts of the problems, in the order of all."""
    at = sorted(range(len(order)), key=lambda i: order[i])

    def all_of(name: str) -> tuple[Any, ...]:
        values = [value for part in parts for value in getattr(part, name)]
        return tuple(values[i] for i in at)

    return replace(
        parts[0],
        problems=all_of("problems"),
        texts=all_of("texts"),
        correct=all_of("correct"),
        lengths=all_of("lengths"),
        seconds=sum(part.seconds for part in parts),
        plan=tuple(entry for part in parts for entry in part.plan),
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        unfired=tuple(dict.fromkeys(op for part in parts for op in part.unfired)),
    )


def _need_thirds(chain: Trace, steps: int) -> None:
    if steps < len(THIRDS):
        raise ValueError(
            f"{steps} decoding steps of {chain.model.name}; expected at least 3, one a third; ask for more tokens or "
            f"steps"
        )
