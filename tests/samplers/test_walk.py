"""Rows that go through their own canvas blocks."""

import torch

from dlens.samplers import Tokens
from dlens.samplers.walk import BlockWalk, filled_up, most_blocks

M = 9


def walk(rows: list[list[int]], starts: tuple[int, ...], stop: str = "block") -> tuple[BlockWalk, torch.Tensor]:
    canvas = torch.tensor(rows)
    return BlockWalk(canvas == M, 2, Tokens(mask=M, eos=0, ends=(1,), starts=starts), stop), canvas


def test_each_row_is_in_a_block_of_its_own() -> None:
    both, canvas = walk([[5, 5, 5, M, M, M], [7, 7, 5, M, M, M]], (0, 2))
    place = both.look(canvas)
    assert place.columns.tolist() == [[2, 3], [2, 3]] and place.asked.tolist() == [2, 3]
    assert place.open.tolist() == [[False, True], [False, True]] and place.first.tolist() == [
        [True, False],
        [False] * 2,
    ]
    both.move([True, False], canvas)
    place = both.look(canvas)
    assert place.columns.tolist() == place.asked.tolist() == [[4, 5], [2, 3]]
    canvas = place.write(canvas, torch.tensor([[True, False], [False, True]]), torch.tensor([[3, 4], [5, 6]]))
    assert canvas.tolist() == [[5, 5, 5, M, 3, M], [7, 7, 5, 6, M, M]]


def test_a_block_that_the_canvas_cuts() -> None:
    one, canvas = walk([[5, 5, 5, 5, M]], ())
    place = one.look(canvas)
    assert place.columns.tolist() == [[4]] and place.mine.tolist() == [[True]]
    both, canvas = walk([[5, 5, 5, 5, M], [7, 5, 5, 5, M]], (0, 1))
    place = both.look(canvas)
    assert place.columns.tolist() == [[4, 4], [3, 4]]
    assert place.open.tolist() == [[True, False], [False, True]]


def test_rows_end_with_a_sequence() -> None:
    for stop, left in (("never", [[2], [2]]), ("block", [[], [2]])):
        both, _ = walk([[5, 5, M, M, M, M]] * 2, (), stop)
        both.left = [[1, 2], [1, 2]]
        canvas = torch.tensor([[5, 0, 4, 0, M, M], [5, 0, 4, 4, M, M]])
        both.move([True, True], canvas)
        assert both.left == left
    both, _ = walk([[5, 5, M, M, M, M]] * 2, (), "token")
    canvas = torch.tensor([[5, 0, M, 1, M, M], [5, 0, 1, M, M, M]])
    both.stop_early(canvas)
    assert both.live == [True, False]
    assert both.finished(canvas).tolist() == [[5, 0, 0, 1, 0, 0], [5, 0, 1, 0, 0, 0]]


def test_whole_blocks() -> None:
    assert filled_up([1, 2, 3, 4], 4, 4) == (3, 2, 1, 0)
    # A prompt of any length and 5 tokens lie in at most two blocks of 4.
    assert max((length + 5 - 1) // 4 - length // 4 + 1 for length in range(40)) == most_blocks(5, 0, 4) == 2
