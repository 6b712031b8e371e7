"""What caches save on a CPU, against the same runs without one: `python -m benchmarks.caches`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

import dlens
from benchmarks.rows import Row, publish
from benchmarks.timing import interleaved
from dlens import caches
from dlens.samplers import Denoiser, LLaDA

__all__ = ["NAMES", "main"]

BLOCK = 32
KINDS: dict[str, caches.Cache] = {
    "Prefix": caches.Prefix(),
    "Dual": caches.Dual(),
    "Delayed": caches.Delayed(),
    "Adaptive": caches.Adaptive(),
}
NAMES = {width: f"8 M trio, {width} positions" for width in (149, 435)}


def main(rounds: int = 7, json: Path | None = None, threads: int = 2, quick: bool = False) -> None:
    """Measure, print a table, and say which budgets hold.

    Args:
        rounds: how often each cache is timed; what naming columns costs is timed three times as often.
        json: where to write the same as JSON.
        threads: of torch.
        quick: one round, of half as many new tokens.
    """
    torch.set_num_threads(threads)
    trace, new, often = dlens.trace("trio/diffusion"), 64 if quick else 128, 1 if quick else rounds
    rows = [row for width in NAMES for row in (*_saved(trace, width, new, often), _overhead(trace, width, 3 * often))]
    publish(rows, json, "benchmarks.caches", rounds=rounds, threads=threads, quick=quick)


def _saved(trace: dlens.Trace, width: int, new: int, rounds: int) -> list[Row]:
    """Whole runs of one token a step, under each cache and without."""
    cases = {name: _run(trace, width, new, LLaDA(block_length=BLOCK), kind) for name, kind in KINDS.items()}
    timings = interleaved({"none": _run(trace, width, new, LLaDA(block_length=BLOCK))} | cases, rounds)
    budgets = {("Dual", 435): 0.30}
    return [
        Row.of(f"{kind} / no cache", NAMES[width], timings.ratio(kind, "none"), budgets.get((kind, width)))
        for kind in KINDS
    ]


def _overhead(trace: dlens.Trace, width: int, rounds: int) -> Row:
    """What windows cost without a cache: against a sampler that knows none and takes its block of all logits."""
    sampler = LLaDA(steps=8, block_length=BLOCK)
    cases = {"windows": _run(trace, width, BLOCK, sampler), "none": _run(trace, width, BLOCK, Unaware(sampler))}
    ratio = interleaved(cases, rounds).ratio("windows", "none")
    return Row.of("no cache, a sampler that names its columns / one that takes all", NAMES[width], ratio, 1.01)


def _run(
    trace: dlens.Trace, width: int, new: int, sampler: Denoiser, cache: caches.Cache | None = None
) -> Callable[[], object]:
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(16, trace.model.vocab_size, (1, width - new), generator=generator)
    return lambda: trace.generate(prompt, new, sampler=sampler, cache=cache or "auto", progress=False)


@final
@dataclass(frozen=True)
class Unaware(Denoiser):
    """A sampler that asks for the logits of all columns, as one that has never heard of windows does.

    Args:
        sampler: what it decodes as.
    """

    sampler: LLaDA

    def planned_steps(self, max_new_tokens: int, infill: int = 0) -> int:
        return self.sampler.planned_steps(max_new_tokens, infill)

    def decode(
        self, forward: Any, canvas: Tensor, generated: Tensor, new_tokens: int, tokens: Any, draw: Any
    ) -> Tensor:
        def whole(canvas: Tensor, unconditional: Tensor | None = None, columns: Tensor | None = None) -> Tensor:
            logits = forward(canvas, unconditional)
            return logits if columns is None else logits[:, columns]

        return self.sampler.decode(whole, canvas, generated, new_tokens, tokens, draw)


if __name__ == "__main__":
    import tyro

    sys.exit(tyro.cli(main))
