"""Half a block can be left out: what stands in has the form of what its modules return, and adds nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from dlens.axes import HALVES, Half, Resid, TokenIds
from dlens.models.family import Fill, Layout, hidden_in
from dlens.models.model import Model
from dlens.models.proofs.blocks import standing_in
from dlens.models.proofs.sites import observe

__all__ = ["as_spelled"]


def as_spelled(model: Model, ids: TokenIds) -> Layout:
    """The layout without the halves that cannot be left out by what it names.

    Args:
        model: what was loaded and proved.
        ids: tokens to run.
    """
    layout = model.layout
    lacking = _other_forms(model, ids)
    lacking |= {half for half in HALVES if half not in lacking and layout.skips(half) and _adds(model, ids, half)}

    def change(own: Layout) -> Layout:
        return replace(
            own,
            attn_skip=() if "attn" in lacking else own.attn_skip,
            mlp_skip=() if "mlp" in lacking else own.mlp_skip,
        )

    return layout.changed(change)


def _other_forms(model: Model, ids: TokenIds) -> set[Half]:
    """The halves of which a module returns another form than what would stand in, such as a longer tuple."""
    found: set[Half] = set()
    handles, streams = [], {}

    def entered(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        streams[block] = hidden_in(args, kwargs)

    def returned(half: Half, fill: Fill, block: nn.Module, output: Any) -> None:
        if _form(fill.make(streams[block], block)) != _form(output):
            found.add(half)

    for index, block in enumerate(model.blocks):
        handles.append(block.register_forward_pre_hook(entered, with_kwargs=True))
        for half in HALVES:
            for fill in model.layout.at(index).skips(half):
                hook = partial(returned, half, fill, block)
                part = block.get_submodule(fill.path)
                handles.append(part.register_forward_hook(lambda _m, _a, out, hook=hook: hook(out)))
    try:
        model.module(**model.family.inputs(ids, None))
    finally:
        for handle in handles:
            handle.remove()
    return found


def _form(value: Any) -> int | None:
    return len(value) if isinstance(value, tuple) else None


def _adds(model: Model, ids: TokenIds, half: Half) -> bool:
    """Whether a half still adds something where its stand-ins stand in every block, or the model does not run so."""
    try:
        with _left_out(model, half):
            values = observe(model, ids).values
    except Exception:
        return True
    added = (values.get((layer, f"{half}_out")) for layer in range(model.n_layers))
    return any(value is not None and bool(value.any()) for value in added)


@contextmanager
def _left_out(model: Model, half: Half) -> Iterator[None]:
    """The modules of a half do not run; what stands in for them does."""
    streams: dict[nn.Module, Resid] = {}

    def entered(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        streams[block] = hidden_in(args, kwargs)

    with ExitStack() as stack:
        for index, block in enumerate(model.blocks):
            handle = block.register_forward_pre_hook(entered, with_kwargs=True)
            stack.callback(handle.remove)
            for fill in model.layout.at(index).skips(half):
                stack.enter_context(standing_in(block.get_submodule(fill.path), partial(_made, fill, block, streams)))
        yield


def _made(fill: Fill, block: nn.Module, streams: dict[nn.Module, Resid], *args: Any, **kwargs: Any) -> Any:
    return fill.make(streams[block], block)
