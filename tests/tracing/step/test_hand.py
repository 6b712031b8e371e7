"""Edits act where tokens, noise and rows say so, whatever the axes of the value."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import dlens
from tests.tracing.plain import PROMPTS


def zeros(value: Tensor, hook: object) -> Tensor:
    return torch.zeros_like(value)


@pytest.mark.parametrize("point", ["resid_mid", "z", "mlp_post"])
def test_tokens_of_a_value_of_any_axes(diffusion: dlens.Model, point: str) -> None:
    plain = dlens.trace(diffusion).capture(point, layers=[3]).forward(PROMPTS[:2])
    chain = dlens.trace(diffusion).hook(point, zeros, layers=3, tokens=[1, -1]).capture(point, layers=[3])
    found, clean = chain.forward(PROMPTS[:2])[point][0], plain[point][0]
    for row in range(2):
        first = int(plain.is_pad[row].sum())
        changed = [first + 1, found.shape[1] - 1]
        others = [column for column in range(found.shape[1]) if column not in changed]
        assert not found[row, changed].any() and clean[row, changed].any()
        assert torch.equal(found[row, others], clean[row, others])


def test_masked_positions_of_heads_in_a_denoising_run(diffusion: dlens.Model) -> None:
    seen = []

    def look(value: Tensor, hook: Any) -> None:
        seen.append((hook.masked, value))

    chain = dlens.trace(diffusion).hook("z", zeros, layers=2, tokens="masked").hook("z", look, layers=2)
    chain.generate(PROMPTS[:2], 4)
    assert len(seen) == 4
    for masked, value in seen:
        assert masked.any() and not value[masked].any() and value[~masked].abs().sum() > 0


def test_rows_of_unlike_noise(diffusion: dlens.Model) -> None:
    ids = diffusion.tokenizer("Once upon a time there was a dog")["input_ids"]
    masked = [diffusion.family.mask_token_id] * len(ids)
    chain = dlens.trace(diffusion).hook("mlp_post", zeros, layers=1, noise=(0.5, 1.0)).capture("mlp_post", layers=[1])
    found = chain.forward([ids, masked])["mlp_post"][0]
    clean = dlens.trace(diffusion).capture("mlp_post", layers=[1]).forward([ids, masked])["mlp_post"][0]
    assert torch.equal(found[0], clean[0]) and not found[1].any() and clean[1].any()
