"""Small models of random weights, and pairs of texts for them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from transformers import GPT2Config

import dlens
from tests.whole.architectures import CONFIGS, build

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
def gpt2() -> dlens.Model:
    """These blocks, as they are."""
    return dlens.load(small())


@pytest.fixture(scope="session")
def pairs() -> dlens.Pairs:
    """Three pairs, of which the last is shorter."""
    return PAIRS


CLEAN = [[3, 14, 15, 9, 26, 5], [2, 7, 18, 28, 18, 45]]
CORRUPTED = [[3, 14, 31, 9, 26, 5], [2, 7, 18, 50, 18, 45]]


@pytest.fixture(scope="module")
def module() -> Any:
    """A Qwen2 of 4 layers, 4 heads and 2 of keys and values, for hand-written hooks."""
    return build(copy.deepcopy(CONFIGS["qwen2"][0]))


@pytest.fixture(scope="module")
def model() -> dlens.Model:
    """The same under dlens."""
    return dlens.load(build(copy.deepcopy(CONFIGS["qwen2"][0])))


@pytest.fixture(scope="module")
def masked() -> dlens.Model:
    """The same as a diffusion model with mask token 1."""
    module = build(copy.deepcopy(CONFIGS["qwen2"][0]))
    module.config.mask_token_id, module.config.is_causal = 1, False
    for part in module.modules():
        if "is_causal" in vars(part):
            part.is_causal = False
    return dlens.load(module, family="masked")
