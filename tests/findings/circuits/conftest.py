"""A tiny model and pairs of texts, and the same forwards by hand."""

from __future__ import annotations

import copy
from typing import Any

import pytest

import dlens
from tests.whole.architectures import CONFIGS, build

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
