"""Tables within a page of the docs, between marks that name them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

__all__ = ["drawn", "table"]

F = TypeVar("F")


def drawn(page: str, tables: Mapping[str, Callable[[F], str]], found: F) -> str:
    """The page with its tables of today.

    Args:
        page: its text.
        tables: name of a table in the page -> what draws it up.
        found: what they are drawn from.
    """
    for name, draw in tables.items():
        start = page.index(mark := f"<!-- {name} -->") + len(mark)
        page = f"{page[:start]}\n{draw(found)}\n{page[page.index(f'<!-- end of {name} -->') :]}"
    return page


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])
