"""Attention computed step by step, so that what lies within it can be read and written, whatever kernel a model uses.

Decoders of the transformers library call an attention function by its name in their config; code of
checkpoints calls PyTorch's. Both are met here: for the blocks that are chosen, and only as long as that is asked.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, final
from weakref import WeakKeyDictionary

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dlens.models.model import Model

__all__ = ["AttentionCall", "KernelVisit", "Kernels", "attend"]

KernelVisit = Callable[[int, str, Tensor], Tensor]
"""From the index of a block, a hook point within its attention and the value there, the value that goes on."""

_NAME = "dlens"
# What attention functions are told beside what is computed here; masks hold it already, or it is of other kernels.
_TOLD = frozenset(
    "output_attentions output_hidden_states use_cache position_ids cache_position deterministic "
    "output_router_logits logits_to_keep num_items_in_batch return_dict".split()
)


@final
@dataclass(frozen=True)
class AttentionCall:
    """What an attention function gets.

    Args:
        q, k, v: queries, keys and values, rotated where the model rotates them.
        mask: True or 0 where a query sees a key; None where `causal` decides.
        causal: whether a query sees no later key.
        scale: factor of the products.
        softcap: bound of the scores, None without one.
        sinks: per head the score of a key of no position, None without one.
    """

    q: Float[Tensor, "batch head position d_head"]
    k: Float[Tensor, "batch kv_head position_b d_head"]
    v: Float[Tensor, "batch kv_head position_b d_value"]
    mask: Tensor | None
    causal: bool
    scale: float
    softcap: float | None = None
    sinks: Float[Tensor, " head"] | None = None

    def scores(self, q: Tensor, k: Tensor) -> Float[Tensor, "batch head position position_b"]:
        """Scaled products, bounded and masked, in the order of operations of the library's eager function."""
        scores = torch.matmul(q, _shared(k, q.shape[1]).transpose(2, 3)) * self.scale
        if self.softcap is not None:
            scores = torch.tanh(scores / self.softcap) * self.softcap
        mask = self.mask
        if mask is None:
            if not self.causal:
                return scores
            mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        if mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, torch.finfo(scores.dtype).min)
        return scores + mask

    def pattern(self, scores: Tensor) -> Float[Tensor, "batch head position position_b"]:
        """What each query takes of each key; less than 1 in all where there are sinks."""
        if self.sinks is None:
            wide = torch.promote_types(scores.dtype, torch.float32)
            return torch.softmax(scores, dim=-1, dtype=wide).to(self.q.dtype)
        sinks = repeat(self.sinks, "head -> batch head query 1", batch=scores.shape[0], query=scores.shape[2])
        joined = torch.cat([scores, sinks.to(scores)], dim=-1)
        joined = joined - joined.max(dim=-1, keepdim=True).values
        return torch.softmax(joined, dim=-1)[..., :-1].to(self.v.dtype)

    def mixed(self, pattern: Tensor) -> Float[Tensor, "batch head position d_value"]:
        """The values, mixed by a pattern."""
        return torch.matmul(pattern, _shared(self.v, pattern.shape[1]))


_TAKEN: WeakKeyDictionary[nn.Module, Callable[[AttentionCall], tuple[Tensor, Tensor]]] = WeakKeyDictionary()


def _shared(heads: Tensor, n_heads: int) -> Tensor:
    """Keys or values for every head of queries."""
    groups = n_heads // heads.shape[1]
    return heads if groups == 1 else repeat(heads, "b kv p d -> b (kv group) p d", group=groups)


