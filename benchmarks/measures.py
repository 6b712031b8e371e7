"""What measures cost while a model denoises: `python -m benchmarks.measures`, on a CPU or `--device cuda`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

import dlens
from benchmarks.cuda import busy_seconds, peak_bytes
from benchmarks.models import pair
from benchmarks.rows import Row, publish
from benchmarks.shapes import llada_like, qwen2_like
from benchmarks.timing import interleaved

__all__ = ["main"]

NEW = 64
NAME = "LLaDA-8B's shape"
_GPU_BUDGETS = {"all four": 1.10, "Cosine": 1.03}
Runs = dict[str, Callable[[], object]]


def main(
    rounds: int = 9,
    steps: int = 32,
    json: Path | None = None,
    device: str = "cpu",
    threads: int = 2,
    quick: bool = False,
) -> None:
    """Measure, print a table, and say which budgets hold.

    Args:
        rounds: how often each run of the trio is timed; of a larger model a third as often.
        steps: of a denoising run.
        json: where to write the same as JSON.
        device: "cpu" for the trio and a model of 113 M, "cuda" for LLaDA-8B's shape.
        threads: of torch.
        quick: the trio alone, two rounds of eight steps.
    """
    torch.set_num_threads(threads)
    rounds, steps = (2, 8) if quick else (rounds, steps)
    rows = _gpu(rounds, steps, device) if device != "cpu" else [*_trio(rounds, steps)]
    if device == "cpu" and not quick:
        model, plain = pair(qwen2_like())
        rows += _rows(model, plain, "113 M", _ids(model, 192), NEW, steps, max(3, rounds // 3), {"all four": 1.15})
    options = {"rounds": rounds, "steps": steps, "quick": quick}
    publish(rows, json, "benchmarks.measures", device, **options | ({} if device == "cpu" else {"device": device}))


def _trio(rounds: int, steps: int) -> list[Row]:
    model, plain = dlens.load("trio/diffusion"), dlens.load("trio/diffusion", verify=False)
    return _rows(model, plain, "8 M trio", _ids(model, NEW), NEW, steps, rounds, {"all four": 1.25})


def _gpu(rounds: int, steps: int, device: str) -> list[Row]:
    model, plain = pair(llada_like(device))
    rows: list[Row] = []
    for batch in (1, 4):
        ids, name = _ids(model, 256, batch).to(device), f"{NAME}, batch {batch}"
        rows += _rows(model, plain, f"{name}, clock", ids, 256, steps, rounds, _GPU_BUDGETS)
        # Few steps, as every kernel leaves an event behind.
        busy = {what: busy_seconds(run) for what, run in _runs(model, plain, ids, 256, 8).items()}
        rows += [
            Row(f"denoising, {what} / untraced", f"{name}, GPU", seconds / busy["untraced"], _GPU_BUDGETS.get(what))
            for what, seconds in busy.items()
            if what != "untraced"
        ]
        for n_steps in (steps, 2 * steps):
            runs = _runs(model, plain, ids, 256, n_steps)
            extra = (peak_bytes(runs["all four"]) - peak_bytes(runs["untraced"])) / 2**30
            rows.append(Row(f"extra memory of all four, batch {batch}, {n_steps} steps", NAME, extra, 1.0, unit="GiB"))
    return rows


def _rows(
    model: dlens.Model,
    plain: dlens.Model,
    name: str,
    ids: Tensor,
    new: int,
    steps: int,
    rounds: int,
    budgets: Mapping[str, float],
) -> list[Row]:
    runs = _runs(model, plain, ids, new, steps)
    timings = interleaved(runs, rounds)
    return [
        Row.of(f"denoising, {what} / untraced", name, timings.ratio(what, "untraced"), budgets.get(what))
        for what in runs
        if what != "untraced"
    ]


def _runs(model: dlens.Model, plain: dlens.Model, ids: Tensor, new: int, steps: int) -> Runs:
    four = [dlens.Cosine(), dlens.CKA(), dlens.Recency(), dlens.Outliers()]
    measured = dlens.trace(model)
    chains = {
        "untraced": dlens.trace(plain),
        **{type(measure).__name__: measured.measure(measure) for measure in four},
        "Cosine and Outliers": measured.measure(four[0], four[3]),
        "CKA and Recency": measured.measure(four[1], four[2]),
        "all four": measured.measure(*four),
    }
    sampler = dlens.samplers.LLaDA(steps=steps, block_length=32)

    def run(chain: dlens.Trace) -> Callable[[], object]:
        return lambda: chain.generate(ids, new, sampler=sampler, progress=False)

    return {what: run(chain) for what, chain in chains.items()}


def _ids(model: dlens.Model, width: int, batch: int = 1) -> Tensor:
    return torch.randint(8, model.vocab_size, (batch, width), generator=torch.Generator().manual_seed(0))


if __name__ == "__main__":
    import tyro

    sys.exit(tyro.cli(main))
