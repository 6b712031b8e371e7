"""Fast-dLLM's prefix cache, on views written by hand."""

from dlens.caches import Prefix
from tests.caches.views import shown, view


def test_all_at_first_and_then_from_the_block_on() -> None:
    assert Prefix().columns(view(age=0, asked="...xx...")) is None
    assert shown(Prefix().columns(view(age=1, asked="...xx..."))) == ["...xxxxx"]


def test_a_block_that_shrinks_stays_where_it_began() -> None:
    assert shown(Prefix().columns(view(age=2, asked=".....x..", block="..xxxx.."))) == ["..xxxxxx"]