def attend(call: AttentionCall, n_kv_heads: int, visit: Callable[[str, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Compute attention, with a visit at each point within it.

    Args:
        call: what the attention function got.
        n_kv_heads: heads of keys before they were repeated for every query.
        visit: from a hook point and its value, with the axes of the point, the value that goes on.

    Returns:
        The mixed values [batch, head, position, d_value] and the pattern.
    """
    q, k = call.q, call.k
    k = k[:, :: k.shape[1] // n_kv_heads]
    q = _visited(visit, "rot_q", q)
    old, new = k[:, :, : k.shape[2] - q.shape[2]], k[:, :, k.shape[2] - q.shape[2] :]
    changed = _visited(visit, "rot_k", new)
    if changed is not new:
        k = torch.cat([old, changed], dim=2)
    scores = call.scores(q, k)
    given = visit("attn_scores", scores)
    pattern = call.pattern(given) if given is scores else _without_dead(call.pattern(given), given)
    pattern = visit("pattern", pattern)
    return call.mixed(pattern), pattern


def _without_dead(pattern: Tensor, scores: Tensor) -> Tensor:
    """Nothing where a query was left without a key: none but those that the mask hides from it."""
    hidden = scores <= torch.finfo(scores.dtype).min / 2
    dead = hidden.all(-1, keepdim=True) & scores.isneginf().any(-1, keepdim=True)
    return pattern.masked_fill(dead, 0)


def _visited(visit: Callable[[str, Tensor], Tensor], point: str, heads: Tensor) -> Tensor:
    """Visit a point whose axes the kernel has in another order."""
    value = rearrange(heads, "batch head position d_head -> batch position head d_head")
    new = visit(point, value)
    return heads if new is value else rearrange(new, "batch position head d_head -> batch head position d_head")


@final
class Kernels:
    """The attention of a model's blocks, taken over for those that are chosen.

    Args:
        model: whose.
        visit: called at each point within the attention of a chosen block.
    """

    def __init__(self, model: Model, visit: KernelVisit) -> None:
        self._blocks = tuple(model.blocks)
        self._n_kv_heads = model.n_kv_heads
        self._visit = visit
        self._configs: dict[nn.Module, Any] = {}
        self._chosen: frozenset[int] = frozenset()
        self._met = _Calls(self._direct) if model.layout.direct else nullcontext()
        self.direct = False
        """Whether PyTorch's attention was called by the model's own code."""
        self._now: int | None = None

    def choose(self, blocks: Collection[int]) -> None:
        """Take over these blocks until others are chosen."""
        if self._chosen == frozenset(blocks):
            return
        self._release()
        self._chosen = frozenset(blocks)
        for index in self._chosen:
            for part in self._blocks[index].modules():
                if getattr(vars(part).get("config"), "_attn_implementation", None) is not None:
                    self._take_over(index, part)

    def _take_over(self, index: int, part: Any) -> None:
        self._configs[part] = part.config
        part.config = copy.copy(part.config)
        part.config._attn_implementation = _NAME
        _TAKEN[part] = partial(self._attend, index)

    def _attend(self, index: int, call: AttentionCall) -> tuple[Tensor, Tensor]:
        return attend(call, self._n_kv_heads, partial(self._visit, index))

    def _release(self) -> None:
        for part, config in self._configs.items():
            part.config = config  # pyright: ignore
            _TAKEN.pop(part, None)
        self._configs.clear()
        self._chosen = frozenset()

    @contextmanager
    def open(self) -> Iterator[None]:
        """Be ready to take over blocks; afterwards the model is as it was."""
        _register()
        handles = [block.register_forward_pre_hook(partial(self._enter, i)) for i, block in enumerate(self._blocks)]
        try:
            with self._met:
                yield
        finally:
            for handle in handles:
                handle.remove()
            self._release()

    def _enter(self, index: int, block: nn.Module, args: Any) -> None:
        self._now = index

    def _direct(self, *args: Any, **kwargs: Any) -> Tensor | None:
        """What a direct call of PyTorch's attention gives; None where it is left alone."""
        if self._now is None or self._now not in self._chosen:
            return None
        self.direct = True
        return self._attend(self._now, _direct_call(*args, **kwargs))[0]


def _register() -> None:
    """Make the name known to the library; it means nothing to blocks whose config does not say it."""
    from transformers import AttentionInterface

    AttentionInterface.register(_NAME, _interface)


def _interface(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    sliding_window: int | None = None,
    **told: Any,
) -> tuple[Tensor, Tensor]:
    """An attention function of the transformers library, for blocks that were taken over."""
    # Masks hold the window already, but for those kernels that have none.
    unseen = attention_mask is None and sliding_window is not None and key.shape[2] > sliding_window
    _refuse_unknown(module, attention_mask, dropout, told | ({"sliding_window": sliding_window} if unseen else {}))
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    call = AttentionCall(
        q=query,
        k=key,
        v=value,
        mask=None if attention_mask is None else attention_mask[..., : key.shape[2]],
        causal=causal and attention_mask is None and query.shape[2] > 1,
        scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
        softcap=softcap,
        sinks=s_aux if s_aux is not None else vars(module)["_parameters"].get("sinks"),
    )
    mixed, pattern = _TAKEN[module](call)
    return mixed.transpose(1, 2).contiguous(), pattern


def _refuse_unknown(module: nn.Module, mask: Tensor | None, dropout: float, told: Mapping[str, Any]) -> None:
    """Refuse what would make the attention computed here another than the model's own."""
    unknown = sorted(name for name, value in told.items() if value is not None and name not in _TOLD)
    if unknown or dropout or (mask is not None and mask.ndim != 4):
        came = f"arguments {', '.join(unknown)}" if unknown else "dropout" if dropout else f"a {mask.ndim}-d mask"  # pyright: ignore
        raise ValueError(
            f"the attention of {type(module).__name__} got {came}; expected what can be computed step by step, to give "
            f"its scores and pattern; load the model with attn_implementation='sdpa' or 'eager', or read z instead"
        )


@final
class _Calls(TorchFunctionMode):
    """Meets direct calls of PyTorch's attention."""

    def __init__(self, compute: Callable[..., Tensor | None]) -> None:
        super().__init__()
        self._compute = compute

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **kwargs)
        found = self._compute(*args, **kwargs)
        return func(*args, **kwargs) if found is None else found


def _direct_call(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Bool[Tensor, ...] | Float[Tensor, ...] | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> AttentionCall:
    """The arguments of PyTorch's attention."""
    if dropout_p:
        raise ValueError(
            f"attention of a block got dropout_p={dropout_p}; expected none, as what is dropped is known to the kernel "
            f"alone; call .eval() on the model"
        )
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    return AttentionCall(q=query, k=key, v=value, mask=attn_mask, causal=is_causal, scale=factor)
