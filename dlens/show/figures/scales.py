"""An axis of a drawing: where numbers and names stand along it, and what is written there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import unescape
from math import ceil, floor, isfinite, log10
from re import sub
from typing import Any

__all__ = ["Scale", "finite_of", "plain_words", "scale_of", "words_of"]

_PADDING = 0.05


@dataclass(frozen=True)
class Scale:
    """Where values stand along an axis.

    Args:
        title: of the axis.
        low, high: the values at its beginning (left, or below) and at its end.
        ticks: pairs of a value and of what is written there.
        names: what stands at 0, 1, 2, ...; none on an axis of numbers.
    """

    title: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    names: tuple[str, ...] = ()

    def share(self, value: Any) -> float:
        """How far along the axis a value stands, from 0 to 1; NaN for none.

        Examples:
            >>> Scale("layer", 0, 4, []).share(1), Scale("", -0.5, 1.5, [], ("a", "b")).share("b")
            (0.25, 0.75)
        """
        number = float(self.names.index(str(value))) if self.names else finite_of(value)
        return (number - self.low) / (self.high - self.low)


def scale_of(
    axis: Any, values: Sequence[Iterable[Any]], more: Iterable[float] = (), padding: float = _PADDING
) -> Scale:
    """The scale of an axis of a plotly figure.

    Args:
        axis: its layout.
        values: what stands along it, of each trace.
        more: further numbers that it shows.
        padding: share of the axis beyond the outermost numbers.
    """
    title = plain_words(axis.title.text or "")
    flat = [value for own in values for value in own]
    if axis.type == "category" or any(isinstance(value, str) for value in flat):
        names = tuple(dict.fromkeys(map(str, flat)))
        ends = (-0.5, len(names) - 0.5)
        low, high = reversed(ends) if axis.autorange == "reversed" else ends
        labels: dict[Any, Any] = dict(zip(axis.tickvals or (), axis.ticktext or (), strict=False))
        ticks = [(float(i), plain_words(str(labels.get(i, name)))) for i, name in enumerate(names)]
        return Scale(title, low, high, ticks, names)
    if axis.range is not None:
        low, high = map(float, axis.range)
    else:
        low, high = _ends([number for number in map(finite_of, [*flat, *more]) if isfinite(number)], padding)
    if axis.autorange == "reversed":
        low, high = high, low
    if axis.tickvals is not None:
        texts = axis.ticktext if axis.ticktext is not None else axis.tickvals
        return Scale(
            title, low, high, [(float(v), plain_words(str(t))) for v, t in zip(axis.tickvals, texts, strict=True)]
        )
    return Scale(title, low, high, _round_ticks(min(low, high), max(low, high)))


def _ends(numbers: Sequence[float], padding: float) -> tuple[float, float]:
    low, high = (min(numbers), max(numbers)) if numbers else (0.0, 1.0)
    margin = padding * (high - low) or 0.5 * (padding > 0 or low == high)
    return low - margin, high + margin


def _round_ticks(low: float, high: float, most: int = 7) -> list[tuple[float, str]]:
    """At most so many round numbers between two others.

    Examples:
        >>> [words for _, words in _round_ticks(-0.25, 0.8)]
        ['−0.2', '0.0', '0.2', '0.4', '0.6', '0.8']
    """
    power = 10.0 ** floor(log10((high - low) / most))
    step = next(n * power for n in (1, 2, 5, 10) if (high - low) / (n * power) <= most)
    digits = max(0, -floor(log10(step) + 1e-9))
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    return [(n * step, words_of(round(n * step, digits) + 0.0, f".{digits}f")) for n in range(first, last + 1)]


def words_of(value: Any, form: str = "") -> str:
    """A value as it is written, with one sign for minus; nothing for what is not known.

    Examples:
        >>> words_of(-0.25, ".1f"), words_of("a&lt;b"), words_of(None)
        ('−0.2', 'a<b', '')
    """
    if value is None or value != value:
        return ""
    if isinstance(value, str):
        return plain_words(value)
    return format(value, form).replace("-", "−")


def plain_words(text: str) -> str:
    """Text of a plotly figure without its markup.

    Examples:
        >>> plain_words("<b>a&lt;b</b>")
        'a<b'
    """
    return unescape(sub("<br ?/?>", ", ", sub(r"</?(?:b|i|sub|sup|span)(?: [^>]*)?>", "", text)))


def finite_of(value: Any) -> float:
    """A number as a float, and NaN for none."""
    return float("nan") if value is None or isinstance(value, str) else float(value)
