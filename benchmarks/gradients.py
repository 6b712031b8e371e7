"""What gradients and attribution cost on a CPU: `python -m benchmarks.gradients`, with a backward by hand beside it."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

import dlens
from benchmarks.models import pair
from benchmarks.rows import Row, publish
from benchmarks.shapes import qwen2_like
from benchmarks.timing import Ratio, Timings, interleaved
from dlens.models.family import hidden_of

__all__ = ["main"]

RIGHT, WRONG = 9, 10


def main(rounds: int = 15, json: Path | None = None, threads: int = 2, quick: bool = False) -> None:
    """Measure, print a table, and say which budgets hold.

    Args:
        rounds: how often each is timed; of the large model a third as often.
        json: where to write the same as JSON.
        threads: of torch.
        quick: two rounds, the small model only.
    """
    torch.set_num_threads(threads)
    rounds = 2 if quick else rounds
    small = dlens.load("trio/diffusion"), dlens.load("trio/diffusion", verify=False)
    rows = _rows("8 M trio", *small, 128, rounds, gradient=None)
    if not quick:
        rows += _rows("113 M", *pair(qwen2_like()), 256, max(3, rounds // 3), gradient=1.10)
    publish(rows, json, "benchmarks.gradients", rounds=rounds, threads=threads, quick=quick)


def _rows(
    name: str, model: dlens.Model, plain: dlens.Model, width: int, rounds: int, gradient: float | None
) -> list[Row]:
    timings = _timed(model, plain, width, rounds)
    by_hand = timings.ratio("gradient", "by hand")
    return [
        Row.of("gradient of all layers' `resid_post` / forward and backward by hand", name, by_hand, gradient),
        _share(name, timings.ratio("attribution", "one patch"), model.n_layers * width),
    ]


def _share(name: str, ratio: Ratio, cells: int) -> Row:
    """What a run for each cell would take is one such run times the cells, as all of them would take hours."""
    value, low, high = (100 * part / cells for part in (ratio.value, ratio.low, ratio.high))
    what = "attribution patching, all layers x positions / a run for each"
    return Row(what, name, value, 5.0, low, high, unit="%")


def _timed(model: dlens.Model, plain: dlens.Model, width: int, rounds: int) -> Timings:
    clean = torch.randint(16, model.vocab_size, (1, width), generator=torch.Generator().manual_seed(0))
    corrupted = clean.clone()
    corrupted[0, width // 2] = 11
    metric = dlens.metrics.logit_difference(RIGHT, WRONG)
    trace = dlens.trace(model)
    gradient = trace.gradient("resid_post", of=metric)
    other = trace.capture("resid_post").forward(corrupted)
    patched = trace.patch(other, layers=model.n_layers // 2, tokens=[width // 2]).capture("logits")
    cases = {
        "by hand": lambda: _by_hand(plain, clean),
        "gradient": lambda: gradient.forward(clean),
        "attribution": lambda: dlens.attribute(model, clean, corrupted, metric, method="attribution"),
        "one patch": lambda: patched.forward(clean),
    }
    return interleaved(cases, rounds)


def _by_hand(model: dlens.Model, ids: Tensor) -> list[Tensor]:
    """The same gradients with hooks of PyTorch, the graph cut below the first block's output."""
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: object) -> object:
        value = hidden_of(output)
        if not seen:
            value = value.detach().requires_grad_()
        seen.append(value)
        return (value, *output[1:]) if isinstance(output, tuple) else value

    handles = [block.register_forward_hook(keep) for block in model.blocks]
    try:
        logits = model.module(input_ids=ids, use_cache=False).logits[:, -1]
        found = torch.autograd.grad((logits[:, RIGHT] - logits[:, WRONG]).sum(), seen)
    finally:
        for handle in handles:
            handle.remove()
    return [gradient.to("cpu", copy=True) for gradient in found]


if __name__ == "__main__":
    import tyro

    sys.exit(tyro.cli(main))
