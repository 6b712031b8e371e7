"""Which values are the same, and which add up."""

from __future__ import annotations

import torch

from dlens.models.layout.sums import adds_up, aligned, same, scale_between


def test_a_sum_holds_number_by_number() -> None:
    one, two = torch.randn(1, 3, 4), torch.randn(1, 3, 4)
    total = one + two
    assert adds_up((one, two), total)
    one[0, 0, 0] = total[0, 0, 0] = 1e6
    wrong = total.clone()
    wrong[0, 1, 1] += 1e-3
    assert not adds_up((one, two), wrong)


def test_a_scale_that_is_known_is_taken_as_it_is() -> None:
    before, added = torch.randn(2, 5), torch.randn(2, 5)
    assert scale_between(before, added, before + added * (1.4 / 2**0.5), (0.5, 1.4 / 2**0.5)) == 1.4 / 2**0.5
    assert abs((scale_between(before, added, before + added * 0.3) or 0) - 0.3) < 1e-6
    assert scale_between(before, added * 0, before) is None


def test_values_of_another_kind_are_not_the_same() -> None:
    value = torch.ones(1, 2, 3)
    assert same(value, value.clone()) and not same(value, value.half())
    assert aligned(torch.ones(1, 2, 3, dtype=torch.long), value) is None
