"""What tracing costs on a CPU: `python -m benchmarks.tracing`, with plain hooks and raw nnsight beside it."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

import dlens
from benchmarks.cases import decoding, decoding_rows, forward_rows, forwards
from benchmarks.importing import import_seconds
from benchmarks.models import pair
from benchmarks.rows import Row, publish
from benchmarks.shapes import qwen2_like
from benchmarks.timing import interleaved

__all__ = ["main"]

TRIO = "trio/diffusion"
EVERY, SKIPPED = 4, "every fourth block"


def main(rounds: int = 15, json: Path | None = None, threads: int = 2, quick: bool = False) -> None:
    """Measure, print a table, and say which budgets hold.

    Args:
        rounds: how often each forward is timed; a denoising run of the large model a third as often.
        json: where to write the same as JSON.
        threads: of torch.
        quick: two rounds, the small model only, eight steps.
    """
    torch.set_num_threads(threads)
    rounds, steps = (2, 8) if quick else (rounds, 32)
    rows = [*_small(rounds, steps), *([] if quick else _large(rounds, steps))]
    rows.append(Row("`import dlens`, without torch's own time", "dlens", import_seconds(rounds), 0.3, unit="s"))
    publish(rows, json, "benchmarks.tracing", rounds=rounds, threads=threads, quick=quick)


def _small(rounds: int, steps: int) -> list[Row]:
    name, model, plain = "8 M trio", dlens.load(TRIO), dlens.load(TRIO, verify=False)
    ids, skipped = _ids(model, 128), range(1, model.n_layers, EVERY)
    one = interleaved(forwards(model, plain, ids, skipped), 3 * rounds, warmup=3)
    run = interleaved(decoding(model, plain, ids[:, :64], 64, steps, skipped), rounds)
    return [
        *forward_rows(one, name, SKIPPED, len(skipped) / model.n_layers, empty=None, capture=1.35),
        *decoding_rows(run, name, SKIPPED, cosine=None, both=1.25),
    ]


def _large(rounds: int, steps: int) -> list[Row]:
    name, (model, plain) = "113 M", pair(qwen2_like())
    ids, skipped = _ids(model, 256), range(1, model.n_layers, EVERY)
    one = interleaved(forwards(model, plain, ids, skipped), rounds)
    run = interleaved(decoding(model, plain, ids[:, :192], 64, steps, skipped), max(3, rounds // 3))
    return [
        *forward_rows(one, name, SKIPPED, len(skipped) / model.n_layers, empty=1.02, capture=1.05),
        *decoding_rows(run, name, SKIPPED, cosine=None, both=1.15),
    ]


def _ids(model: dlens.Model, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(8, model.vocab_size, (1, width), generator=generator)


if __name__ == "__main__":
    import tyro

    sys.exit(tyro.cli(main))
