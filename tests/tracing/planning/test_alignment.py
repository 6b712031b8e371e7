"""Logits moved to the tokens that they predict, on hand-written numbers."""

import torch

from dlens.tracing.planning.alignment import aligned

LOGITS = torch.tensor([[[1.0], [2.0], [3.0], [4.0]], [[5.0], [6.0], [7.0], [8.0]]])
REAL = torch.tensor([[True] * 4, [False, False, True, True]])


def test_unshifted_logits_are_left_as_they_are() -> None:
    assert aligned(LOGITS, 0, REAL) is LOGITS


def test_shifted_logits_come_from_the_position_before() -> None:
    found = aligned(LOGITS, 1, REAL)[..., 0]
    assert found[0].tolist() == [1, 1, 2, 3]
    # The first real token keeps its own: what stands before it is padding.
    assert found[1, 2:].tolist() == [7, 7]


def test_a_gradient_returns_to_where_the_logits_came_from() -> None:
    logits = LOGITS.clone().requires_grad_()
    aligned(logits, 1, REAL)[:, -1].sum().backward()
    assert logits.grad is not None and logits.grad[..., 0].tolist() == [[0, 0, 1, 0]] * 2


def test_columns_alone_are_those_of_all_in_the_order_asked_for() -> None:
    for shift in (0, 1):
        whole = aligned(LOGITS, shift, REAL)
        columns = torch.tensor([3, 2])
        assert torch.equal(aligned(LOGITS, shift, REAL, columns), whole[:, columns])
        each = torch.tensor([[3, 1], [2, 3]])
        expected = torch.stack([whole[0, each[0]], whole[1, each[1]]])
        assert torch.equal(aligned(LOGITS, shift, REAL, each), expected)
