"""The KV cache of autoregressive decoding: whether operations allow it, and one that stands skipped layers."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

from dlens.ops.base.target import Target
from dlens.tracing.planning.plan import Plan

__all__ = ["CachePolicy", "cache_policy", "fullest_cache"]

CachePolicy = Literal["auto", "require", "off"]


def cache_policy(plan: Plan, policy: CachePolicy, target: Target) -> tuple[bool, tuple[str, ...]]:
    """Whether AR decoding keeps its KV cache, and the note where operations switch it off.

    Raises:
        ValueError: it must be kept and cannot be.
    """
    if policy == "off":
        return False, ()
    breaking = [planned.op.words() for planned in plan.breaks_cache()]
    if len(plan.uncached_layers()) == target.n_layers:
        breaking.append("every layer is skipped, so that nothing would be cached")
    if target.hands_on and plan.uncached_layers():
        breaking.append("a block that is skipped would not hand on the state that it was given")
    if not breaking:
        return True, ()
    if policy == "require":
        raise ValueError(
            f"cache='require' with '{breaking[0]}'; expected operations that act alike at every step and run each "
            f"block once, as layers would disagree on what the cache holds; leave cache='auto', or act at all steps"
        )
    note = (
        f"KV cache off because of '{breaking[0]}': each step computes every position again, and operations act on all "
        f"of them"
    )
    return False, (note,)


@cache
def _fullest_cache_class() -> Any:
    from transformers.cache_utils import CacheLayerMixin, DynamicCache

    class FullestCache(DynamicCache):
        """A cache whose length is that of its fullest layer, as a skipped layer's entry stays empty."""

        def _fullest(self, kind: type[CacheLayerMixin] | None = None) -> int:
            """The layer that holds most, of those of one kind: a sliding one holds no more than its window."""
            growing = {i: x for i, x in enumerate(self.layers) if isinstance(x, CacheLayerMixin)}
            held = {i: x.get_seq_length() for i, x in growing.items() if kind is None or type(x) is kind}
            return max(held, key=lambda i: held[i], default=0)

        def get_seq_length(self, layer_idx: int = 0) -> int:
            return super().get_seq_length(self._fullest())

        def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
            asked = self.layers[layer_idx] if layer_idx < len(self.layers) else None
            kind = type(asked) if isinstance(asked, CacheLayerMixin) else None
            return super().get_mask_sizes(query_length, self._fullest(kind))

    return FullestCache


def fullest_cache(config: Any) -> Any:
    """An empty KV cache that a model with skipped blocks can decode with."""
    return _fullest_cache_class()(config=config)
