"""The exact cache of block-causal attention, on views written by hand."""

import pytest
import torch

from dlens.caches import Blocks
from dlens.caches.cache import View
from tests.caches.views import row, shown, view


def test_from_the_first_block_that_changed_to_the_last_asked_for() -> None:
    first = view(block_length=4, stale="x" * 12, asked="....xxxx....")
    assert shown(Blocks().columns(first)) == ["xxxxxxxx...."]
    next_step = view(block_length=4, stale="........xxxx", asked="....xxxx....")
    assert shown(Blocks().columns(next_step)) == ["....xxxx...."]
    next_block = view(block_length=4, stale=".....x..xxxx", asked="........xxxx")
    assert shown(Blocks().columns(next_block)) == ["....xxxxxxxx"]


def test_part_of_a_block_is_computed_with_the_rest_of_it() -> None:
    assert shown(Blocks().columns(view(block_length=4, stale=".......x", asked=".....x.."))) == ["....xxxx"]


def test_blocks_are_counted_from_the_first_real_token() -> None:
    padded = view(block_length=4, real="..xxxxxxxxxx", stale="xx..........", asked="......x.....")
    assert shown(Blocks().columns(padded)) == ["......xxxx.."]


def test_rows_go_at_their_own_pace() -> None:
    asked, stale = torch.cat([row("....xxxx"), row("xxxx....")]), torch.cat([row("...x...."), row(".x......")])
    both = View(torch.ones_like(asked), asked, stale, asked, asked, 3, 4)
    assert shown(Blocks().columns(both)) == ["xxxxxxxx", "xxxx...."]


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="Blocks on a model in which every .*; expected block-causal .*; use dlens"):
        Blocks().check(None)
    Blocks().check(4)
