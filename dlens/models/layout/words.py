"""A layout in words: every part and point with its place and, where it was found, why it was taken for that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from dlens.axes import INNER_POINTS, POINTS
from dlens.models.family import Layout, Site

__all__ = ["Place", "places", "text"]


@final
@dataclass(frozen=True)
class Place:
    """One line of a layout.

    Args:
        what: a part of the model, a hook point, or a half that can be skipped.
        where: a path, below the model or below a block; "absent" where there is none.
        why: what shows it, or why there is none.
    """

    what: str
    where: str
    why: str


def places(layout: Layout) -> tuple[Place, ...]:
    """Every part and point of a layout.

    Args:
        layout: that of a loaded model.

    Examples:
        >>> import dlens
        >>> blocks = places(dlens.load("trio/ar").layout)[0]
        >>> blocks.what, blocks.where, blocks.why[:33]
        ('blocks', 'model.layers', '16 modules that run once each, in')
    """
    parts = ("blocks", "embed", "norm", "head")
    found = [Place(part, getattr(layout, part) or "absent", layout.because.get(part, "given")) for part in parts]
    sums = [Place("a block", order, why) for order, why in layout.because.items() if order not in (*parts, *POINTS)]
    points = [_of_point(layout, point) for point in INNER_POINTS]
    halves = [_of_half(layout, "attn"), _of_half(layout, "mlp")]
    others = [
        Place(f"block {index}", _apart(layout, other), "laid out otherwise") for index, other in layout.others.items()
    ]
    return (*found, *sums, *points, *halves, *others)


def _of_point(layout: Layout, point: str) -> Place:
    if point in layout.sites:
        why = "by the sums above" if layout.because else "given"
        return Place(point, _spelled(layout.sites[point]), layout.because.get(point, why))
    if POINTS[point].kernel and point not in layout.absent:
        return Place(point, "the attention function", "computed step by step, it gives the model's own logits")
    return Place(point, "absent", layout.absent.get(point, "no module of this architecture holds it"))


def _spelled(site: Site) -> str:
    scale = "" if site.scale == 1 else f" x {site.scale:g}"
    part = f", part {site.part}" if "part" in site.spelled else ""
    return f"{site.end} of {site.path or 'the block'}{part}{scale}"


def _of_half(layout: Layout, half: str) -> Place:
    fills = layout.attn_skip if half == "attn" else layout.mlp_skip
    if not fills:
        return Place(f"skip of {half}", "absent", "no modules that can be left out alone")
    return Place(f"skip of {half}", ", ".join(fill.path for fill in fills), "do not run then")


def _apart(layout: Layout, other: Layout) -> str:
    """Where a block of its own kind has what the others have elsewhere."""
    moved = [f"{point} at {_spelled(site)}" for point, site in other.sites.items() if layout.sites.get(point) != site]
    if other.block_tuple != layout.block_tuple:
        moved.append("another number of values returned")
    return "; ".join(moved) or "other modules left out when half of it is skipped"


def text(layout: Layout) -> str:
    """A layout as lines of text."""
    rows = places(layout)
    what, where = (max(len(getattr(row, name)) for row in rows) for name in ("what", "where"))
    return "\n".join(f"{row.what:{what}}  {row.where:{where}}  {row.why}" for row in rows)
