import torch

from dlens.measures.base.cells import add_by_cell, cell_of, mean_of


def test_rows_are_added_to_their_cells() -> None:
    state = torch.tensor([[-1, 0, 2], [1, 1, -1]])
    cell = cell_of(torch.tensor([0, 2]), state)
    assert cell.tolist() == [[-1, 0, 2], [7, 7, -1]]
    total = torch.zeros(9, 1, dtype=torch.float64)
    add_by_cell(total, torch.tensor([[1.0, 2, 3, 4, 5, 6]]), cell.flatten())
    assert total[:, 0].tolist() == [2, 0, 3, 0, 0, 0, 0, 9, 0]


def test_what_is_not_measured_counts_nothing_even_where_it_is_nan() -> None:
    total = torch.zeros(3, 1, dtype=torch.float64)
    add_by_cell(total, torch.tensor([[torch.nan, 1.0, torch.nan]]), torch.tensor([-1, 0, 2]))
    assert total[:2, 0].tolist() == [1, 0] and total[2].isnan().all()


def test_the_mean_of_nothing_is_nan() -> None:
    assert mean_of(torch.tensor([6.0, 0]), torch.tensor([3.0, 0])).nan_to_num(-1).tolist() == [2, -1]
