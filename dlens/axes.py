"""The words everything in dlens is labelled with: axes, hook points and tensor types."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = [
    "BLOCK_POINTS",
    "ROOT_POINTS",
    "STATES",
    "Logits",
    "PointName",
    "Resid",
    "State",
    "TokenIds",
    "TokenMask",
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

# In the order in which a forward reaches them.
BLOCK_POINTS = ("resid_pre", "pattern", "attn_out", "resid_mid", "mlp_out", "resid_post")
ROOT_POINTS = ("embed", "logits")

_BLOCK_NAME = re.compile(r"blocks\.(-?\d+)\.(attn\.)?hook_(\w+)")


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
        >>> hook_name("pattern", 0)
        'blocks.0.attn.hook_pattern'
        >>> hook_name("embed")
        'hook_embed'
    """
    if point in ROOT_POINTS:
        return f"hook_{point}"
    return f"blocks.{layer}.{'attn.' if point == 'pattern' else ''}hook_{point}"


def respell(came: object, known: Iterable[str]) -> str:
    """The usual fix of a misspelt word: the known one that it resembles, if any.

    Examples:
        >>> respell("erly", ("early", "middle", "late")), respell("end", ("early", "middle", "late"))
        ("did you mean 'early'?", 'check the spelling')
    """
    close = difflib.get_close_matches(came, tuple(known), n=1, cutoff=0.8) if isinstance(came, str) else []
    return f"did you mean {close[0]!r}?" if close else "check the spelling"


def parse_point(name: str) -> PointName:
    """Read a full hook name or a short form.

    Raises:
        ValueError: the name is not a hook point.

    Examples:
        >>> parse_point("blocks.3.hook_resid_post")
        PointName(point='resid_post', layer=3)
        >>> parse_point("mlp_out")
        PointName(point='mlp_out', layer=None)
    """
    if name in BLOCK_POINTS or name in ROOT_POINTS:
        return PointName(name)
    if name.startswith("hook_") and name.removeprefix("hook_") in ROOT_POINTS:
        return PointName(name.removeprefix("hook_"))
    if match := _BLOCK_NAME.fullmatch(name):
        layer, attn, point = int(match[1]), match[2], match[3]
        if point in BLOCK_POINTS and (attn is not None) == (point == "pattern"):
            return PointName(point, layer)
    known = (*BLOCK_POINTS, *ROOT_POINTS)
    raise ValueError(
        f"unknown hook point {name!r}; expected a short form ({', '.join(known)}) or a full name "
        f"such as 'blocks.5.hook_resid_post'; {respell(name, known)}"
    )
