"""Fast-dLLM's dual cache, on views written by hand."""

from dlens.caches import Dual
from tests.caches.views import shown, view


def test_all_at_first_and_then_the_block() -> None:
    assert Dual().columns(view(age=0, asked="...xx...")) is None
    assert shown(Dual().columns(view(age=1, asked="...xx..."))) == ["...xx..."]


def test_a_block_that_shrinks_is_computed_whole() -> None:
    assert shown(Dual().columns(view(age=2, asked=".....x..", block="..xxxx.."))) == ["..xxxx.."]
