"""Windows on a canvas, on small numbers."""

import torch

from dlens.tracing.step.window import window_of
from tests.caches.views import row

TOGETHER = torch.cat([row("..xx."), row("..xx.")])
APART = torch.cat([row(".xx.x"), row("x...x")])
NUMBERS = torch.arange(10).reshape(2, 5)


def test_one_run_of_columns_is_a_slice() -> None:
    window = window_of(TOGETHER)
    assert window.span == slice(2, 4) and window.index.tolist() == [[2, 3], [2, 3]]
    taken = window.take(NUMBERS)
    assert taken.tolist() == [[2, 3], [7, 8]] and taken.data_ptr() == NUMBERS[:, 2:].data_ptr()


def test_a_row_of_fewer_columns_has_its_first_again() -> None:
    window = window_of(APART)
    assert window.span is None and window.index.tolist() == [[1, 2, 4], [0, 4, 0]]
    assert torch.equal(window.computed, APART)
    assert window.take(NUMBERS).tolist() == [[1, 2, 4], [5, 9, 5]]


def test_what_is_taken_is_spread_to_where_it_was() -> None:
    for chosen in (TOGETHER, APART):
        window = window_of(chosen)
        assert torch.equal(window.spread(window.take(NUMBERS)), NUMBERS.where(chosen, 0))
        assert torch.equal(window.spread(window.take(NUMBERS), fill=-1), NUMBERS.where(chosen, -1))


def test_other_axes_and_both_halves_of_guidance() -> None:
    halves = torch.arange(2 * 2 * 3 * 5 * 2).reshape(4, 3, 5, 2)
    window = window_of(APART)
    taken = window.take(halves, axis=2)
    assert taken.shape == (4, 3, 3, 2)
    assert torch.equal(taken[3, :, 1], halves[3, :, 4]) and torch.equal(taken[0, :, 2], halves[0, :, 4])
    where = APART.repeat(2, 1)[:, None, :, None]
    assert torch.equal(window.spread(taken, axis=2), halves.where(where, 0))


def test_columns_are_found_in_a_window() -> None:
    assert window_of(TOGETHER).find(torch.tensor([[3], [2]])).tolist() == [[1], [0]]
    assert window_of(APART).find(torch.tensor([[4, 1], [4, 4]])).tolist() == [[2, 0], [1, 1]]
