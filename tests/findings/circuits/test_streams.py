"""What circuits read of runs, and which models they refuse."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPTNeoXConfig

import dlens
from dlens.findings.circuits.streams import require_sums, streams_of
from tests.findings.circuits import plain
from tests.standins import save_dream
from tests.whole.architectures import CONFIGS, SIZE, build

ROWS = ((5, 6, 7), (5, 8, 7))


def test_writers_are_what_was_written(gpt2: dlens.Model, pairs: dlens.Pairs) -> None:
    base = dlens.trace(gpt2)
    found = streams_of(base, pairs.clean[:2], pairs[:2].metric())
    logits, written = plain.forward(gpt2.module, plain.embedded(gpt2.module, pairs.clean[:2]))
    torch.testing.assert_close(found.writers, torch.stack(list(written.values())).detach())
    torch.testing.assert_close(found.metric, plain.difference(logits, pairs.right[:2], pairs.wrong[:2]).detach())
    bias = sum(block.attn.c_proj.bias for block in gpt2.module.transformer.h)
    torch.testing.assert_close(found.last, found.writers.sum(0) + bias.detach())


def test_too_many_prompts_at_once_are_told(
    gpt2: dlens.Model, pairs: dlens.Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(dlens.Trace, "forward", refuse)
    with pytest.raises(MemoryError, match="3 prompts a forward of GPT2LMHeadModel .*; pass a smaller batch_size"):
        streams_of(dlens.trace(gpt2), pairs.clean, pairs.metric())


def test_blocks_that_add_up_are_taken(tmp_path: Path) -> None:
    require_sums(dlens.trace(build(copy.deepcopy(CONFIGS["gemma"][0]))), ROWS)
    require_sums(dlens.trace(dlens.load(str(save_dream(tmp_path)), trust_remote_code=True)), ROWS)


def test_norms_after_attention_are_refused() -> None:
    base = dlens.trace(build(copy.deepcopy(CONFIGS["gemma2"][0])))
    with pytest.raises(ValueError, match=r"attention of layer 0 adds the sum of its heads; expected blocks .*; use"):
        require_sums(base, ROWS)


def test_parallel_blocks_are_refused() -> None:
    base = dlens.trace(build(GPTNeoXConfig(**SIZE, use_parallel_residual=True)))
    with pytest.raises(ValueError, match="no resid_mid: this block runs attention and MLP side by side"):
        require_sums(base, ROWS)
