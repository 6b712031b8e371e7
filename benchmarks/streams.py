"""What a stream of activations costs beside its forwards, in time and memory: `python -m benchmarks.streams`."""

from __future__ import annotations

import itertools
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

import dlens
from benchmarks.models import pair
from benchmarks.rows import Row, publish
from benchmarks.shapes import llada_like, qwen2_like
from benchmarks.timing import interleaved

__all__ = ["LARGE", "MANY", "main"]

MODEL, BATCH, WIDTH = "trio/diffusion", 16, 64
MANY, LARGE = "8 M trio, 256 rows", "LLaDA-8B's shape"
BUDGET = 1.25
_GIB = 2**30


def main(
    prompts: int = 20_000,
    rounds: int = 7,
    small_only: bool = False,
    json: Path | None = None,
    threads: int = 2,
    device: str = "cpu",
) -> None:
    """Measure and print.

    Args:
        prompts: how many are streamed for the memory; 0 leaves that out.
        rounds: how often each way runs; 0 leaves that out.
        small_only: leave out the larger models.
        json: where to write the same as JSON.
        threads: of torch.
        device: where the models are.
    """
    torch.set_num_threads(threads)
    rows = itertools.chain(_memory(prompts), _speed(rounds, device, small_only))
    module = "benchmarks.streams" if device == "cpu" else f"benchmarks.streams --device {device}"
    publish(rows, json, module, device, prompts=prompts, rounds=rounds, small_only=small_only, threads=threads)


def _prompts(n: int, vocab: int, width: int = WIDTH) -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(width // 2, width + 1, (n,), generator=generator).tolist()
    return [torch.randint(8, vocab, (length,), generator=generator).tolist() for length in lengths]


def _memory(n: int) -> Iterator[Row]:
    """The most memory that the process ever had, which is why it comes first and goes from little to much."""
    if n == 0:
        return
    # Most of the model is skipped, as memory is what matters.
    trace = dlens.trace(MODEL).skip(range(2, 16)).capture("resid_post", layers=1)
    prompts = _prompts(n, trace.model.vocab_size, width=16)
    yield _peak("before", None)
    with tempfile.TemporaryDirectory() as folder:
        for part in (n // 10, n // 2, n):
            trace.stream(prompts[:part], Path(folder) / str(part), batch_size=64, progress=False)
            yield _peak(f"{part} prompts streamed", 1.0)
        for _ in dlens.load_activations(Path(folder) / str(n)).batches(4096, shuffle=0):
            pass
    yield _peak("and read shuffled", 1.0)


def _peak(what: str, budget: float | None) -> Row:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Row(f"memory of the process: {what}", "8 M trio", peak / _GIB, budget, unit="GiB")


def _speed(rounds: int, device: str, small_only: bool) -> Iterator[Row]:
    """Seconds of a stream over those of the same forwards without a trace: 1.25 is 0.8 of their throughput.

    A GPU takes more batches of small models, as what a stream does once would count for much of a short one.
    """
    if rounds == 0:
        return
    gpu, few = device != "cpu", max(3, rounds // 2)
    trio = _on(device, (dlens.load(MODEL), dlens.load(MODEL, verify=False)))
    yield from _ratios("8 M trio", trio, 400 if gpu else 8, BATCH, rounds, BUDGET)
    if gpu:
        yield from _ratios(MANY, trio, 20, 256, few, BUDGET)
    if small_only:
        return
    yield from _ratios("113 M", _on(device, pair(qwen2_like())), 100 if gpu else 1, BATCH, few, BUDGET)
    if gpu:
        yield from _ratios(LARGE, pair(llada_like(device)), 20, BATCH, few, BUDGET)


def _on(device: str, models: tuple[dlens.Model, dlens.Model]) -> tuple[dlens.Model, dlens.Model]:
    for model in models:
        model.module.to(device)
    return models


def _ratios(
    name: str, models: tuple[dlens.Model, dlens.Model], batches: int, batch: int, rounds: int, budget: float | None
) -> list[Row]:
    """Rows of one model.

    Args:
        name: in the table.
        models: traced, and never wrapped.
        batches: how many.
        batch: rows of each.
        rounds: how often each way runs.
        budget: of one layer.
    """
    model, plain = models
    texts = sorted(_prompts(batches * batch, model.vocab_size), key=len, reverse=True)
    trace = dlens.trace(model)
    with tempfile.TemporaryDirectory() as kept:

        def stream(chain: dlens.Trace) -> None:
            chain.stream(texts, Path(kept) / "kept", batch_size=batch, progress=False)

        one, all_layers = trace.capture("resid_post", layers=8), trace.capture("resid_post")
        cases: dict[str, Callable[[], object]] = {
            "forwards": lambda: _forwards(plain, texts, batch),
            "one layer": lambda: stream(one),
            "all layers": lambda: stream(all_layers),
        }
        found = interleaved(cases, rounds, after=lambda: shutil.rmtree(Path(kept) / "kept", ignore_errors=True))
    budgets = {"one layer": budget, "all layers": None}
    return [
        Row.of(f"stream of {what} / forwards alone", name, found.ratio(what, "forwards"), own)
        for what, own in budgets.items()
    ]


def _forwards(plain: dlens.Model, texts: Sequence[list[int]], batch: int) -> None:
    """The same batches, left-padded, as one would write it."""
    with torch.no_grad():
        for at in range(0, len(texts), batch):
            ids, real = _padded(texts[at : at + batch])
            inputs = plain.family.inputs(ids.to(plain.device), None if bool(real.all()) else real.to(plain.device))
            plain.module(**inputs)


def _padded(rows: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    ids, real = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.bool)
    for number, row in enumerate(rows):
        ids[number, width - len(row) :], real[number, width - len(row) :] = torch.tensor(row), True
    return ids, real


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
