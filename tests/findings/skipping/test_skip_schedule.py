"""A schedule skips each block at its noise levels, and its shares and losses are weighed by their widths."""

from __future__ import annotations

import pytest

import dlens
from dlens.findings.skipping.skip_schedule import SkipSchedule, mean_loss, widths
from tests.refusing import WRONG, assert_three_parts
from tests.unchecked import unchecked


def by_hand(levels: tuple[float, ...], *layers: tuple[int, ...], n_layers: int = 16) -> SkipSchedule:
    zeros = (0.0,) * len(layers)
    return SkipSchedule(levels, layers, 0.5, n_layers, zeros, zeros, "by hand", ())


def test_adjoining_levels_are_joined(diffusion: dlens.Model) -> None:
    schedule = by_hand((0.0, 0.25, 0.5, 1.0), (1, 3), (1, 3, 6), (3, 7))
    assert schedule.share == pytest.approx((0.25 * 2 + 0.25 * 3 + 0.5 * 2) / 16)
    assert [op.words() for op in schedule.apply(dlens.trace(diffusion)).ops] == [
        "skip layers 1 at noise 0 to 0.5",
        "skip layers 3",
        "skip layers 6 at noise 0.25 to 0.5",
        "skip layers 7 at noise 0.5 to 1",
    ]
    assert by_hand((0.0, 1.0), ()).apply(dlens.trace(diffusion)).ops == ()


def test_a_denoising_run_saves_the_share(diffusion: dlens.Model) -> None:
    chain = dlens.trace(diffusion)
    schedule = by_hand((0.0, 0.5, 1.0), (2, 5, 7), (5,))
    one = chain.skip([5]).generate("Once upon a time", 8)
    record = schedule.apply(chain).generate("Once upon a time", 8)
    assert record.saved_flops == one.saved_flops * schedule.share * diffusion.n_layers


def test_losses_are_weighed_by_the_width_of_their_level() -> None:
    assert widths((0.0, 0.25, 1.0)) == [0.25, 0.75]
    assert mean_loss((0.0, 0.25, 1.0), (4.0, 8.0)) == 7
    schedule = SkipSchedule((0.0, 0.25, 1.0), ((1,), ()), 0.5, 4, (4.0, 8.0), (2.0, 4.0), "by hand", ())
    assert (schedule.loss, schedule.whole_loss, schedule.share) == (7, 3.5, 0.25 / 4)


def test_a_schedule_has_one_of_each_between_two_edges() -> None:
    with pytest.raises(ValueError) as caught:
        SkipSchedule((0.0, 0.5, 1.0), ((3,),), 0.1, 4, (1.0,), (1.0,), "m", ())
    assert_three_parts(str(caught.value), "SkipSchedule has 3 edges of levels and 1 layers, 1 losses, 1 whole_losses")
    schedule = SkipSchedule((0.0, 1.0), ((3,),), 0.1, 4, (1.0,), (1.0,), "m", ())
    for wrong in WRONG.values():
        with unchecked(), pytest.raises(ValueError) as caught:
            schedule.apply(wrong)
        assert_three_parts(str(caught.value), "chain=")
