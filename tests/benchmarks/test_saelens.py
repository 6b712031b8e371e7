"""How numbers of two autoencoders are compared."""

import torch

from benchmarks.saelens import largest


def test_the_largest_difference_is_of_the_largest_number() -> None:
    theirs = torch.tensor([[1.0, -8.0], [2.0, 0.0]])
    assert largest(theirs, theirs) == 0
    assert largest(theirs + torch.tensor([[0.0, 2.0], [-1.0, 0.0]]), theirs) == 0.25
