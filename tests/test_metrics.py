"""Metrics on hand-written logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from dlens.checks import quoted
from dlens.metrics import MetricStep, log_prob, logit_difference, masked_loss
from tests.refusing import assert_three_parts
from tests.unchecked import unchecked

# Two rows of four positions, the second padded by two.
REAL = torch.tensor([[True] * 4, [False, False, True, True]])
MASKED = torch.tensor([[False, True, False, True], [False, False, True, False]])
IDS = torch.tensor([[5, 0, 6, 0], [0, 0, 0, 7]])
LOGITS = torch.arange(2 * 4 * 8, dtype=torch.float32).reshape(2, 4, 8).square() / 100


def step(**changes: Any) -> MetricStep:
    facts: dict[str, Any] = {"step": 3, "tokens": IDS, "real": REAL, "masked": MASKED, "noise": (0.5, 0.5)}
    return MetricStep(**(facts | changes))


@pytest.mark.parametrize(
    ("tokens", "first", "second"),
    [
        ("last", [3], [3]),
        ("masked", [1, 3], [2]),
        ("all", [0, 1, 2, 3], [2, 3]),
        ([0], [0], [2]),
        ([1, -1], [1, 3], [3]),
        ([-2], [2], [2]),
        ([3], [3], []),
        (torch.tensor([0, 1]), [0, 1], [2, 3]),
        (torch.tensor([[False, True, True, False], [True, True, False, True]]), [1, 2], [3]),
    ],
)
def test_positions_are_counted_in_each_row(tokens: Any, first: list[int], second: list[int]) -> None:
    found = logit_difference(5, 2, tokens=tokens)(LOGITS, step())
    each = LOGITS[..., 5] - LOGITS[..., 2]
    expected = [each[row, chosen].mean() if chosen else torch.tensor(0.0) for row, chosen in enumerate((first, second))]
    assert torch.equal(found, torch.stack(expected))


def test_each_row_may_have_its_own_tokens() -> None:
    found = logit_difference([5, 1], [2, 7])(LOGITS, step())
    assert found.tolist() == [
        float(LOGITS[0, 3, 5] - LOGITS[0, 3, 2]),
        float(LOGITS[1, 3, 1] - LOGITS[1, 3, 7]),
    ]
    assert torch.equal(logit_difference(torch.tensor(5), 2)(LOGITS, step()), logit_difference([5], [2])(LOGITS, step()))


def test_log_probabilities_and_losses() -> None:
    logs = LOGITS.log_softmax(-1)
    assert torch.equal(log_prob(4)(LOGITS, step()), logs[:, 3, 4])
    text = torch.tensor([[5, 1, 6, 2], [0, 0, 3, 7]])
    expected = torch.stack([-(logs[0, 1, 1] + logs[0, 3, 2]) / 2, -logs[1, 2, 3]])
    assert torch.equal(masked_loss(text)(LOGITS, step()), expected)
    assert torch.equal(masked_loss(text, where="last")(LOGITS, step()), -logs[[0, 1], 3, [2, 7]])


def test_a_step_that_computes_the_newest_position_alone() -> None:
    newest = LOGITS[:, -1:]
    assert torch.equal(log_prob(4)(newest, step()), log_prob(4)(LOGITS, step()))
    assert torch.equal(log_prob(4, tokens=[-1])(newest, step()), log_prob(4)(LOGITS, step()))
    with pytest.raises(ValueError, match="names no position of 1 that have logits at step 3"):
        log_prob(4, tokens=[0])(newest, step())


@pytest.mark.parametrize("position", [4, 5, 99, -5])
def test_padding_is_no_position(position: int) -> None:
    with pytest.raises(ValueError, match=rf"tokens=\[{position}\] names no position of 4"):
        log_prob(4, tokens=[position])(LOGITS, step())


def test_a_gradient_reaches_the_positions_that_count() -> None:
    logits = LOGITS.clone().requires_grad_()
    logit_difference(5, 2, tokens="masked")(logits, step()).sum().backward()
    assert logits.grad is not None
    assert logits.grad[..., 5].tolist() == [[0, 0.5, 0, 0.5], [0, 0, 1, 0]]
    assert torch.equal(logits.grad[..., 2], -logits.grad[..., 5])


@pytest.mark.parametrize("ids", ["Mary", " ", 1.5, [], [[1, 2]], True, None, [" Mary"], -1])
def test_what_is_no_token(ids: Any) -> None:
    with pytest.raises(ValueError, match="right=.*; expected token ids, one or one for each row; write"):
        logit_difference(ids, 1)
    with pytest.raises(ValueError, match="token=.*; expected token ids"):
        log_prob(ids)


def no_such(tokens: Any) -> Tensor:
    return log_prob(1, tokens=tokens)(LOGITS, step())


def test_what_does_not_fit_a_step() -> None:
    with pytest.raises(ValueError, match="3 token ids for 2 rows; expected one, or one for each row"):
        log_prob([1, 2, 3])(LOGITS, step())
    with pytest.raises(ValueError, match="token 8 of a model that predicts 8 tokens; expected 0 to 7"):
        log_prob([1, 8])(LOGITS, step())
    with pytest.raises(ValueError, match="tokens='first'; expected last, masked, all, positions or a bool tensor"):
        no_such("first")
    with pytest.raises(ValueError, match=r"tokens has shape \(2, 3\); expected \(2, 4\)"):
        no_such(torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"masked_loss has a text of shape \(2, 3\); expected \(2, 4\)"):
        masked_loss(IDS[:, :3])(LOGITS, step())
    for text in (IDS.float(), IDS[0]):
        with pytest.raises(ValueError, match=r"masked_loss got .*; expected token ids \[batch, position\]"):
            masked_loss(text)
    with pytest.raises(ValueError, match="token 8 of a model that predicts 8 tokens; expected 0 to 7"):
        masked_loss(IDS + 8 * (IDS == 0))(LOGITS, step())


@pytest.mark.parametrize("tokens", [None, 3.5, "lst", [], {}, [None], [True], torch.tensor([True])], ids=str)
def test_positions_are_checked_when_a_metric_is_made(tokens: Any) -> None:
    makers = (lambda: log_prob(5, tokens), lambda: logit_difference(5, 6, tokens), lambda: masked_loss(IDS, tokens))
    for what, maker in zip(("tokens", "tokens", "where"), makers, strict=True):
        with unchecked(), pytest.raises(ValueError) as caught:
            maker()
        assert_three_parts(str(caught.value), f"{what}={quoted(tokens)}")


@pytest.mark.parametrize("tokens", [None, "x", {}, ..., [None], [0.5], torch.tensor([[True]])], ids=str)
def test_the_text_of_a_loss_is_token_ids(tokens: Any) -> None:
    with unchecked(), pytest.raises(ValueError) as caught:
        masked_loss(tokens)
    assert_three_parts(str(caught.value), "masked_loss got")
