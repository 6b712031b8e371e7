"""Proof that blocks can be left out: the model runs without them, as it does where they return what they got."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dlens.axes import TokenIds
from dlens.models.family import Layout, hidden_in
from dlens.models.model import Model

__all__ = ["standing_in", "with_needed"]

# How far experts, which compute their tokens together, may move a logit, in roundings of the largest.
_ROUNDINGS = 64
_NOT_SAME = "others read what it returns beside the stream"


def with_needed(model: Model, ids: TokenIds) -> Layout:
    """The layout with the blocks that cannot be left out, and why.

    Every second block is left out, then the others; only where that fails they are tried one by one.

    Args:
        model: what was loaded and proved so far.
        ids: tokens to run.
    """
    needed: dict[int, str] = {}
    for start in (0, 1):
        blocks = range(start, model.n_layers, 2)
        if _why_not(model, ids, blocks) is not None:
            found = {block: _why_not(model, ids, (block,)) for block in blocks}
            needed |= {block: why for block, why in found.items() if why is not None}
    return replace(model.layout, needed=dict(sorted(needed.items())))


def _why_not(model: Model, ids: TokenIds, blocks: Collection[int]) -> str | None:
    """Why the model is not what it should be without some blocks; None where it is."""
    try:
        without = _logits(model, ids, blocks, _left_out)
    except Exception as error:
        return f"without it the model does not run ({type(error).__name__}: {error})"
    if all(model.layout.at(block).block_tuple in (None, 1) for block in blocks):
        return None
    far = float((without - _logits(model, ids, blocks, _returning)).abs().max())
    return None if far <= _ROUNDINGS * torch.finfo(without.dtype).eps * float(without.abs().max()) else _NOT_SAME


Change = Callable[[Model, int], Any]


def _logits(model: Model, ids: TokenIds, blocks: Collection[int], change: Change) -> Tensor:
    with ExitStack() as stack:
        for block in blocks:
            stack.enter_context(change(model, block))
        return model.module(**model.family.inputs(ids, None)).logits


@contextmanager
def _left_out(model: Model, index: int) -> Iterator[None]:
    """A block that does not run, and returns what dlens returns in its place."""
    layout = model.layout.at(index)

    def forward(*args: Any, **kwargs: Any) -> Any:
        return layout.pack(hidden_in(args, kwargs))

    with standing_in(model.blocks[index], forward):
        yield


@contextmanager
def _returning(model: Model, index: int) -> Iterator[None]:
    """A block that runs and returns the stream that it got, with what else it returns."""

    def instead(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
        hidden = hidden_in(args, kwargs)
        return (hidden, *out[1:]) if isinstance(out, tuple) else hidden

    handle = model.blocks[index].register_forward_hook(instead, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def standing_in(part: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Let a module compute something else for a while."""
    held = vars(part).get("forward")
    vars(part)["forward"] = forward
    try:
        yield
    finally:
        del vars(part)["forward"]
        if held is not None:
            vars(part)["forward"] = held
