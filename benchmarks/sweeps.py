"""What a sweep costs beside a plain loop, and what two workers gain: `python -m benchmarks.sweeps`.

`--kinds local slurm ray` also lets each kind of worker on this machine compute the same table, and compares.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import dlens
from benchmarks.rows import Row, publish
from benchmarks.timing import interleaved
from dlens.findings.scores.accuracy import Scores, score_problems
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
    rows = [*_overhead(traces, problems, rounds), *_speed(traces, problems, rounds)]
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


def _overhead(traces: Sequence[Trace], n: int, rounds: int) -> list[Row]:
    """Milliseconds that a unit takes beside its run, of all that the sweep takes until its table stands."""
    each = []
    _sweep(traces[:1], 2, Here()).table()  # libraries load when they are first used
    for _ in range(rounds):
        running = 0.0

        def timed(*arguments: Any, **named: Any) -> Scores:
            nonlocal running
            started = time.perf_counter()
            found = score_problems(*arguments, **named)
            running += time.perf_counter() - started
            return found

        started = time.perf_counter()
        with mock.patch("dlens.sweeps.asks.score_problems", timed):
            _sweep(traces, n, Here()).table()
        each.append((time.perf_counter() - started - running) / (len(traces) + 1) * 1000)
    return [Row("a unit beside its run", "trio/diffusion", statistics.median(each), budget=20.0, unit="ms")]


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
