"""The weights that write to and read from one channel of the stream, zero for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from torch import Tensor, nn

from dlens.models.layout.matrices import is_linear, linear_weight, unreadable
from dlens.models.model import Model

__all__ = ["Side", "channel_weights", "without_weights"]

Side = Literal["rows", "columns"]


def channel_weights(model: Model, channel: int, side: Side) -> list[Tensor]:
    """The weights of all blocks that write to a channel, or read from it.

    Args:
        model: whose weights.
        channel: of the stream.
        side: "rows" of the modules that write to the stream, with their biases, or "columns" of those that
            read from it. Embedding, norms and head are left out, as in the count of arXiv 2605.06366's channel.

    Returns:
        Views: writing to them changes the model.

    Raises:
        ValueError: the modules are not known, not linear, or not stored as floating-point numbers here.
    """
    views: list[Tensor] = []
    for index, block in enumerate(model.blocks):
        layout = model.layout.at(index)
        paths = layout.writes if side == "rows" else layout.reads
        if not paths:
            raise _unusable(
                model, f"nobody named the modules of block {index} that write to the stream and read from it"
            )
        views += [view for path in paths for view in _views(model, block, path, channel, side)]
    return views


def _views(model: Model, block: nn.Module, path: str, channel: int, side: Side) -> Iterator[Tensor]:
    module = dict(block.named_modules()).get(path)
    if module is None or not is_linear(module):
        raise _unusable(model, f"{path} is {'missing' if module is None else type(module).__name__}")
    if why := unreadable(module):
        raise _unusable(model, f"{path} is {why}")
    weight = linear_weight(module)
    assert weight is not None
    yield weight[channel] if side == "rows" else weight[:, channel]
    if side == "rows" and isinstance(module.bias, Tensor):
        yield module.bias.detach()[channel : channel + 1]


@contextmanager
def without_weights(model: Model, channel: int, side: Side) -> Iterator[None]:
    """Zero the weights of a channel for a while; afterwards they are what they were, bit for bit.

    The model's lock is held, so that no other run of dlens sees it so.

    Examples:
        >>> import dlens, torch
        >>> model = dlens.load("trio/ar")
        >>> before = model.fingerprint()
        >>> with without_weights(model, 7, "columns"):
        ...     changed = model.fingerprint() != before
        >>> changed, model.fingerprint() == before
        (True, True)
    """
    with model.lock:
        views = channel_weights(model, channel, side)
        kept = [view.clone() for view in views]
        try:
            for view in views:
                view.zero_()
            yield
        finally:
            for view, values in zip(views, kept, strict=True):
                view.copy_(values)


def _unusable(model: Model, why: str) -> ValueError:
    return ValueError(
        f"weights of {model.name} by channel: {why}; expected linear modules of floating-point weights, named by the "
        f"model's layout as reads= and writes=; name them in its Layout, or ablate activations only"
    )
