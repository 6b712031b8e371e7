"""What the halves of blocks added to the stream: a step computes some columns, and adds the others as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn

from dlens.axes import Half
from dlens.caches.cache import Halves
from dlens.models.family import hidden_of
from dlens.models.model import Model
from dlens.tracing.step.canvas import CanvasKeys
from dlens.tracing.step.window import Window, window_of

__all__ = ["HalfOutputs"]


@final
class HalfOutputs:
    """What attention and MLP of every block added at each column when they last computed it.

    A half is entered where its norm ends, and left where its output is: in between it sees what it computes alone.

    Args:
        model: whose blocks.
        keys: their keys and values.
        prompt_width: columns of the prompts.
    """

    def __init__(self, model: Model, keys: CanvasKeys, prompt_width: int) -> None:
        self._model = model
        self._keys = keys
        self._prompt = prompt_width
        self._now = Halves(True, True, 1.0)
        self._added: dict[tuple[int, Half], Tensor] = {}
        self._values: dict[int, Tensor] = {}

    @contextmanager
    def step(self, now: Halves) -> Iterator[None]:
        """Compute what a step computes in each half, as long as its forward lasts."""
        self._now = now
        with ExitStack() as stack:
            for number, block in enumerate(self._model.blocks):
                for handle in self._hooked(number, block):
                    stack.callback(handle.remove)
            yield
        self._keys.window = None

    def _hooked(self, number: int, block: nn.Module) -> Iterator[Any]:
        layout = self._model.layout.at(number)
        sites = layout.sites
        parts = {name: block.get_submodule(sites[name].path) for name in ("attn_out", "mlp_out", "v")}
        yield block.get_submodule(sites["ln1_scale"].path).register_forward_hook(
            partial(self._choose, number, parts["v"])
        )
        if sites["attn_out"].path not in layout.writes:
            yield parts["attn_out"].register_forward_pre_hook(self._told, with_kwargs=True)
        yield parts["v"].register_forward_hook(partial(self._valued, number))
        yield parts["attn_out"].register_forward_hook(partial(self._leave, number, "attn"))
        yield block.get_submodule(sites["ln2_scale"].path).register_forward_hook(self._enter)
        yield parts["mlp_out"].register_forward_hook(partial(self._leave, number, "mlp"))

    def _choose(self, number: int, v: nn.Module, norm: nn.Module, args: Any, normed: Tensor) -> Tensor:
        """A block starts: choose its columns."""
        self._keys.window = None
        all_of_it = self._now.prompt and self._now.response
        if not (number == 0 or all_of_it or (number, "mlp") not in self._added):
            chosen = torch.zeros(normed.shape[:2], dtype=torch.bool, device=normed.device)
            chosen[:, : self._prompt] = self._now.prompt
            chosen[:, self._prompt :] = self._now.response or self._moved(number, v, normed[:, self._prompt :])
            chosen[:, -1] |= ~chosen.any(1)  # no kernel takes no query at all
            self._keys.window = window_of(chosen)
        return normed if self._keys.window is None else self._keys.window.take(normed)

    def _moved(self, number: int, v: nn.Module, response: Tensor) -> Tensor:
        """[batch, column], the new tokens whose values moved most since they were kept; those of all are kept anew."""
        held = self._values[number][:, self._prompt :]
        new = v(response)
        alike = torch.cosine_similarity(new, held, dim=-1)
        # One at least, as a forward of no columns is none.
        count = max(1, int(response.shape[1] * self._now.share))
        moved = torch.zeros_like(alike, dtype=torch.bool)
        moved.scatter_(1, alike.topk(count, largest=False).indices, True)
        held.copy_(new)
        self._keys.write_values(number, new, self._prompt)
        return moved

    def _valued(self, number: int, v: nn.Module, args: Any, values: Tensor) -> None:
        """Values were made, of the columns that a block computes or of all."""
        window = self._keys.window
        if window is None and values.shape[1] == self._keys.width:
            self._values[number] = values.clone()
        elif window is not None and values.shape[1] == window.index.shape[1]:
            window.write(self._values[number], values)

    def _told(self, attention: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        """What an attention module is told of positions and masks, of its columns alone."""
        window = self._keys.window
        if window is None:
            return None
        own: dict[str, Any] = {}
        if kwargs.get("position_embeddings") is not None:
            own["position_embeddings"] = tuple(_rows(window, part) for part in kwargs["position_embeddings"])
        if isinstance(mask := kwargs.get("attention_mask"), Tensor) and mask.ndim == 4:
            own["attention_mask"] = window.take(mask.expand(len(window.index), -1, self._keys.width, -1), 2)
        return args, kwargs | own

    def _enter(self, norm: nn.Module, args: Any, normed: Tensor) -> Tensor | None:
        return None if self._keys.window is None else self._keys.window.take(normed)

    def _leave(self, number: int, half: Half, part: nn.Module, args: Any, returned: Any) -> Any:
        """A half ends: keep what it adds; the stream gets that of all columns."""
        value, window = hidden_of(returned), self._keys.window
        if window is None:
            self._added[number, half] = value.clone()
            return None
        if value.shape[1] != window.index.shape[1]:  # it was skipped, and adds what stands in for it
            return None
        window.write(self._added[number, half], value)
        whole = self._added[number, half].clone()
        return (whole, *returned[1:]) if isinstance(returned, tuple) else whole


def _rows(window: Window, part: Tensor) -> Tensor:
    """What rotates a window's columns: [batch, ..., position, d_head]."""
    return window.take(part.expand(len(window.index), *part.shape[1:]), part.ndim - 2)
