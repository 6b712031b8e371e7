"""Tables as people see them, in HTML and as plain text, through pandas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["table_html", "table_text"]

# Texts of more letters are wrapped.
_SENTENCE = 32


def table_html(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    digits: int = 4,
    head: str = "",
    cell: str = "",
    words: bool = False,
) -> Markup:
    """A table as HTML; its texts are escaped, and negative numbers have a sign for minus.

    Args:
        columns: headings.
        rows: as many values each.
        digits: that a float is rounded to.
        head, cell: style of every heading and of every cell.
        words: give columns that hold text the class "words", and "long" too where a text has room for a sentence.

    Examples:
        >>> "<td>&lt;b&gt;</td>" in table_html(["token", "share"], [["<b>", 0.12345]])
        True
    """
    import pandas as pd
    from markupsafe import Markup

    shown = [list(map(_signed, row, _shown(row, digits, "–"))) for row in rows]
    frame = pd.DataFrame(shown, columns=list(columns), dtype=object)
    with pd.option_context("display.max_colwidth", None):
        html = frame.to_html(index=False, border=0, justify="unset", escape=True)
    # pandas gives cells no attributes. As texts are escaped, these are its own tags, row by row.
    classes = [_classed(column) if words else "" for column in zip(*rows, strict=True)] or [""] * len(columns)
    for tag, given in ("th", f' scope="col"{_styled(head)}'), ("td", _styled(cell)):
        first, *rest = html.split(f"<{tag}>")
        own = [f"<{tag}{given}{classes[n % len(columns)]}>{part}" for n, part in enumerate(rest)]
        html = first + "".join(own)
    return Markup(html)


def _classed(column: Sequence[Any]) -> str:
    """The class of the cells of a column."""
    longest = max((len(value) for value in column if isinstance(value, str)), default=0)
    return f' class="words{" long" * (longest > _SENTENCE)}"' if longest else ""


def table_text(columns: Sequence[str], rows: Sequence[Sequence[Any]], digits: int = 4) -> str:
    """A table as lines of text: columns as wide as they must be, numbers to the right.

    Examples:
        >>> print(table_text(["model", "loss"], [["ar", 2.5], ["diffusion", 12]]))
        model      loss
        ar          2.5
        diffusion    12
    """
    import pandas as pd
    from pandas.api.types import is_numeric_dtype

    right = [is_numeric_dtype(dtype) for dtype in pd.DataFrame(rows, columns=range(len(columns))).dtypes]
    frame = pd.DataFrame([list(columns), *(_shown(row, digits, "nan") for row in rows)], dtype=object)
    for column, numbers in enumerate(right):
        texts = frame[column].str
        # pandas puts one space between columns; a second tells them from words.
        padded = texts.pad(texts.len().max(), side="left" if numbers else "right")
        frame[column] = padded if column == 0 else " " + padded
    with pd.option_context("display.max_colwidth", None):
        lines = frame.to_string(index=False, header=False).splitlines()
    return "\n".join(line.rstrip() for line in lines)


def _shown(row: Sequence[Any], digits: int, nothing: str) -> list[str]:
    return [_cell(value, digits, nothing) for value in row]


def _cell(value: Any, digits: int, nothing: str) -> str:
    if isinstance(value, float):
        return nothing if value != value else f"{value:.{digits}g}"
    return str(value)


def _signed(value: Any, shown: str) -> str:
    return shown.replace("-", "−") if isinstance(value, (int, float)) else shown


def _styled(style: str) -> str:
    return f' style="{style}"' if style else ""
