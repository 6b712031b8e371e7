"""dKV-Cache, on views written by hand."""

from typing import Any

import pytest

from dlens.caches import Delayed
from tests.caches.views import shown, view
from tests.unchecked import unchecked


def test_all_at_the_first_two_steps_of_a_block_and_now_and_then() -> None:
    ages = [age for age in range(13) if Delayed(5).columns(view(age=age, masked="..xx")) is None]
    assert ages == [0, 1, 5, 10]


def test_masks_and_what_was_just_decoded() -> None:
    assert shown(Delayed().columns(view(age=3, masked="....x.xx", stale="..x.....", asked="....x..."))) == ["..x.x.xx"]


@pytest.mark.parametrize("refresh", [0, -1, 2.5, None, True])
def test_no_number_of_steps(refresh: Any) -> None:
    with unchecked(), pytest.raises(ValueError, match="refresh=.*; expected a whole number, 1 or more.*; give for"):
        Delayed(refresh)
