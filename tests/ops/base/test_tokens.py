"""Which positions an operation acts on, as users write them."""

import numpy as np
import pytest
import torch

from dlens.ops.base.scope import Scope
from dlens.ops.base.tokens import as_tokens, check_tokens
from tests.ops.targets import AR, DIFFUSION
from tests.unchecked import unchecked


@pytest.mark.parametrize(
    "tokens", ["all", "prompt", "decoded", "last", slice(2), [0, -1], torch.zeros(2, 3, dtype=torch.bool)]
)
def test_token_selections_that_both_kinds_of_model_take(tokens):
    check_tokens(tokens, AR)
    check_tokens(tokens, DIFFUSION)


def test_token_selections_that_mean_nothing_raise():
    check_tokens("masked", DIFFUSION)
    with pytest.raises(ValueError, match="tokens='masked' on tiny-ar; expected a diffusion model, .*; use 'prompt'"):
        check_tokens("masked", AR)
    with pytest.raises(ValueError, match="tokens='first'; expected one of all, prompt, .*; check the spelling"):
        check_tokens("first", DIFFUSION)
    with unchecked(), pytest.raises(ValueError, match="tokens=3; expected one of all, prompt, .*; write one position"):
        check_tokens(3, DIFFUSION)
    for tensor in (torch.zeros(2, 3), torch.zeros(3, dtype=torch.bool)):
        with pytest.raises(ValueError, match=rf"tokens is a {tensor.dtype} tensor of shape .*; expected bool .*; make"):
            check_tokens(tensor, DIFFUSION)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([], r"tokens=\[\] names no position"),
        ([True, False], "position True"),
        ([1.5], "position 1.5"),
        (["a"], "position 'a'"),
    ],
)
def test_positions_are_whole_numbers(tokens, message):
    with pytest.raises(ValueError, match=f"{message}.*; expected .*; "):
        as_tokens(tokens)
    assert as_tokens([np.int64(2), torch.tensor(-1)]) == (2, -1) == as_tokens(torch.tensor([2, -1]))
    assert torch.equal(as_tokens(np.eye(2, dtype=bool)), torch.eye(2, dtype=torch.bool))


def test_a_selection_is_a_copy():
    mask, steps = torch.ones(1, 2, dtype=torch.bool), [0, 1]
    kept, scope = as_tokens(mask), Scope(steps)
    mask[:], steps[:] = False, [5]
    assert kept.all() and scope.steps == (0, 1)
