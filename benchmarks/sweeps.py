"""What a sweep costs beside a plain loop, and what two workers gain: `python -m benchmarks.sweeps`.

`--kinds local slurm ray` also lets each kind of worker on this machine compute the same table, and compares.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch

import dlens
from benchmarks.rows import Row, publish
from benchmarks.timing import interleaved
from dlens.findings.scores.accuracy import score_problems
from dlens.findings.scores.decoding import Decoding
from dlens.sweeps.variant import Variant
from dlens.tracing.chain import Trace
from dlens.workers import Here, Local, Ray, Slurm
from dlens.workers.base import Workers

__all__ = ["main", "variants"]

TASK, SAMPLER = "trio-code", dlens.samplers.LLaDA(steps=8)
_KINDS: dict[str, Callable[[], Workers]] = {
    "local": lambda: Local(2, threads=1),
    "slurm": lambda: Slurm(2, cpus=1, cluster="local"),
    "ray": lambda: Ray(2),
}


def main(problems: int = 16, rounds: int = 3, kinds: tuple[str, ...] = (), json: Path | None = None) -> None:
    """Measure and print.

    Args:
        problems: that each of 31 variants answers.
        rounds: how often each way runs.
        kinds: of workers whose tables are compared with a plain loop's.
        json: where to write the same as JSON.
    """
    torch.set_num_threads(1)
    model = dlens.load("trio/diffusion")
    traces = variants(model)
    rows = [*_overhead(traces[:8], rounds), *_speed(traces, problems, rounds)]
    rows += [_same(kind, traces, problems) for kind in kinds]
    publish(rows, json, "benchmarks.sweeps", problems=problems, rounds=rounds, kinds=" ".join(kinds))


def variants(model: dlens.Model) -> list[Trace]:
    """Each block skipped alone, and each pair of neighbours."""
    plain = dlens.trace(model)
    layers = range(model.n_layers)
    return [plain.skip([layer]) for layer in layers] + [plain.skip(list(pair)) for pair in pairwise(layers)]


def _loop(traces: Sequence[Trace], n: int) -> list[list[bool]]:
    """What a user would write."""
    task = dlens.tasks.get(TASK)
    drawn, decoding = task.problems(n), Decoding(SAMPLER, progress=False)
    return [list(score_problems(trace, task, drawn, decoding, count_flops=True).correct) for trace in traces]


def _sweep(traces: Sequence[Trace | Variant], n: int, workers: Workers) -> dlens.Sweep:
    with tempfile.TemporaryDirectory() as folder:
        return dlens.sweep(traces, TASK, n=n, sampler=SAMPLER, out=folder, workers=workers, progress=False)


def _overhead(traces: Sequence[Trace], rounds: int) -> list[Row]:
    """Milliseconds that a unit takes beside its run."""
    plain = replace(traces[0], ops=())
    cases = {"loop": lambda: _loop([plain, *traces], 2), "sweep": lambda: _sweep(traces, 2, Here())}
    seconds = interleaved(cases, rounds).seconds
    units = len(traces) + 1
    each = sorted((a - b) / units * 1000 for a, b in zip(seconds["sweep"], seconds["loop"], strict=True))
    return [Row("a unit beside its run", "trio/diffusion", each[len(each) // 2], budget=20.0, unit="ms")]


def _speed(traces: Sequence[Trace], n: int, rounds: int) -> list[Row]:
    cases = {
        "two workers of one thread": lambda: _sweep(traces, n, Local(2, threads=1)),
        "one worker of one thread": lambda: _sweep(traces, n, Local(1, threads=1)),
        "one worker of two threads": lambda: _sweep(traces, n, Local(1, threads=2)),
    }
    timings = interleaved(cases, rounds, warmup=0)
    limits = {"one worker of one thread": 0.6, "one worker of two threads": 1.0}
    two = "two workers of one thread"
    return [
        Row.of(f"{two} / {base}", "trio/diffusion", timings.ratio(two, base), budget) for base, budget in limits.items()
    ]


def _same(kind: str, traces: Sequence[Trace], n: int) -> Row:
    """Whether a kind of worker finds, answer by answer, what a plain loop of one thread finds."""
    started = time.perf_counter()
    found = _sweep(traces, n, _KINDS[kind]())
    seconds = time.perf_counter() - started
    same = [list(found.answers(row)["values"]) for row in range(len(traces))] == _loop(traces, n)
    return Row(f"31 variants by {kind}{'' if same else ', NOT THE SAME ANSWERS'}", "trio/diffusion", seconds, unit="s")


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
