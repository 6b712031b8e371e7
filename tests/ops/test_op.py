"""Scopes, targets, token selections: what every operation shares."""

import json

import numpy as np
import pytest
import torch

from dlens.ops.scope import Scope
from dlens.ops.skip import Skip
from dlens.ops.target import Target
from dlens.ops.tokens import as_tokens, check_tokens
from tests.ops.targets import AR, DIFFUSION
from tests.unchecked import unchecked


@pytest.mark.parametrize(
    ("steps", "named"),
    [
        (None, [0, 1, 2, 3, 4, 5, 6]),
        (2, [2]),
        (-1, [6]),
        ([0, -7, 3], [0, 3]),
        (range(1, 6, 2), [1, 3, 5]),
        (slice(None, 2), [0, 1]),
        (slice(5, 7), [5, 6]),
        (slice(-2, None), [5, 6]),
        (slice(None, None, 3), [0, 3, 6]),
        (slice(3, 3), []),
        ("early", [0, 1]),
        ("middle", [2, 3]),
        ("late", [4, 5, 6]),
    ],
)
def test_steps_of_a_run_of_seven(steps, named):
    assert sorted(Scope(steps).resolve(7)) == named


@pytest.mark.parametrize("n_steps", range(1, 12))
def test_thirds_share_out_all_steps(n_steps):
    thirds = [Scope(third).resolve(n_steps) for third in ("early", "middle", "late")]
    assert sorted(step for third in thirds for step in third) == list(range(n_steps))
    assert max(map(len, thirds)) - min(map(len, thirds)) <= 1


@pytest.mark.parametrize(
    ("steps", "step"),
    [(4, 4), (-5, -5), ([1, 9], 9), (range(3, 6), 4), (slice(0, 5), 5), (slice(4, None), 4), (slice(-5, 2), -5)],
)
def test_a_step_beyond_the_run_raises(steps, step):
    with pytest.raises(IndexError, match=rf"names step {step}; expected steps 0 to 3, .*; give fewer steps"):
        Scope(steps).resolve(4)


def test_noise_is_open_below_closed_above_and_holds_zero_at_zero():
    levels = [0, 0.25, 0.3, 0.5, 1]
    assert [Scope(noise=(0.25, 0.5)).in_noise(x) for x in levels] == [False, False, True, True, False]
    assert [Scope(noise=(0, 0.25)).in_noise(x) for x in levels] == [True, True, False, False, False]
    assert [Scope(noise=(0.5, 1)).in_noise(x) for x in levels] == [False, False, False, False, True]
    assert all(Scope().in_noise(x) for x in levels)


@pytest.mark.parametrize("noise", [(0.5, 0.5), (0.6, 0.2), (-0.1, 0.5), (0.5, 1.1)])
def test_noise_that_is_no_interval_of_shares_raises(noise):
    with pytest.raises(ValueError, match=r"noise=\(.*; expected \(lo, hi\) with 0 <= lo < hi <= 1; .*noise=\(0\.5, 1"):
        Scope(noise=noise)


@pytest.mark.parametrize(
    ("scope", "words"),
    [
        (Scope(), ""),
        (Scope(3), " at steps 3"),
        (Scope("late"), " at steps late"),
        (Scope(range(0, 16)), " at steps 0:16"),
        (Scope(range(1, 6, 2)), " at steps 1:6:2"),
        (Scope(range(-2, 0)), " at steps -2, -1"),
        (Scope(range(2, -1, -1)), " at steps 2, 1, 0"),
        (Scope(slice(0, 16)), " at steps 0:16"),
        (Scope(slice(None, None, 2)), " at steps ::2"),
        (Scope(noise=(0.5, 1.0)), " at noise 0.5 to 1"),
        (Scope([1], (0, 0.25)), " at steps 1 at noise 0 to 0.25"),
    ],
)
def test_scope_in_words(scope, words):
    assert scope.words() == words


def test_layer_numbers_name_places():
    assert [DIFFUSION.layer(layer) for layer in (0, 3, -1, -4)] == [0, 3, 3, 0]
    assert DIFFUSION.layers([3, -4, 0, -1]) == (0, 3)
    assert DIFFUSION.layers(None) == (0, 1, 2, 3)
    assert DIFFUSION.places(None) is None and DIFFUSION.places(2) == (2,)
    assert DIFFUSION.places(slice(-2, None)) == (2, 3) and DIFFUSION.places([3, 3, -1, 0]) == (3, 0)


@pytest.mark.parametrize("layer", [4, -5, 100])
def test_a_layer_out_of_range_raises(layer):
    with pytest.raises(IndexError, match=rf"layer {layer} of tiny; expected -4 to 3, .*; give a smaller number"):
        DIFFUSION.layer(layer)


def test_an_absent_point_says_why_and_what_there_is():
    target = Target("tiny", 4, 3, True, absent={"resid_mid": "both halves run side by side", "pattern": "not given"})
    with pytest.raises(
        ValueError, match="tiny has no resid_mid: both halves run side by side; expected one of resid_pre, "
    ):
        target.require_point("resid_mid")
    target.require_point("resid_post")


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


@pytest.mark.parametrize("steps", [True, 1.5, [0.5], [True], torch.ones(2, dtype=torch.bool), slice(0.5, 2), "end"])
def test_steps_are_whole_numbers(steps):
    with unchecked(), pytest.raises(ValueError, match="steps?[ =].*; expected .*; "):
        Scope(steps)


def test_steps_as_data():
    def written(steps):
        return Skip(layers=(0,), scope=Scope(steps)).to_json()["steps"]

    assert written(np.int64(2)) == [2] and written(torch.arange(2)) == [0, 1] == written(range(2))
    assert written(slice(0, 16)) == {"start": 0, "stop": 16, "step": None} and written("late") == "late"
    json.dumps([written(np.arange(3)), written(slice(np.int64(0), None))])


@pytest.mark.parametrize("noise", [0.5, (0.5,), ("a", 1), (0, None), torch.tensor(0.5), (False, True)])
def test_noise_that_is_no_pair_raises(noise):
    with unchecked(), pytest.raises(ValueError, match=r"noise=.*; expected .*; "):
        Scope(noise=noise)
