"""A denoising run by hand, in which a step computes some columns and the others keep old keys and values.

A plain module computes the whole canvas at every step; hooks put back the keys and values of the columns that a cache
would not have computed, as they came out of the projections when it last did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dlens.samplers import Denoiser, Tokens
from tests.reference import left_padded, positions
from tests.tracing.plain import shifted

Rule = Callable[["Step"], Tensor]


@dataclass
class Step:
    """What a rule may look at: [batch, position] each, and the number of the step in its block."""

    read: Tensor
    need: Tensor
    block: Tensor
    masked: Tensor
    just: Tensor
    number: int


def prefix(step: Step) -> Tensor:
    """From the block to the end."""
    first = int(step.block.long().argmax(1).min())
    return torch.arange(step.block.shape[1]) >= first if step.number else torch.ones_like(step.block)


def dual(step: Step) -> Tensor:
    """The block alone."""
    return step.block if step.number else torch.ones_like(step.block)


def delayed(refresh: int) -> Rule:
    """Masks, and what the step before decoded."""

    def rule(step: Step) -> Tensor:
        whole = step.number < 2 or step.number % refresh == 0
        return torch.ones_like(step.masked) if whole else step.masked | step.just | step.need

    return rule


@dataclass
class Stale:
    """Keys and values as a cache has them, by hooks on what makes them."""

    module: nn.Module
    computed: Tensor | None = None
    held: dict[nn.Module, Tensor] = field(default_factory=dict)

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Hooks on every projection of keys and values."""
        parts = [part for name, part in self.module.named_modules() if name.endswith(("k_proj", "v_proj"))]
        handles = [part.register_forward_hook(self._keep) for part in parts]
        yield
        for handle in handles:
            handle.remove()

    def _keep(self, part: nn.Module, args: Any, out: Tensor) -> Tensor:
        assert self.computed is not None
        if part in self.held:
            computed = self.computed.repeat(len(out) // len(self.computed), 1)
            out = torch.where(computed[..., None], out, self.held[part])
        self.held[part] = out.clone()
        return out


@dataclass
class Run:
    """What a run by hand gives, step by step."""

    canvases: list[Tensor]
    computed: list[Tensor]
    logits: list[Tensor]
    tokens: Tensor


def cached_run(
    module: Any,
    sampler: Denoiser,
    rule: Rule,
    prompts: Sequence[Sequence[int]],
    new: int,
    mask_id: int,
    shift: int = 0,
    begin: Callable[[Tensor], None] = lambda ids: None,
    inputs: Callable[[Tensor, Tensor], dict[str, Any]] | None = None,
) -> Run:
    """Decode with a plain module; `begin` is told of each step's canvas before it runs."""
    ids, mask = left_padded(prompts, 0)
    canvas = torch.cat([ids, torch.full((len(ids), new), mask_id)], 1)
    mask = torch.cat([mask, torch.ones(len(ids), new, dtype=torch.long)], 1)
    run, stale = Run([], [], [], canvas), Stale(module)
    seen: dict[str, Any] = {"block": torch.zeros_like(canvas, dtype=torch.bool), "number": -1}

    def forward(canvas: Tensor, unconditional: Tensor | None = None, columns: Any = None) -> Tensor:
        read, need = torch.zeros_like(canvas, dtype=torch.bool), torch.zeros_like(canvas, dtype=torch.bool)
        for row in range(len(canvas)):
            for column in (columns if columns.ndim == 1 else columns[row]).tolist():
                first = int((mask[row] == 0).sum())
                both = [column, column - shift if column > first else column]
                read[row, both] = True
                need[row, both] |= canvas[row, column] == mask_id
        if bool((read & ~seen["block"]).any()):
            seen["block"], seen["number"] = read, -1
        seen["number"] += 1
        just = canvas != run.canvases[-1] if run.canvases else torch.zeros_like(read)
        step = Step(read, need, seen["block"], canvas == mask_id, just, seen["number"])
        stale.computed = rule(step).expand_as(canvas)
        run.computed.append(stale.computed.clone())
        run.canvases.append(canvas.clone())
        begin(canvas)
        both = canvas if unconditional is None else torch.cat([canvas, unconditional])
        twice = mask.repeat(len(both) // len(canvas), 1)
        padding = {} if bool(mask.all()) else {"attention_mask": twice, "position_ids": positions(twice)}
        logits = module(input_ids=both, **(inputs(both, twice) if inputs else padding | {"use_cache": False})).logits
        run.logits.append(logits[: len(canvas)].clone())
        logits = (shifted(logits, twice) if shift else logits)[:, columns]
        return logits if unconditional is None else torch.stack(logits.chunk(2))

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad(), stale.hooked():
        run.tokens = sampler.decode(
            forward,
            canvas,
            (canvas == mask_id) & (mask == 1),
            new,
            Tokens(mask_id),
            lambda shape: torch.rand(tuple(shape), generator=generator, dtype=torch.float64),
        )
    return run
