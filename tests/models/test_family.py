"""The facts of a family: how it spells a block, and which shifts it may have."""

from __future__ import annotations

import pytest
import torch

import dlens
from dlens.models.family import Family, Layout, hidden_in, hidden_of, native_inputs
from tests.unchecked import unchecked


def test_pack_spells_a_block_output() -> None:
    hidden = torch.zeros(1, 2, 3)
    layout = Layout(blocks="b", embed="e", norm="n", head=None)
    assert layout.pack(hidden) is hidden
    assert Layout(blocks="b", embed="e", norm="n", head=None, block_tuple=2).pack(hidden) == (hidden, None)


def test_a_family_with_an_impossible_shift_is_refused() -> None:
    with pytest.raises(ValueError, match="shift 0 of autoregressive family 'odd'; expected 1"):
        dlens.Family(name="odd", objective="autoregressive", shift=0)


def test_the_stream_among_what_a_block_takes_and_returns() -> None:
    hidden, other = torch.zeros(1, 2, 3), torch.ones(1, 2, 3)
    assert hidden_in((hidden, other), {}) is hidden and hidden_in((), {"hidden_states": hidden}) is hidden
    assert hidden_of((hidden, other)) is hidden and hidden_of(hidden) is hidden


def test_inputs_of_a_native_decoder() -> None:
    ids = torch.tensor([[0, 0, 5, 6], [7, 8, 9, 5]])
    plain = native_inputs(ids, None)
    assert sorted(plain) == ["input_ids", "use_cache"] and plain["use_cache"] is False
    real = torch.tensor([[False, False, True, True], [True] * 4])
    padded = native_inputs(ids, real)
    assert padded["attention_mask"].tolist() == [[0, 0, 1, 1], [1, 1, 1, 1]]
    assert padded["position_ids"].tolist() == [[1, 1, 0, 1], [0, 1, 2, 3]]


def test_a_diffusion_family_is_not_causal_and_has_either_shift() -> None:
    for shift in (0, 1):
        assert not Family(name="odd", objective="diffusion", shift=shift).causal
    with pytest.raises(ValueError, match="shift 2 of diffusion family 'odd'; expected 0 or 1"), unchecked():
        Family(name="odd", objective="diffusion", shift=2)  # pyright: ignore
