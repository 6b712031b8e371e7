"""Operations act at their steps and noise levels, in the rows that they name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import dlens
from tests.reference import edited
from tests.tracing.plain import NEW, PROMPTS, masked_at, plain_run


def test_steps_scope_equals_hooks(model: dlens.Model, plain: Any) -> None:
    trace = dlens.trace(model).skip([3, 4], steps=range(2, 6)).skip([9], steps="late").swap(1, 12, steps=[0, 7])

    def edit(step: int, layer: int, hidden: Tensor, out: Tensor, _ids: Tensor) -> Tensor | None:
        if layer in (3, 4) and 2 <= step < 6:
            return hidden
        if layer == 9 and step >= 8:
            return hidden
        return None

    layers = plain.model.layers
    one, twelve = layers[1], layers[12]

    def order(_module: Any, _args: Any, kwargs: Any) -> None:
        swapped = int(masked_at(kwargs["input_ids"], model).sum()) in (NEW * 3, (NEW - 7) * 3)
        layers[1], layers[12] = (twelve, one) if swapped else (one, twelve)

    handle = plain.register_forward_pre_hook(order, with_kwargs=True)
    with edited(plain, edit):
        expected = plain_run(model, plain)
    handle.remove()
    layers[1], layers[12] = one, twelve
    assert torch.equal(trace.generate(PROMPTS, NEW).tokens, expected.tokens)


@pytest.mark.parametrize("noise", [(0.5, 1.0), (0.0, 0.5), (0.25, 0.75)])
def test_noise_scope_equals_hooks(model: dlens.Model, plain: Any, noise: tuple[float, float]) -> None:
    def edit(_step: int, layer: int, hidden: Tensor, out: Tensor, ids: Tensor) -> Tensor | None:
        inside = (noise_of(ids, model) > noise[0]) & (noise_of(ids, model) <= noise[1])
        return torch.where(inside[:, None, None], hidden, out) if layer in (3, 8) else None

    with edited(plain, edit):
        expected = plain_run(model, plain)
    record = dlens.trace(model).skip([3, 8], noise=noise).generate(PROMPTS, NEW)
    assert torch.equal(record.tokens, expected.tokens)


def noise_of(ids: Tensor, model: dlens.Model) -> Tensor:
    return masked_at(ids, model).sum(-1) / NEW
