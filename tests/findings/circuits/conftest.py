"""Small models of random weights, and pairs of prompts for them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from transformers import GPT2Config

import dlens
from tests.whole.architectures import build

PAIRS = dlens.Pairs(
    clean=((5, 6, 7, 8, 9), (11, 12, 13, 14, 15), (21, 22, 23)),
    corrupted=((5, 16, 7, 8, 9), (11, 12, 13, 17, 15), (24, 22, 23)),
    right=(30, 31, 32),
    wrong=(40, 41, 42),
    at=(4, 4, 2),
    words=("", "", ""),
)
SMALL = GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=8)


def small() -> Any:
    """Two blocks of GPT-2 in float64."""
    return build(copy.deepcopy(SMALL)).double()


@pytest.fixture(scope="session")
def model() -> dlens.Model:
    """These blocks, as they are."""
    return dlens.load(small())


@pytest.fixture(scope="session")
def module(model: dlens.Model) -> Any:
    """Their torch module, for formulas."""
    return model.module


@pytest.fixture(scope="session")
def pairs() -> dlens.Pairs:
    """Three pairs, of which the last is shorter."""
    return PAIRS
