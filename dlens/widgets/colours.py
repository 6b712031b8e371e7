"""Colours that most readers tell apart, for pictures without scripts; shared.js has the same for the others."""

from __future__ import annotations

__all__ = ["ink_on", "ramp"]

# Points of the cividis scale (Nunez, Anderton and Renslow, 2018), without its darkest end.
_POINTS = (
    (18, 53, 112),
    (60, 77, 110),
    (102, 105, 112),
    (140, 134, 120),
    (181, 166, 108),
    (222, 202, 84),
    (253, 234, 69),
)


def ramp(share: float) -> str:
    """A colour between dark blue at 0 and yellow at 1.

    Examples:
        >>> ramp(0), ramp(1)
        ('#123570', '#fdea45')
    """
    place = min(max(share, 0.0), 1.0) * (len(_POINTS) - 1)
    low = min(int(place), len(_POINTS) - 2)
    mixed = (a + (b - a) * (place - low) for a, b in zip(_POINTS[low], _POINTS[low + 1], strict=True))
    return "#" + "".join(f"{round(channel):02x}" for channel in mixed)


def ink_on(colour: str) -> str:
    """Black or white, whichever reads better on a colour.

    Examples:
        >>> ink_on("#123570"), ink_on("#fdea45")
        ('#fff', '#000')
    """
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#000" if 0.299 * red + 0.587 * green + 0.114 * blue > 117 else "#fff"
