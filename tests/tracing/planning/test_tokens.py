"""Which positions `tokens=` names, and what follows an end."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import dlens
from dlens import trace
from dlens.tracing.planning.tokens import after, fixed_mask
from tests.refusing import STORY, WIDTH, Action, refused
from tests.tracing.plain import DECODED, PROMPTS
from tests.unchecked import unchecked


def test_negative_positions_count_from_the_end_of_the_run(ar: dlens.Model) -> None:
    vector = torch.full((ar.d_model,), 5.0)
    trace = dlens.trace(ar).steer(vector, layers=1, tokens=[-2]).capture("resid_post", layers=[1])
    clean = dlens.trace(ar).capture("resid_post", layers=[1]).generate(PROMPTS, DECODED)["resid_post"]
    moved = (trace.generate(PROMPTS, DECODED)["resid_post"] - clean)[0].abs().amax(-1) > 1
    assert moved.nonzero().tolist() == [[row, clean.shape[2] - 1] for row in range(3)]


REFUSED: dict[str, tuple[str, Action]] = {
    "a slice beyond": ("selects no token", lambda m: trace(m).ablate(3, tokens=slice(99, None)).generate(STORY, 4)),
    "an empty mask": ("selects no token", lambda m: trace(m).ablate(3, tokens=torch.ones(1, 4) > 1).forward(STORY)),
}


LAST: dict[str, tuple[str, Action]] = {
    "the last token": ("names the last token", lambda m: trace(m).ablate(3, tokens=[0, -1]).generate(STORY, 4)),
    "only the last token": ("the last token", lambda m: trace(m).ablate(3, tokens=slice(-1, None)).generate(STORY, 4)),
}


def test_tokens_that_do_not_fit_the_run(diffusion: dlens.Model) -> None:
    wrong = torch.zeros(1, WIDTH, dtype=torch.bool)
    with refused(diffusion, ValueError, "shape (1, 4)"):
        trace(diffusion).ablate(3, tokens=wrong).generate(STORY, 8)
    with refused(diffusion, IndexError, "position 12"):
        trace(diffusion).ablate(3, tokens=[0, WIDTH + 8]).generate(STORY, 8)
    with refused(diffusion, IndexError, "position -5"):
        trace(diffusion).ablate(3, tokens=[-5]).forward(STORY)


@pytest.mark.parametrize("case", REFUSED)
def test_a_selection_of_nothing(diffusion: dlens.Model, case: str) -> None:
    came, action = REFUSED[case]
    with unchecked(), refused(diffusion, ValueError, came):
        action(diffusion)


@pytest.mark.parametrize("case", LAST)
def test_the_last_token_of_decoding_is_computed_by_no_step(ar: dlens.Model, case: str) -> None:
    came, action = LAST[case]
    with unchecked(), refused(ar, IndexError, came):
        action(ar)


REAL = torch.tensor([[False, False, True, True, True], [True] * 5])


@pytest.mark.parametrize(
    ("tokens", "named"),
    [
        (slice(1, 3), [[0, 0, 0, 1, 1], [0, 1, 1, 0, 0]]),
        (slice(-1, None), [[0, 0, 0, 0, 1], [0, 0, 0, 0, 1]]),
        (slice(4, None), [[0, 0, 0, 0, 0], [0, 0, 0, 0, 1]]),
        ([0, -1], [[0, 0, 1, 0, 1], [1, 0, 0, 0, 1]]),
        ([3], [[0, 0, 0, 0, 0], [0, 0, 0, 1, 0]]),
        (torch.ones(2, 5, dtype=torch.bool), [[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]),
    ],
    ids=str,
)
def test_positions_count_from_the_first_real_token_of_a_row(tokens: Any, named: list[list[int]]) -> None:
    mask = fixed_mask(tokens, REAL)
    assert mask is not None and mask.long().tolist() == named


@pytest.mark.parametrize("word", ["all", "prompt", "masked", "decoded", "last"])
def test_words_are_masks_of_each_step(word: Any) -> None:
    assert fixed_mask(word, REAL) is None


def test_what_follows_an_end() -> None:
    ends = torch.tensor([[False, True, False, True], [False] * 4, [True, False, False, False]])
    assert after(ends).long().tolist() == [[0, 0, 1, 1], [0, 0, 0, 0], [0, 1, 1, 1]]


def test_positions_that_no_row_has_can_be_left_out() -> None:
    real = torch.tensor([[False, True, True], [True, True, True]])
    for tokens in ([7], slice(5, 9), [0, 7]):
        mask = fixed_mask(tokens, real, strict=False)
        assert mask is not None and mask.sum() == 2 * (tokens == [0, 7])
