"""The facts of a family: how it spells a block, and which shifts it may have."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import dlens
from dlens.models.family import Family, Inputs, Layout, block_causal, block_inputs, hidden_in, hidden_of, native_inputs
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


def test_who_sees_whom_where_attention_is_causal_between_blocks() -> None:
    real = torch.tensor([[True] * 5, [False, False, True, True, True]])
    for block, expected in (
        (2, {(q, k) for q in range(5) for k in range(5) if k // 2 <= q // 2}),
        (None, {(q, k) for q in range(5) for k in range(5)}),
    ):
        mask = block_causal(real, block)
        assert mask.shape == (2, 1, 5, 5)
        assert {tuple(pair) for pair in mask[0, 0].nonzero().tolist()} == expected
    # Blocks are counted from the first real token; what is padded is seen by none, and itself sees all that is real.
    padded = block_causal(real, 2)[1, 0]
    assert padded.long().tolist() == [[0, 0, 1, 1, 1]] * 2 + [[0, 0, 1, 1, 0]] * 2 + [[0, 0, 1, 1, 1]]


def test_inputs_know_the_block_length_and_the_mask_token_of_their_family() -> None:
    def make(ids: torch.Tensor, mask: torch.Tensor | None, told: Inputs) -> dict[str, object]:
        return {"told": (told.block_length, told.mask_token_id)}

    family = Family("mine", "diffusion", 0, inputs=Inputs(make), block_length=4, mask_token_id=7)
    ids = torch.tensor([[1, 2]])
    assert family.inputs(ids, None) == {"told": (4, 7)}
    assert dataclasses.replace(family, block_length=8).inputs(ids, None) == {"told": (8, 7)}
    assert dataclasses.replace(family, block_length=None, mask_token_id=3).inputs(ids, None) == {"told": (None, 3)}


def test_a_native_decoder_gets_a_mask_by_blocks() -> None:
    family = Family("mine", "diffusion", 0, block_length=2)
    real = torch.tensor([[False, True, True, True]])
    inputs = family.inputs(torch.tensor([[0, 5, 6, 7]]), real)
    assert inputs["position_ids"].tolist() == [[1, 0, 1, 2]] and inputs["use_cache"] is False
    assert torch.equal(inputs["attention_mask"], block_causal(real, 2))
    assert inputs.keys() == block_inputs(inputs["input_ids"], None, Inputs(block_inputs, 2)).keys()
    assert "causal between canvas blocks of 2" in repr(family)


def test_a_block_length_that_means_nothing_is_refused() -> None:
    for objective, shift, length in (("diffusion", 0, 0), ("autoregressive", 1, 4)):
        with pytest.raises(
            ValueError, match=f"block_length={length}; expected a whole number, 1 or more, of a diffusion"
        ):
            Family("odd", objective, shift, block_length=length)  # pyright: ignore
