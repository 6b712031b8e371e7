"""A sample of the types of transformers: each is right in all that is asked of it, and has the points it should have.

`python -m tests.whole.type_table` asks all of them.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from dlens.models.families.decoder import MASKED
from tests.whole.type_checks import verdict
from tests.whole.types import tiny

HALVES = (
    "bloom", "camembert", "cohere2", "dbrx", "deepseek_v3", "falcon", "gemma2", "glm4", "gpt_oss", "gptj", "granite",
    "jamba", "llama4_text", "mpt", "olmo3", "opt", "phi", "phimoe", "qwen3_5_text", "qwen3_next",
)  # fmt: skip
BLOCKS = ("gemma4_text", "longcat_flash", "mamba2", "minimax", "rwkv", "zaya")
MASKED_LM = ("bert", "deberta", "luke", "modernbert", "roberta")


@pytest.mark.parametrize("name", [*HALVES, *BLOCKS])
def test_causal_types(name: str) -> None:
    found = verdict(name, lambda: tiny(name))
    assert not found.faults, found
    assert found.halves == (name in HALVES), found.absent


@pytest.mark.parametrize("name", MASKED_LM)
def test_masked_types(name: str) -> None:
    found = verdict(name, lambda: tiny(name, masked=True), replace(MASKED, mask_token_id=3))
    assert not found.faults and found.halves, found
