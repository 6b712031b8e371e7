"""Scopes, targets, token selections: what every operation shares."""

import pytest
import torch

from dlens.ops.op import Scope, Target, as_layers, check_tokens
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
        ([], []),
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
        (Scope(range(3)), " at steps 0, 1, 2"),
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
    assert as_layers(None) is None and as_layers(2) == (2,) and as_layers(range(2, 4)) == (2, 3)


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
