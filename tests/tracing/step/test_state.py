"""What is known of a step, and which positions are selected there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import dlens
from tests.reference import edited
from tests.tracing.plain import NEW, PROMPTS, masked_at, plain_run


@pytest.mark.parametrize("tokens", ["masked", "prompt", "decoded", "last", slice(1, 4), [0, 2, -1]], ids=str)
def test_tokens_scope_equals_hooks(model: dlens.Model, plain: Any, tokens: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    vector = torch.randn(model.d_model, generator=generator)
    lengths = [len(model.tokenizer(text)["input_ids"]) for text in PROMPTS]
    width = max(lengths)

    def chosen(ids: Tensor) -> Tensor:
        column = torch.arange(width + NEW).repeat(3, 1)
        first = torch.tensor([width - length for length in lengths])[:, None]
        masks = masked_at(ids, model)
        table = {
            "masked": masks,
            "prompt": (column >= first) & (column < width),
            "decoded": (column >= width) & ~masks,
            "last": column == width + NEW - 1,
        }
        if isinstance(tokens, str):
            return table[tokens]
        if isinstance(tokens, slice):
            return (column - first >= tokens.start) & (column - first < tokens.stop)
        return (column == first) | (column == first + 2) | (column == width + NEW - 1)

    def edit(_step: int, layer: int, hidden: Tensor, out: Tensor, ids: Tensor) -> Tensor | None:
        if layer == 8:
            return torch.where(chosen(ids)[..., None], out + 4.0 * vector, out)
        if layer == 11:
            ablated = out.clone()
            ablated[..., [3, 7]] = 0
            return torch.where(chosen(ids)[..., None], ablated, out)
        return None

    with edited(plain, edit):
        expected = plain_run(model, plain)
    trace = dlens.trace(model).ablate([11], [3, 7], tokens=tokens).steer(vector, layers=8, scale=4.0, tokens=tokens)
    record = trace.generate(PROMPTS, NEW)
    assert torch.equal(record.tokens, expected.tokens)


def test_bool_tokens_equal_hooks(model: dlens.Model, plain: Any) -> None:
    width = max(len(model.tokenizer(text)["input_ids"]) for text in PROMPTS) + NEW
    where = torch.rand(3, width, generator=torch.Generator().manual_seed(5)) < 0.4

    def edit(_step: int, layer: int, hidden: Tensor, out: Tensor, _ids: Tensor) -> Tensor | None:
        return torch.where(where[..., None], torch.zeros_like(out), out) if layer == 6 else None

    with edited(plain, edit):
        expected = plain_run(model, plain)
    assert torch.equal(dlens.trace(model).ablate(6, tokens=where).generate(PROMPTS, NEW).tokens, expected.tokens)
