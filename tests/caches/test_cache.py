"""What a cache is."""

import pytest

from dlens import caches
from dlens.caches.cache import Cache


def test_only_blocks_changes_no_number() -> None:
    assert [
        name for name in caches.__all__ if name not in ("Cache", "Halves", "View") and getattr(caches, name).exact
    ] == ["Blocks"]


def test_a_cache_is_a_rule() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Cache()  # pyright: ignore
