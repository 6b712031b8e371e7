"""What stands in for half a block has the form of what its module returns; else that half is not skipped alone."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from dlens.axes import HALVES, TokenIds
from dlens.models.family import Layout, hidden_in
from dlens.models.model import Model

__all__ = ["as_spelled"]


def as_spelled(model: Model, ids: TokenIds) -> Layout:
    """The layout without the halves whose modules return another form than what would stand in for them.

    Args:
        model: what was loaded and proved.
        ids: tokens to run.
    """
    layout, forms = model.layout, _forms(model, ids)
    lacking = {part for (part, _), (made, returned) in forms.items() if made != returned}
    return replace(
        layout,
        attn_skip=() if "attn" in lacking else layout.attn_skip,
        mlp_skip=() if "mlp" in lacking else layout.mlp_skip,
    )


def _forms(model: Model, ids: TokenIds) -> dict[tuple[str, str], tuple[int | None, int | None]]:
    """(half, path) -> the form of what a fill makes and of what its module returns: a tuple's length, or None.

    Of the first block whose two forms differ, else of the last.
    """
    found: dict[tuple[str, str], tuple[int | None, int | None]] = {}
    handles, streams = [], {}

    def entered(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        streams[block] = hidden_in(args, kwargs)

    def returned(what: tuple[str, str], block: nn.Module, made: Any, output: Any) -> None:
        forms = _form(made(streams[block], block)), _form(output)
        if what not in found or found[what][0] == found[what][1]:
            found[what] = forms

    for block in model.blocks:
        handles.append(block.register_forward_pre_hook(entered, with_kwargs=True))
        for (name, path), made in _fills(model.layout).items():
            hook = partial(returned, (name, path), block, made)
            handles.append(block.get_submodule(path).register_forward_hook(lambda _m, _a, out, hook=hook: hook(out)))
    try:
        model.module(**model.family.inputs(ids, None))
    finally:
        for handle in handles:
            handle.remove()
    return found


def _fills(layout: Layout) -> dict[tuple[str, str], Any]:
    """(half, path) -> what makes its stand-in."""
    return {(part, fill.path): fill.make for part in HALVES for fill in layout.skips(part)}


def _form(value: Any) -> int | None:
    return len(value) if isinstance(value, tuple) else None
