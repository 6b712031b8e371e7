"""What every refusal is held to: nothing computed, nothing changed, a message in three parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import dlens
from tests.untouched import untouched

STORY = "Once upon a time"
WIDTH = 4
"""Tokens of the story."""

Action = Callable[[dlens.Model], Any]
"""What is refused of a model."""

WRONG: dict[str, Any] = {"None": None, "number": 3.5, "text": "x", "mapping": {}, "object": object(), "list": [None]}
"""What nobody means."""


def assert_three_parts(message: str, came: str) -> None:
    """What came; what was expected; the fix, with the offending value in the first part."""
    parts = message.split("; ")
    assert len(parts) >= 3, message
    assert came in parts[0], message
    assert any(part.startswith("expected ") for part in parts[1:-1]), message
    assert len(parts[-1]) > 8 and not parts[-1].startswith("expected "), message


@contextmanager
def refused(model: dlens.Model, kind: type[Exception], came: str) -> Iterator[None]:
    """The body raises before the model computes anything, in three parts, and changes nothing."""
    calls: list[int] = []
    with untouched(model):
        handles = [part.register_forward_pre_hook(lambda *_: calls.append(1)) for part in (model.module, model.embed)]
        try:
            with pytest.raises(kind) as caught:
                yield
        finally:
            for handle in handles:
                handle.remove()
    assert type(caught.value) is kind
    assert calls == []
    assert_three_parts(str(caught.value), came)
