"""The words everything in dlens is labelled with: axes, hook points and tensor types."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = [
    "BLOCK_POINTS",
    "HALVES",
    "INNER_POINTS",
    "POINTS",
    "ROOT_POINTS",
    "SPELLINGS",
    "STATES",
    "STREAM_POINTS",
    "Half",
    "Logits",
    "Part",
    "Point",
    "PointName",
    "Resid",
    "State",
    "TokenIds",
    "TokenMask",
    "WRITABLE_POINTS",
    "hook_name",
    "parse_point",
    "respell",
]

Resid = Float[Tensor, "batch position d_model"]
Logits = Float[Tensor, "batch position vocab"]
TokenIds = Int[Tensor, "batch position"]
TokenMask = Bool[Tensor, "batch position"]

State = Literal["prompt", "masked", "decoded"]
STATES: tuple[State, ...] = ("prompt", "masked", "decoded")

Half = Literal["attn", "mlp"]
HALVES: tuple[Half, ...] = ("attn", "mlp")

Part = Literal["block", "attn", "mlp"]
"""What can be skipped: a block, or one of its halves."""

_STREAM = ("batch", "position", "d_model")


@dataclass(frozen=True)
class Point:
    """A hook point: a place in the forward that has a name.

    Args:
        name: its short form.
        axes: the axes of its value.
        where: "root" outside of blocks, "edge" where the stream enters or leaves a block, "middle" between its
            halves, or the half that computes it.
        hook: how TransformerLens spells it, after `blocks.{layer}.` or alone.
        writable: whether a new value there changes what follows.
        kernel: whether it lies within the function that computes attention, which modules do not show.
    """

    name: str
    axes: tuple[str, ...]
    where: Literal["root", "edge", "attn", "middle", "mlp"]
    hook: str
    writable: bool = True
    kernel: bool = False

    @property
    def in_block(self) -> bool:
        """Whether there is one in every block."""
        return self.where != "root"

    @property
    def inner(self) -> bool:
        """Whether it lies between a block's input and its output."""
        return self.where in ("attn", "middle", "mlp")

    @property
    def in_stream(self) -> bool:
        """Whether its value is the residual stream in a block, or is added to it there."""
        return self.in_block and self.axes == _STREAM

    @property
    def head_axis(self) -> str | None:
        """Its axis of heads: "head", "kv_head" where several heads share keys and values, None without one."""
        return next((axis for axis in ("head", "kv_head") if axis in self.axes), None)

    def exists_without(self, part: Part) -> bool:
        """Whether there is such a value where a part of the block is skipped."""
        return not self.inner if part == "block" else self.where != part


_HEADS = ("batch", "position", "head", "d_head")
_KV_HEADS = ("batch", "position", "kv_head", "d_head")
_PAIRS = ("batch", "head", "position", "position_b")
_SCALE = ("batch", "position", "scale")

# In the order in which a forward computes them; a visit goes down this list.
_TABLE = (
    Point("embed", _STREAM, "root", "hook_embed"),
    Point("resid_pre", _STREAM, "edge", "hook_resid_pre"),
    Point("ln1_scale", _SCALE, "attn", "ln1.hook_scale", writable=False),
    Point("q", _HEADS, "attn", "attn.hook_q"),
    Point("k", _KV_HEADS, "attn", "attn.hook_k"),
    Point("v", _KV_HEADS, "attn", "attn.hook_v"),
    Point("rot_q", _HEADS, "attn", "attn.hook_rot_q", kernel=True),
    Point("rot_k", _KV_HEADS, "attn", "attn.hook_rot_k", kernel=True),
    Point("attn_scores", _PAIRS, "attn", "attn.hook_attn_scores", kernel=True),
    Point("pattern", _PAIRS, "attn", "attn.hook_pattern", kernel=True),
    Point("z", _HEADS, "attn", "attn.hook_z"),
    Point("result", ("batch", "position", "head", "d_model"), "attn", "attn.hook_result"),
    Point("attn_out", _STREAM, "attn", "hook_attn_out"),
    Point("resid_mid", _STREAM, "middle", "hook_resid_mid"),
    Point("ln2_scale", _SCALE, "mlp", "ln2.hook_scale", writable=False),
    Point("mlp_pre", ("batch", "position", "d_mlp"), "mlp", "mlp.hook_pre"),
    Point("mlp_post", ("batch", "position", "d_mlp"), "mlp", "mlp.hook_post"),
    Point("mlp_out", _STREAM, "mlp", "hook_mlp_out"),
    Point("resid_post", _STREAM, "edge", "hook_resid_post"),
    Point("ln_final_scale", _SCALE, "root", "ln_final.hook_scale", writable=False),
    Point("logits", ("batch", "position", "vocab"), "root", "hook_logits"),
)

