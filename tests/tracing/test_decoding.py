"""AR decoding: which positions a step computes, and what of the checkpoint is taken back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import dlens
from tests.reference import fresh
from tests.tracing.plain import DECODED, PROMPTS, greedy


@pytest.mark.parametrize("cache", ["auto", "off"])
def test_tokens_select_positions_whether_or_not_they_are_cached(ar: dlens.Model, cache: Any) -> None:
    seen: list[tuple[int, tuple[int, ...]]] = []

    def watch(value: Tensor, hook: Any) -> None:
        seen.append((hook.step, tuple(value.shape[:2])))

    vector = torch.randn(ar.d_model, generator=torch.Generator().manual_seed(0))
    trace = dlens.trace(ar).hook("blocks.2.hook_resid_post", watch).capture("resid_post", layers=[2])
    clean = dlens.trace(ar).capture("resid_post", layers=[2]).generate(PROMPTS, DECODED, cache=cache)
    for tokens, chosen in (("prompt", clean.is_prompt), ("decoded", ~clean.is_prompt & ~clean.is_pad)):
        seen.clear()
        record = trace.steer(vector, layers=1, tokens=tokens).generate(PROMPTS, DECODED, cache=cache)
        moved = (record["resid_post"][0] - clean["resid_post"][0]).abs().amax(-1) > 1e-3
        first = int(moved.any(0).nonzero()[0])
        assert bool(chosen[:, first].any())
        assert [step for step, _ in seen] == list(range(DECODED))
        width = clean.is_prompt.shape[1] - DECODED
        expected = [(3, width)] + [(3, 1 if cache == "auto" else width + step) for step in range(1, DECODED)]
        assert [shape for _, shape in seen] == expected


def test_captured_logits_cover_every_position(ar: dlens.Model, plain_ar: Any) -> None:
    record = dlens.trace(ar).capture("logits").generate(PROMPTS, DECODED)
    assert record.dims("logits") == ("batch", "position", "vocab")
    chosen = record["logits"].argmax(-1)[:, -DECODED:]
    assert torch.equal(chosen, record.tokens[:, -DECODED:])
    assert torch.equal(record.tokens, greedy(ar, plain_ar))


def test_choices_of_the_generation_config_are_taken_back_and_noted(ar: dlens.Model, plain_ar: Any) -> None:
    model = dlens.load(fresh(ar.module), tokenizer=ar.tokenizer)
    config: Any = model.module.generation_config
    config.repetition_penalty, config.num_beams, config.no_repeat_ngram_size = 1.5, 3, 2
    record = dlens.trace(model).generate(PROMPTS, DECODED)
    assert torch.equal(record.tokens, greedy(ar, plain_ar))
    assert record.notes == (
        "not used of the checkpoint's generation config: no_repeat_ngram_size, num_beams, repetition_penalty",
    )
