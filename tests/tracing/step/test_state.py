"""What is known of a step, and which positions are selected there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import dlens
from dlens.tracing.step.state import Group, StepState, denoising_state, forward_state, noise_bin, step_mask
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


REAL = torch.tensor([[False, True, True, True, True], [True] * 5])
GENERATED = torch.tensor([[False, False, True, True, True], [False, False, True, True, True]])
MASKED = torch.tensor([[False, False, True, False, False], [False, False, True, True, True]])
ENDS = torch.tensor([[False, False, False, True, False], [False] * 5])


def denoising(**changes: Any) -> StepState:
    facts = {"step": 3, "group": Group((0, 1), 0), "real": REAL, "generated": GENERATED, "masked": MASKED}
    return denoising_state(**(facts | {"ends": ENDS, "halves": 1} | changes))


def test_each_position_is_prompt_masked_decoded_or_not_measured() -> None:
    assert denoising().state.tolist() == [[-1, 0, 1, 2, -1], [0, 0, 1, 1, 1]]


def test_noise_is_the_share_of_generated_positions_that_are_masked() -> None:
    assert denoising().noise == (1 / 3, 1.0)
    none = torch.zeros_like(MASKED)
    assert denoising(masked=none).noise == (0.0, 0.0)


def test_noise_of_a_forward_is_over_all_that_is_no_padding() -> None:
    state = forward_state(Group((0, 1), 0), REAL, MASKED, has_noise=True)
    assert state.noise == (1 / 4, 3 / 5)
    assert state.state.tolist() == [[-1, 0, 1, 0, 0], [0, 0, 1, 1, 1]]
    assert forward_state(Group((0, 1), 0), REAL, MASKED, has_noise=False).noise is None


def test_noise_bins_are_open_below_and_exact() -> None:
    masked, total = torch.arange(11), torch.full((11,), 10)
    assert noise_bin(masked, total).tolist() == [0, *range(10)]
    assert noise_bin(torch.tensor([3, 31]), torch.tensor([10, 100])).tolist() == [2, 3]


@pytest.mark.parametrize(
    ("tokens", "selected"),
    [
        ("all", None),
        ("prompt", [[0, 1, 0, 0, 0], [1, 1, 0, 0, 0]]),
        ("masked", [[0, 0, 1, 0, 0], [0, 0, 1, 1, 1]]),
        ("decoded", [[0, 0, 0, 1, 1], [0, 0, 0, 0, 0]]),
        ("last", [[0, 0, 0, 0, 1], [0, 0, 0, 0, 1]]),
    ],
)
def test_words_select_positions_of_a_step(tokens: Any, selected: list[list[int]] | None) -> None:
    mask = step_mask(tokens, None, denoising())
    assert mask is None if selected is None else mask is not None and mask.long().tolist() == selected


def test_a_window_takes_its_own_rows_and_columns_of_a_fixed_mask() -> None:
    fixed = torch.arange(4 * 7).reshape(4, 7) % 5 == 0
    state = denoising(group=Group((1, 3), 2))
    assert state.full_columns == slice(2, 7)
    assert torch.equal(step_mask("all", fixed, state), fixed[[1, 3], 2:])  # pyright: ignore
