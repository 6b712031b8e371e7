"""Keys and values of a whole canvas, of which a forward computes those of a window and reads all.

A decoder of transformers is given them as its KV cache. Code of checkpoints that calls PyTorch's attention by
itself (LLaDA, Dream) is met there, as it has no cache that could be written in the middle.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cache, partial
from typing import Any, final

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dlens.axes import TokenIds, TokenMask
from dlens.models.model import Model
from dlens.tracing.planning.kv_cache import forward_arguments
from dlens.tracing.step.window import Window

__all__ = ["CanvasKeys"]

_POSITION = 2
"""The axis of positions in keys and values: [batch, head, position, d_head]."""


@final
class CanvasKeys:
    """What the blocks of a model hold of a canvas.

    Args:
        model: whose.
        width: columns of the canvas.
    """

    def __init__(self, model: Model, width: int) -> None:
        self.held: dict[int, tuple[Tensor, Tensor]] = {}
        """Block -> its keys and values, rotated."""
        self.width = width
        self.window: Window | None = None
        """What is being computed; None is all."""
        self._model = model
        self._mask: Tensor | None = None
        self._block: int | None = None
        self._takes_positions = "position_ids" in forward_arguments(model)
        self._cache = None if model.layout.direct else _cache_class()(self.update, width, model.n_layers)

    def logits(self, ids: TokenIds, real: TokenMask | None, window: Window | None) -> Tensor:
        """Run the model on a canvas.

        Args:
            ids: the whole canvas, both halves under guidance.
            real: what is not padding; None where nothing is padded.
            window: what is computed; None is all.

        Returns:
            The module's own logits of the columns computed, [batch, column, vocab].

        Raises:
            ValueError: no block gave any keys.
        """
        self.window = window
        self._mask = None if real is None else repeat(real, "batch key -> batch 1 1 key")
        inputs = self._model.family.inputs(ids, real)
        if isinstance(mask := inputs.get("attention_mask"), Tensor) and mask.ndim == 4:
            self._mask = mask
        if window is not None:
            inputs = self._within(inputs, window)
        if self._cache is not None:
            inputs |= {"past_key_values": self._cache, "use_cache": True}
        with nullcontext() if self._cache is not None else self._met():
            logits = self._model.module(**inputs).logits
        self._require_keys()
        return logits

    def _require_keys(self) -> None:
        if not self.held:
            raise ValueError(
                f"no block of {self._model.name} kept keys and values of the canvas; expected a model that writes them "
                f"into the cache that its forward is given, and a block with attention; leave cache= out"
            )

    def _within(self, inputs: dict[str, Any], window: Window) -> dict[str, Any]:
        """The arguments of a forward that computes a window."""
        ids, mask = inputs["input_ids"], inputs.get("attention_mask")
        own = {"input_ids": window.take(ids)}
        if self._takes_positions:
            counted = torch.arange(self.width, device=ids.device).expand_as(ids)
            own["position_ids"] = window.take(inputs.get("position_ids", counted).expand_as(ids))
        if isinstance(mask, Tensor) and mask.ndim == 4:
            own["attention_mask"] = window.take(mask.expand(len(ids), -1, self.width, -1), 2)
        return inputs | own

    def update(self, block: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Take what a block computed; returns what it attends to."""
        if self.window is None:
            # Copies: what is written later must not change what a forward has shown.
            self.held[block] = keys.clone(), values.clone()
            return keys, values
        if block not in self.held:
            sizes = [(*new.shape[:_POSITION], self.width, new.shape[-1]) for new in (keys, values)]
            self.held[block] = keys.new_zeros(sizes[0]), values.new_zeros(sizes[1])
        for old, new in zip(self.held[block], (keys, values), strict=True):
            self.window.write(old, new, _POSITION)
        return self.held[block]

    def write_values(self, block: int, values: Tensor, start: int) -> None:
        """Write values from a column on, as a projection gives them: [batch, column, heads side by side]."""
        held = self.held[block][1]
        heads = rearrange(values, "batch column (head d_head) -> batch head column d_head", d_head=held.shape[-1])
        # Code that calls PyTorch's attention has repeated them for every head of queries.
        held[:, :, start:] = heads.repeat_interleave(held.shape[1] // heads.shape[1], dim=1)

    @contextmanager
    def _met(self) -> Iterator[None]:
        """Meet the attention of code that calls PyTorch's, and what rotates queries and keys by their index."""
        with ExitStack() as stack:
            for number, block in enumerate(self._model.blocks):
                stack.callback(block.register_forward_pre_hook(partial(self._enter, number)).remove)
                if self._model.layout.rotary is not None:
                    rotary = block.get_submodule(self._model.layout.rotary)
                    stack.callback(rotary.register_forward_pre_hook(self._spread).remove)
                    stack.callback(rotary.register_forward_hook(self._taken).remove)
            stack.enter_context(_Attention(self))
            yield

    def _enter(self, number: int, block: nn.Module, args: Any) -> None:
        self._block = number

    def _spread(self, rotary: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self.window is None:
            return None
        return tuple(self.window.spread(value, _POSITION) if isinstance(value, Tensor) else value for value in args)

    def _taken(self, rotary: nn.Module, args: Any, rotated: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """The columns of the window; where attention is skipped, what stands in has no others."""
        if self.window is None or any(value.shape[_POSITION] != self.width for value in rotated):
            return None
        return tuple(self.window.take(value, _POSITION) for value in rotated)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, *rest: Any, **named: Any) -> Any:
        """The arguments of PyTorch's attention with the keys and values of the canvas."""
        if self._block is not None and key.shape[-1]:
            key, value = self.update(self._block, key, value)
            attn_mask = self._seen(attn_mask, len(query))
        return (query, key, value, attn_mask, *rest), named

    def _seen(self, mask: Any, batch: int) -> Any:
        """The mask of the window's queries over all keys; the code may have made one of its own columns alone."""
        if self.window is None:
            return mask
        if mask is None or mask.shape[-1] != self.width:
            mask = self._mask
        if mask is None or mask.shape[_POSITION] == 1:
            return mask
        return (
            self.window.take(mask.expand(batch, -1, -1, -1), _POSITION) if mask.shape[_POSITION] == self.width else mask
        )


@final
class _Attention(TorchFunctionMode):
    """Meets direct calls of PyTorch's attention."""

    def __init__(self, keys: CanvasKeys) -> None:
        super().__init__()
        self._keys = keys

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention:
            args, kwargs = self._keys.attend(*args, **kwargs)
        return func(*args, **kwargs)


@cache
def _cache_class() -> Any:
    from transformers.cache_utils import Cache, DynamicLayer

    class CanvasLayer(DynamicLayer):
        """One block's keys and values; its mask is as wide as the canvas."""

        def __init__(self, number: int, update: Any, width: int) -> None:
            super().__init__()
            self._number, self._update, self.width = number, update, width

        def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
            return self._update(self._number, key_states, value_states)

        def get_seq_length(self) -> int:
            return 0

        def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
            return self.width, 0

    class CanvasCache(Cache):
        """The layers of a model; positions are told apart from it."""

        def __init__(self, update: Any, width: int, n_layers: int) -> None:
            super().__init__(layers=[CanvasLayer(number, update, width) for number in range(n_layers)])

    return CanvasCache
