"""What caches save on a CPU: `python -m benchmarks.caches`, against the same runs without one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch

import dlens
from benchmarks.rows import Row, publish
from benchmarks.timing import interleaved
from dlens import caches
from dlens.samplers import Denoiser, LLaDA

__all__ = ["main"]

NEW, BLOCK = 128, 32
KINDS: dict[str, caches.Cache] = {"Prefix": caches.Prefix(), "Dual": caches.Dual(), "Delayed": caches.Delayed()}


def main(rounds: int = 7, json: Path | None = None, threads: int = 2, quick: bool = False) -> None:
    """Measure, print a table, and say which budgets hold.

    Args:
        rounds: how often each is timed.
        json: where to write the same as JSON.
        threads: of torch.
        quick: two rounds.
    """
    torch.set_num_threads(threads)
    model = dlens.load("trio/diffusion")
    rows = [row for width in (149, 435) for row in _rows(model, width, 2 if quick else rounds)]
    publish(rows, json, "benchmarks.caches", rounds=rounds, threads=threads, quick=quick)


def _rows(model: dlens.Model, width: int, rounds: int) -> list[Row]:
    prompt = torch.randint(16, model.vocab_size, (1, width - NEW), generator=torch.Generator().manual_seed(0))
    sampler, trace = LLaDA(block_length=BLOCK), dlens.trace(model)

    def run(sampler: Denoiser, cache: Any = "auto") -> Callable[[], object]:
        return lambda: trace.generate(prompt, NEW, sampler=sampler, cache=cache, progress=False)

    cases = {"none": run(sampler), "all columns": run(Whole())} | {n: run(sampler, kind) for n, kind in KINDS.items()}
    timings = interleaved(cases, rounds)
    name = f"8 M trio, {width} positions"
    overhead = timings.ratio("none", "all columns")
    rows = [Row.of("a sampler that names its columns / one that does not, no cache", name, overhead, 1.01)]
    for kind in KINDS:
        budget = 0.30 if (kind, width) == ("Dual", 435) else None
        rows.append(Row.of(f"{kind} / no cache", name, timings.ratio(kind, "none"), budget))
    return rows


@final
@dataclass(frozen=True)
class Whole(Denoiser):
    """LLaDA's sampler that asks for the logits of all columns."""

    def planned_steps(self, max_new_tokens: int, infill: int = 0) -> int:
        return LLaDA(block_length=BLOCK).planned_steps(max_new_tokens, infill)

    def decode(self, forward: Any, canvas: Any, generated: Any, new_tokens: int, tokens: Any, draw: Any) -> Any:
        def whole(canvas: Any, unconditional: Any = None, columns: Any = None) -> Any:
            logits = forward(canvas, unconditional)
            return logits if columns is None else logits[:, columns]

        return LLaDA(block_length=BLOCK).decode(whole, canvas, generated, new_tokens, tokens, draw)


if __name__ == "__main__":
    import tyro

    sys.exit(tyro.cli(main))
