"""Dream's layout: values, half-block skips, masks, facts."""

from __future__ import annotations

import pytest
import torch

import dlens
from tests.models.families.reading import IDS
from tests.models.families.remote import CHECKS


@pytest.mark.parametrize("check", CHECKS)
def test_what_holds_of_every_layout(check: str, dream: dlens.Model) -> None:
    CHECKS[check](dream)


def test_facts(dream: dlens.Model) -> None:
    model = dream
    facts = (
        model.family.name,
        model.family.shift,
        model.family.mask_token_id,
        model.n_positions,
        model.eos_token_id,
    )
    assert facts == ("dream", 1, 99, 64, 98)
    assert not model.layout.absent


def test_dream_hides_padded_keys_from_every_query_and_counts_positions_from_the_first_token(dream: dlens.Model) -> None:
    inputs = dream.family.inputs(torch.tensor([[98, 5, 9]]), torch.tensor([[False, True, True]]))
    # A query that sees nothing, as a padded one would under a mask of both, is NaN on some devices.
    assert inputs["attention_mask"].tolist() == [[[[False, True, True]] * 3]]
    assert inputs["position_ids"].tolist() == [[1, 0, 1]]
    assert dream.family.inputs(IDS, None)["attention_mask"] == "full"
