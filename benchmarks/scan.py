"""What removing each block in turn costs, shared and naive: `python -m benchmarks.scan`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch

import dlens
from benchmarks.models import pair
from benchmarks.rows import Row, publish
from benchmarks.shapes import qwen2_like
from benchmarks.timing import interleaved
from dlens.findings.scores.canvases import Canvases, text_canvases
from dlens.findings.scores.loss import loss_of
from dlens.findings.skipping.scan import RemovalScan, removal_scan

__all__ = ["main"]

RELATIVE = 1e-5


def main(
    rounds: int = 5,
    json: Path | None = None,
    threads: int = 2,
    texts: int = 2,
    quick: bool = False,
    device: str = "cpu",
) -> None:
    """Time the scan against as many forwards as there are blocks, and against the naive scan; compare their losses.

    Args:
        rounds: how often each is timed.
        json: where to write the same as JSON.
        threads: of torch.
        texts: texts of 128 tokens in the one batch that is read.
        quick: two rounds, the small model only.
        device: where the models run.
    """
    torch.set_num_threads(threads)
    rounds = 2 if quick else rounds
    small = dlens.load("trio/diffusion")
    small.module.to(device)
    rows = _rows("8 M trio", small, rounds, texts, device)
    if not quick:
        rows += _rows("113 M", pair(qwen2_like().to(device))[0], rounds, texts, device)
    options = {"rounds": rounds, "texts": texts, "quick": quick, "device": device}
    publish(rows, json, "benchmarks.scan", **options)


def _rows(name: str, model: dlens.Model, rounds: int, texts: int, device: str) -> list[Row]:
    """The budget adds what a variant must compute beside half of the blocks: the head and the loss."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(8, model.vocab_size, (texts, 128), generator=generator)
    canvases, chain, layers = text_canvases(model, ids, draws=1), dlens.trace(model), range(model.n_layers)

    def shared(together: int) -> Callable[[], RemovalScan]:
        return lambda: removal_scan(model, canvases, batch_size=texts, together=together, progress=False)

    cases: dict[str, Callable[[], object]] = {
        "forwards": lambda: [loss_of(chain, canvases, texts) for _ in layers],
        "no blocks": lambda: [loss_of(chain.skip(layers), canvases, texts) for _ in layers],
        "naive": lambda: _naive(model, canvases, texts),
        "shared": shared(1),
        "shared, 4 together": shared(4),
    }
    timings = interleaved(cases, rounds)
    outside = timings.ratio("no blocks", "forwards").value
    half = outside + (1 - outside) / 2 * (1 - 1 / model.n_layers) + 1 / model.n_layers
    naive = _naive(model, canvases, texts)
    alone, together = (shared(number)().without for number in (1, 4))
    changed = sum(alone[layer] != naive[layer] for layer in layers)
    apart = max(abs(together[layer] / naive[layer] - 1) for layer in layers)
    return [
        Row.of(
            "scan / as many forwards as blocks",
            name,
            timings.ratio("shared", "forwards"),
            half + 0.05,
        ),
        Row.of("the same, 4 variants together", name, timings.ratio("shared, 4 together", "forwards")),
        Row.of("naive scan / forwards", name, timings.ratio("naive", "forwards")),
        Row.of("scan / naive scan", name, timings.ratio("shared", "naive")),
        Row("blocks whose loss differs in a bit from the naive scan", name, changed, 0 if device == "cpu" else None),
        Row("largest relative difference, 4 variants together", name, apart / RELATIVE, 1, unit=f"x {RELATIVE:.0e}"),
    ]


def _naive(model: dlens.Model, canvases: Canvases, batch_size: int) -> dict[int, float]:
    chain = dlens.trace(model)
    return {layer: loss_of(chain.skip([layer]), canvases, batch_size).value for layer in range(model.n_layers)}


if __name__ == "__main__":
    import tyro

    sys.exit(tyro.cli(main))
