"""What tracing costs at LLaDA-8B's shape: `python -m benchmarks.gpu`; random weights, bfloat16, 512 positions."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

import dlens
from benchmarks.cases import decoding, decoding_rows, forward_rows, forwards
from benchmarks.cuda import peak_bytes
from benchmarks.models import pair
from benchmarks.rows import Row, publish
from benchmarks.shapes import llada_like
from benchmarks.timing import interleaved

__all__ = ["main"]

NAME = "LLaDA-8B's shape"
SKIPPED = (3, 4, 5, 6, 7, 8)
BATCH = 4  # rows enough to keep the GPU busy, where one leaves it waiting for launches


def main(
    rounds: int = 7, steps: int = 16, json: Path | None = None, device: str = "cuda", layers: int = 32, width: int = 512
) -> None:
    """Measure, print a table, and say which budgets hold.

    Args:
        rounds: how often a denoising run is timed; forwards are timed three times as often.
        steps: of a denoising run.
        json: where to write the same as JSON.
        device: where it runs.
        layers: blocks of the model; fewer for a trial.
        width: positions.
    """
    model, plain = pair(llada_like(device, layers))
    ids = torch.randint(8, model.vocab_size, (1, width), device=device)
    prompt, new = ids[:, : width // 2], width - width // 2
    skipped = f"{len(SKIPPED)} of {layers} blocks"
    one = interleaved(forwards(model, plain, ids, SKIPPED), 3 * rounds, warmup=3)
    run = interleaved(decoding(model, plain, prompt, new, steps, SKIPPED), rounds)
    batch = interleaved(decoding(model, plain, prompt.repeat(BATCH, 1), new, steps, SKIPPED), rounds)
    rows = [
        *forward_rows(one, f"{NAME}, one forward", skipped, len(SKIPPED) / layers, empty=None, capture=None),
        *decoding_rows(run, f"{NAME}, batch 1, clock", skipped, cosine=1.03, both=1.10),
        *decoding_rows(batch, f"{NAME}, batch {BATCH}, clock", skipped, cosine=1.03, both=1.10),
        *(_memory_rows(model, plain, prompt, new, steps) if device == "cuda" else []),
        *_flop_rows(model, prompt, new, steps),
    ]
    publish(rows, json, "benchmarks.gpu", device, rounds=rounds, steps=steps, layers=layers, width=width)


def _memory_rows(model: dlens.Model, plain: dlens.Model, prompt: Tensor, new: int, steps: int) -> list[Row]:
    rows = []
    for n_steps in (steps, 2 * steps):
        peak = {name: peak_bytes(run) for name, run in decoding(model, plain, prompt, new, n_steps, SKIPPED).items()}
        for name, what in (("cosine", "Cosine"), ("both", "Cosine and Outliers")):
            extra = (peak[name] - peak["untraced"]) / 2**30
            rows.append(Row(f"extra memory of {what}, {n_steps} steps", NAME, extra, 1.0, unit="GiB"))
    return rows


def _flop_rows(model: dlens.Model, prompt: Tensor, new: int, steps: int) -> list[Row]:
    """Counted against the arithmetic: a position costs blocks x (P + 2 n d) + d V multiplications."""
    sampler = dlens.samplers.LLaDA(steps=steps, block_length=32)
    record = dlens.trace(model).skip(SKIPPED).generate(prompt, new, sampler=sampler, progress=False)
    width, d = prompt.shape[-1] + new, model.d_model
    block = sum(w.numel() for w in model.blocks[0].parameters() if w.ndim == 2) + 2 * width * d
    head = d * model.vocab_size
    plain = 2 * steps * width * (model.n_layers * block + head)
    saved = len(SKIPPED) * block / (model.n_layers * block + head)
    counted = record.flops + record.saved_flops
    what = f"FLOPs saved by skipping {len(SKIPPED)} of {model.n_layers} blocks"
    return [
        Row("FLOPs of the run, counted against arithmetic", NAME, 100 * abs(counted / plain - 1), 1.0, unit="%"),
        Row(f"{what}, counted", NAME, 100 * record.saved_flops / counted, unit="%"),
        Row(f"{what}, by arithmetic", NAME, 100 * saved, unit="%"),
    ]


if __name__ == "__main__":
    import tyro

    sys.exit(tyro.cli(main))
