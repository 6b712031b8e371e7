"""How two compressed models are compared, matrix by matrix."""

import torch

from benchmarks.compression import error_rows, mask_rows

BEFORE = {"a": torch.tensor([[1.0, -2.0], [2.0, 3.0]]), "b": torch.tensor([[1.0, 4.0], [5.0, 6.0]])}
THEIRS = {"a": torch.tensor([[0.0, 0.0], [2.0, 3.0]]), "b": torch.tensor([[0.0, 4.0], [5.0, 6.0]])}


def test_entries_of_masks_that_differ_are_counted_ties_apart() -> None:
    ours = {"a": torch.tensor([[0.0, -2.0], [0.0, 3.0]]), "b": torch.tensor([[0.0, 0.0], [5.0, 6.0]])}
    rows = mask_rows(BEFORE, ours, THEIRS, by_size=True)
    # Both entries of size 2 in the first matrix are ties; 4 in the second is larger than all that went there.
    assert [(row.what, row.value, row.budget) for row in rows] == [
        ("mask entries that differ", 12.5, 0),
        ("mask entries that differ by a tie", 25.0, None),
    ]
    assert [row.value for row in mask_rows(BEFORE, ours, THEIRS, by_size=False)] == [37.5]


def test_errors_are_weighed_by_the_inputs() -> None:
    ours = {"a": torch.tensor([[1.0, 0.0], [2.0, 0.0]]), "b": torch.tensor([[1.0, 4.0], [4.0, 6.0]])}
    grams = {"a": torch.tensor([[2.0, 1.0], [1.0, 3.0]]).double(), "b": torch.eye(2).double()}
    median, worst = error_rows(BEFORE, ours, THEIRS, grams, "alone", 1.02)
    # a: (4 + 9) * 3 = 39 over [-1, 2] H [-1, 2]^T = 2 - 4 + 12 = 10; b: 1 over 1.
    assert (median.value, worst.value, worst.budget) == (2.45, 3.9, 1.02)
    assert median.what == "error of a matrix / llmcompressor, alone, median"
