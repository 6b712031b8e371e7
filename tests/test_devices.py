"""Tensors go to a device and come back as they are."""

import torch

from dlens.devices import Fetched, sent


def test_what_is_fetched_is_what_stands_there() -> None:
    flags = torch.tensor([[True, False], [False, True]])
    assert torch.equal(Fetched(flags).wait(), flags)
    assert torch.equal(Fetched(flags[:, 1:]).wait(), torch.tensor([[False], [True]]))


def test_a_tensor_is_sent_as_it_is() -> None:
    values = torch.arange(3)
    assert sent(values, torch.device("cpu")) is values
    there = sent(values, torch.device("meta"))
    assert (there.shape, there.dtype) == (values.shape, values.dtype)