POINTS = MappingProxyType({point.name: point for point in _TABLE})
"""Short form -> hook point: the one table of them."""

BLOCK_POINTS = tuple(point.name for point in _TABLE if point.in_block)
INNER_POINTS = tuple(point.name for point in _TABLE if point.inner)
STREAM_POINTS = tuple(point.name for point in _TABLE if point.in_stream)
WRITABLE_POINTS = tuple(point.name for point in _TABLE if point.in_block and point.writable)
ROOT_POINTS = tuple(point.name for point in _TABLE if not point.in_block)

SPELLINGS = MappingProxyType(
    {
        "query": "q",
        "key": "k",
        "value": "v",
        "attn_logits": "attn_scores",
        "attn": "pattern",
        "pre": "mlp_pre",
        "post": "mlp_post",
    }
)
"""Other short forms of TransformerLens' `get_act_name` -> the one used here."""

_BY_HOOK = {(point.in_block, point.hook): point.name for point in _TABLE}
_BLOCK_NAME = re.compile(r"blocks\.(-?\d+)\.(.+)")


@dataclass(frozen=True)
class PointName:
    """A hook point: its short name, and its layer where the full name gave one."""

    point: str
    layer: int | None = None


def hook_name(point: str, layer: int | None = None) -> str:
    """Spell a point the way TransformerLens does.

    Examples:
        >>> hook_name("resid_post", 3)
        'blocks.3.hook_resid_post'
        >>> hook_name("z", 0), hook_name("mlp_post", 0)
        ('blocks.0.attn.hook_z', 'blocks.0.mlp.hook_post')
        >>> hook_name("embed")
        'hook_embed'
    """
    known = POINTS[point]
    return f"blocks.{layer}.{known.hook}" if known.in_block else known.hook


def respell(came: object, known: Iterable[str]) -> str:
    """The usual fix of a misspelt word: the known one that it resembles, if any.

    Examples:
        >>> respell("erly", ("early", "middle", "late")), respell("end", ("early", "middle", "late"))
        ("did you mean 'early'?", 'check the spelling')
    """
    close = difflib.get_close_matches(came, tuple(known), n=1, cutoff=0.8) if isinstance(came, str) else []
    return f"did you mean {close[0]!r}?" if close else "check the spelling"


def parse_point(name: str) -> PointName:
    """Read a full hook name or a short form, TransformerLens' short forms too.

    Raises:
        ValueError: the name is not a hook point.

    Examples:
        >>> parse_point("blocks.3.attn.hook_z")
        PointName(point='z', layer=3)
        >>> parse_point("mlp_out")
        PointName(point='mlp_out', layer=None)
        >>> parse_point("post")
        PointName(point='mlp_post', layer=None)
    """
    if not isinstance(name, str):
        raise ValueError(f"hook point {name!r}; expected the name of one; write for example 'resid_post'")
    if (short := SPELLINGS.get(name, name)) in POINTS:
        return PointName(short)
    if (False, name) in _BY_HOOK:
        return PointName(_BY_HOOK[False, name])
    match = _BLOCK_NAME.fullmatch(name)
    if match and (True, match[2]) in _BY_HOOK:
        return PointName(_BY_HOOK[True, match[2]], int(match[1]))
    raise ValueError(
        f"unknown hook point {name!r}; expected a short form ({', '.join(POINTS)}) or a full name "
        f"such as 'blocks.5.hook_resid_post'; {_respell_point(name)}"
    )


def _respell_point(name: str) -> str:
    """The usual fix of a name that is no hook point: for TransformerLens's name without its block, the short form."""
    last = name.rpartition(".")[2]
    short = next((point.name for point in _TABLE if point.hook.rpartition(".")[2] == last), None)
    return respell(name, POINTS) if short is None else f"for all layers write {short!r}"
