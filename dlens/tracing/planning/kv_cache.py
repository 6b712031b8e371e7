"""Whether operations allow a cache: the KV cache of autoregressive decoding, and those of denoising."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from functools import cache
from typing import Any, Literal, get_args

from dlens.axes import POINTS
from dlens.caches.blocks import Blocks
from dlens.caches.cache import Cache
from dlens.checks import require_word
from dlens.models.model import Model
from dlens.ops.base.target import Target
from dlens.tracing.planning.plan import Plan, Planned

__all__ = [
    "CachePolicy",
    "Caching",
    "cache_policy",
    "canvas_cache",
    "check_cache",
    "check_caching",
    "forward_arguments",
    "fullest_cache",
]

CachePolicy = Literal["auto", "require", "off"]

# What must be known of a block whose halves compute columns of their own.
_HALVES = frozenset({"ln1_scale", "v", "attn_out", "resid_mid", "ln2_scale", "mlp_out"})

Caching = CachePolicy | Cache
"""What a user may ask for: a word, or one of `dlens.caches`."""


def check_cache(cache: Any) -> None:
    """Refuse what names no cache.

    Raises:
        ValueError: says what came.
    """
    if not isinstance(cache, Cache):
        words = get_args(CachePolicy)
        objects = "one of dlens.caches, such as dlens.caches.Dual()"
        require_word("cache", cache, words, f"{', '.join(map(repr, words))}, or {objects}")


def check_caching(model: Model, target: Target, cache: Any) -> None:
    """Refuse what is no cache of a kind of model.

    Raises:
        ValueError: says what came.
    """
    check_cache(cache)
    if not isinstance(cache, Cache):
        # Without a cache is how such a model decodes anyway, so "off" asks for nothing else.
        if cache == "require" and target.has_noise and model.family.block_length is None:
            raise ValueError(
                f"cache='require' on {model.name}; expected 'auto' or 'off', as every position attends to every other, "
                f"and no cache leaves the numbers as they are; leave it out, or give one that does not, such as "
                f"dlens.caches.Dual()"
            )
    elif not target.has_noise:
        raise ValueError(
            f"cache={type(cache).__name__} on {model.name}; expected 'auto', 'require' or 'off', as an autoregressive "
            f"model keeps the keys and values of all that it decoded; leave it out"
        )


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
        breaking.append("a block that is skipped would leave out a state that decoding keeps")
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

        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self._written: set[int] = set()  # by the last forward, or by this one so far

        def update(self, key_states: Any, value_states: Any, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
            self._written = {layer_idx} if layer_idx in self._written else self._written | {layer_idx}
            return super().update(key_states, value_states, layer_idx, *args, **kwargs)

        def _fullest(self, kind: type[CacheLayerMixin] | None = None) -> int:
            """The layer that holds most, of those of one kind: a sliding one holds no more than its window."""
            growing = {i: x for i, x in enumerate(self.layers) if isinstance(x, CacheLayerMixin)}
            held = {i: x.get_seq_length() for i, x in growing.items() if kind is None or type(x) is kind}
            return max(held, key=lambda i: held[i], default=0)

        def _growing(self, layer_idx: int) -> CacheLayerMixin | None:
            asked = self.layers[layer_idx] if layer_idx < len(self.layers) else None
            return asked if isinstance(asked, CacheLayerMixin) else None

        def _own(self, asked: CacheLayerMixin | None, layer_idx: int) -> bool:
            """Whether a layer is asked by its own block, when those before it have written already, or has written."""
            return asked is not None and bool(asked.get_seq_length() or layer_idx > max(self._written, default=-1))

        def get_seq_length(self, layer_idx: int = 0) -> int:
            own = self._own(self._growing(layer_idx), layer_idx)
            return super().get_seq_length(layer_idx if own else self._fullest())

        def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
            asked = self._growing(layer_idx)
            kind = None if asked is None else type(asked)
            own = self._own(asked, layer_idx)
            return super().get_mask_sizes(query_length, layer_idx if own else self._fullest(kind))

    return FullestCache


def fullest_cache(config: Any) -> Any:
    """An empty KV cache that a model with skipped blocks can decode with."""
    return _fullest_cache_class()(config=config.get_text_config(decoder=True))


def canvas_cache(model: Model, plan: Plan, asked: Caching) -> tuple[Cache | None, tuple[str, ...]]:
    """The cache of a denoising run, if any, and the note where operations switch it off.

    Raises:
        ValueError: it is asked for and would be wrong.
    """
    block_length = model.family.block_length
    if isinstance(asked, Cache):
        asked.check(block_length)
        _refuse(asked, _wrong_under(model, plan, asked))
        return asked, ()
    if asked == "off" or block_length is None:
        return None, ()
    wrong = _wrong_under(model, plan, Blocks())
    if asked == "require":
        _refuse(Blocks(), wrong)
    return (Blocks(), ()) if wrong is None else (None, (f"cache off because of {wrong}",))


def _refuse(cache: Cache, wrong: str | None) -> None:
    if wrong is not None:
        raise ValueError(
            f"cache={type(cache).__name__} with {wrong}; expected a model and operations that are right where a step "
            f"computes some positions alone; leave cache= out, or the operation"
        )


def _wrong_under(model: Model, plan: Plan, cache: Cache) -> str | None:
    """What would not be right with a cache, and why; None where all is."""
    if (missing := _missing_argument(model)) is not None:
        return f"{model.name}, whose forward takes no {missing}"
    if others := set(model.attention_types) - {"full_attention"}:
        return f"{model.name}, whose {', '.join(sorted(others))} hides keys by their distance in the cache"
    by_half = cache.halves(0) is not None
    if by_half and (absent := _HALVES - set(model.layout.sites)):
        return f"{model.name}, whose layout does not name {', '.join(sorted(absent))}"
    if by_half and "(" in model.layout.sites["v"].spelled.replace("(head d_head)", ""):
        return f"{model.name}, which makes queries, keys and values at once"
    for planned in plan.planned:
        if (reason := _wrong_operation(planned, plan, by_half)) is not None:
            return f"'{planned.op.words()}': {reason}"
    return None


def _wrong_operation(planned: Planned, plan: Plan, by_half: bool) -> str | None:
    """Why an operation is not right where a step computes some positions alone; None where it is."""
    if any(touch.use == "gradient" for touch in planned.touches):
        return "a gradient goes through all positions, and a cached step has computed few"
    if any(touch.point == "rot_k" for touch in planned.touches):
        return "rotated keys of a step lie among those of earlier ones; take k instead"
    if by_half and any(POINTS[touch.point].inner for touch in planned.touches):
        return "between a block's input and output each half has columns of its own"
    if planned.structure.runs:
        return "a block that runs again writes its keys and values twice"
    if any(planned is breaking for breaking in plan.breaks_cache()):
        return "what is skipped at some steps leaves no keys and values there"
    return None


def forward_arguments(model: Model) -> Collection[str]:
    """The names of what a model's forward takes."""
    # nnsight puts another forward on the instance.
    return inspect.signature(type(model.module).forward).parameters


def _missing_argument(model: Model) -> str | None:
    """What a model does not take that a cached step must tell it; None where it takes all."""
    taken = forward_arguments(model)
    if "position_ids" not in taken and model.layout.rotary is None:
        return "position_ids"
    return None if model.layout.direct or "past_key_values" in taken else "past_key_values"
