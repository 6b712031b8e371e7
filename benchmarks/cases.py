"""What is timed: one forward or one denoising run, plain, through dlens, and through what it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

import dlens
from benchmarks.rows import Row
from benchmarks.timing import Timings

__all__ = ["Cases", "decoding", "decoding_rows", "forward_rows", "forwards"]

Cases = dict[str, Callable[[], object]]


def forwards(model: dlens.Model, plain: dlens.Model, ids: Tensor, skipped: Sequence[int]) -> Cases:
    """One forward over `ids`.

    Args:
        model: traced.
        plain: the same weights, never wrapped.
        ids: [batch, position].
        skipped: blocks to skip.
    """
    trace = dlens.trace(model)
    hooked = trace.hook("blocks.0.hook_resid_pre", _nothing)
    captured = trace.capture("resid_post")
    skipping = trace.skip(skipped)
    return {
        "plain": lambda: _plain(plain, ids),
        "empty": lambda: trace.forward(ids),
        "trivial": lambda: hooked.forward(ids),
        "capture": lambda: captured.forward(ids),
        "hooks": lambda: _hooks(plain, ids),
        "nnsight": lambda: _nnsight(model, ids),
        "skip": lambda: skipping.forward(ids),
        "no blocks": lambda: _no_blocks(plain, ids),
    }


def decoding(
    model: dlens.Model, plain: dlens.Model, prompt: Tensor, new_tokens: int, steps: int, skipped: Sequence[int]
) -> Cases:
    """One denoising run, in blocks of 32.

    Args:
        model: traced.
        plain: the same weights, never wrapped.
        prompt: [batch, position].
        new_tokens: positions to fill.
        steps: forwards of a run.
        skipped: blocks to skip.
    """
    sampler = dlens.samplers.LLaDA(steps=steps, block_length=32)
    trace = dlens.trace(model)
    traces = {
        "untraced": dlens.trace(plain),
        "trivial": trace.hook("blocks.0.hook_resid_pre", _nothing),
        "skip": trace.skip(skipped),
        "cosine": trace.measure(dlens.Cosine()),
        "both": trace.measure(dlens.Cosine(), dlens.Outliers()),
    }

    def run(chain: dlens.Trace) -> Callable[[], object]:
        return lambda: chain.generate(prompt, new_tokens, sampler=sampler, progress=False)

    return {name: run(chain) for name, chain in traces.items()}


def forward_rows(
    timings: Timings, model: str, skipped: str, share: float, empty: float | None, capture: float | None
) -> list[Row]:
    """The rows of `forwards`; a skip may cost 0.02 more than the share of the time that it leaves out.

    Args:
        timings: of `forwards`.
        model: its name.
        skipped: the blocks, in words.
        share: how much of all blocks they are.
        empty, capture: budgets.
    """
    outside = timings.ratio("no blocks", "plain").value
    ideal = 1 - share * (1 - outside)
    return [
        Row.of("trace without operations / plain", model, timings.ratio("empty", "plain"), empty),
        Row.of("trace with a hook that does nothing / plain", model, timings.ratio("trivial", "plain")),
        Row.of("capture `resid_post` of all layers / plain", model, timings.ratio("capture", "plain"), capture),
        Row.of("the same with PyTorch hooks / plain", model, timings.ratio("hooks", "plain")),
        Row.of("the same with nnsight alone / plain", model, timings.ratio("nnsight", "plain")),
        Row.of(f"skip {skipped} / plain", model, timings.ratio("skip", "plain"), ideal + 0.02),
    ]


def decoding_rows(timings: Timings, model: str, skipped: str, cosine: float | None, both: float) -> list[Row]:
    """The rows of `decoding`.

    Args:
        timings: of `decoding`.
        model: its name.
        skipped: the blocks, in words.
        cosine, both: budgets.
    """
    return [
        Row.of("denoising, a hook that does nothing / untraced", model, timings.ratio("trivial", "untraced")),
        Row.of(f"denoising, skip {skipped} / untraced", model, timings.ratio("skip", "untraced")),
        Row.of("denoising, Cosine / untraced", model, timings.ratio("cosine", "untraced"), cosine),
        Row.of("denoising, Cosine and Outliers / untraced", model, timings.ratio("both", "untraced"), both),
    ]


def _nothing(value: Tensor, hook: object) -> None:
    return None


def _plain(model: dlens.Model, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return model.module(input_ids=ids, use_cache=False).logits


def _hooks(model: dlens.Model, ids: Tensor) -> list[Tensor]:
    """The same capture with hooks of PyTorch."""
    seen: list[Tensor] = []

    def keep(module: object, inputs: object, output: Tensor) -> None:
        seen.append(output.to("cpu", copy=True))

    handles = [block.register_forward_hook(keep) for block in model.blocks]
    try:
        _plain(model, ids)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _nnsight(model: dlens.Model, ids: Tensor) -> list[Tensor]:
    """The same capture with nnsight alone."""
    root = model.nnsight
    blocks = [root.get(f"{model.layout.blocks}.{layer}") for layer in range(model.n_layers)]
    with torch.no_grad(), root.trace(input_ids=ids, use_cache=False):
        seen = [block.output.to("cpu", copy=True) for block in blocks].save()  # pyright: ignore
    return seen  # pyright: ignore[reportPossiblyUnboundVariable]


def _no_blocks(model: dlens.Model, ids: Tensor) -> Tensor:
    """What a forward costs outside of its blocks."""
    blocks = dict(model.blocks._modules)
    layers, model.module.config.num_hidden_layers = model.n_layers, 0  # pyright: ignore
    model.blocks._modules.clear()
    try:
        return _plain(model, ids)
    finally:
        model.blocks._modules.update(blocks)
        model.module.config.num_hidden_layers = layers  # pyright: ignore
