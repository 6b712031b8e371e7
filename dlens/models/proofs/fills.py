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
from dlens.models.proofs.sites import Seen, form, observe

__all__ = ["as_spelled"]


def as_spelled(model: Model, ids: TokenIds, seen: Seen) -> Layout:
    """The layout without the halves that cannot be left out by what it names.

    Args:
        model: what was loaded and proved.
        ids: tokens to run.
        seen: the same tokens, at every point.
    """
    layout = model.layout
    lacking = _other_forms(model, seen)
    lacking |= {half for half in HALVES if half not in lacking and layout.skips(half) and _adds(model, ids, half)}

    def change(own: Layout) -> Layout:
        return replace(
            own,
            attn_skip=() if "attn" in lacking else own.attn_skip,
            mlp_skip=() if "mlp" in lacking else own.mlp_skip,
        )

    return layout.changed(change)


def _other_forms(model: Model, seen: Seen) -> set[Half]:
    """The halves of which a module returns another form than what would stand in, such as a longer tuple."""
    found: set[Half] = set()
    for index, block in enumerate(model.blocks):
        for half in HALVES:
            for fill in model.layout.at(index).skips(half):
                forms = seen.forms.get((index, fill.path))
                if forms and forms != {form(fill.make(seen.values[index, "resid_pre"], block))}:
                    found.add(half)
    return found


def _adds(model: Model, ids: TokenIds, half: Half) -> bool:
    """Whether a half still adds something where its stand-ins stand in every block, or the model does not run so."""
    try:
        with _left_out(model, half):
            values = observe(model, ids, {f"{half}_out"}).values
    except Exception:
        return True
    return any(bool(value.any()) for value in values.values())


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
