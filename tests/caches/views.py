"""What a cache decides from, as a test writes it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlens.caches import View


def row(marks: str) -> Tensor:
    """One row of a mask: True where a character is not a dot."""
    return torch.tensor([[mark != "." for mark in marks]])


def view(age: int = 1, block_length: int | None = None, **masks: str) -> View:
    """A view of one row, of masks as `row` reads them."""
    width = len(next(iter(masks.values())))
    given: dict[str, Any] = dict.fromkeys(("masked", "stale", "asked", "block"), "." * width)
    given |= {"real": "x" * width} | masks
    if "block" not in masks:
        given["block"] = given["asked"]
    return View(**{name: row(marks) for name, marks in given.items()}, age=age, block_length=block_length)


def shown(mask: Tensor | None) -> list[str] | None:
    """A mask as `row` reads it, row by row."""
    return None if mask is None else ["".join(".x"[number] for number in one) for one in mask.long().tolist()]
