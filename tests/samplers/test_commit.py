import torch

from dlens.samplers.commit import candidates, commit, most_confident


def test_most_confident_is_per_row_and_leftmost_first() -> None:
    confidence = torch.tensor([[0.5, 0.9, 0.5, 0.5], [1.0, 0.2, 0.3, 0.4]], dtype=torch.float64)
    open = torch.tensor([[True, True, True, True], [False, True, True, False]])
    for counts, expected in (
        ((0, 1), [[0, 0, 0, 0], [0, 0, 1, 0]]),
        ((2, 2), [[1, 1, 0, 0], [0, 1, 1, 0]]),
        ((3, 4), [[1, 1, 1, 0], [0, 1, 1, 0]]),
    ):
        assert most_confident(confidence, open, torch.tensor(counts)).long().tolist() == expected


def test_a_confidence_of_minus_infinity_still_comes_before_closed_columns() -> None:
    confidence = torch.tensor([[0.5, -torch.inf]], dtype=torch.float64)
    chosen = most_confident(confidence, torch.tensor([[False, True]]), torch.tensor([1]))
    assert chosen.tolist() == [[False, True]]


def test_commit_writes_only_what_was_chosen() -> None:
    canvas = torch.tensor([[7, 1, 1, 1], [8, 9, 1, 1]])
    columns = torch.tensor([1, 3])
    open = candidates(canvas, canvas == 1, columns, 1)
    assert open.tolist() == [[True, True], [False, True]]
    tokens = torch.tensor([[3, 4], [5, 6]])
    filled = commit(canvas, columns, torch.tensor([[True, False], [False, True]]), tokens)
    assert filled.tolist() == [[7, 3, 1, 1], [8, 9, 1, 6]]
    assert canvas.tolist() == [[7, 1, 1, 1], [8, 9, 1, 1]]
