"""LLaDA's layout: values, half-block skips, facts."""

from __future__ import annotations

import pytest

import dlens
from dlens.models.families.llada import llada_layout
from tests.models.families.remote import CHECKS


@pytest.mark.parametrize("check", CHECKS)
def test_what_holds_of_every_layout(check: str, llada: dlens.Model) -> None:
    CHECKS[check](llada)


def test_facts(llada: dlens.Model) -> None:
    model = llada
    facts = (
        model.family.name,
        model.family.shift,
        model.family.mask_token_id,
        model.n_positions,
        model.eos_token_id,
    )
    assert facts == ("llada", 0, 99, 64, 98)
    assert model.family.end_token_ids == ()  # LLaDA's EoT lies outside this small vocabulary
    assert not model.layout.absent


def test_other_kinds_of_llada_blocks_are_refused(llada: dlens.Model) -> None:
    config = llada.module.config
    config.block_type = "sequential"
    with pytest.raises(ValueError, match="block_type='sequential' .*; expected 'llama' and 1"):
        llada_layout(config)
