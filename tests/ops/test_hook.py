"""Hook: what the function is told, and what becomes of its answer."""

from functools import partial

import pytest
import torch

from dlens.ops.hook import Hook
from tests.ops.targets import DIFFUSION, VALUE, place
from tests.unchecked import unchecked


def named_later(scale, value, hook):
    return None


def run(fn, **changes):
    op = Hook(fn=fn, layers=(2,))
    op.check(DIFFUSION)
    return op.edit(VALUE, place(layer=2, step=5, **changes))


def test_the_function_is_told_where_and_when():
    told = []
    run(lambda value, hook: told.append(hook))
    [hook] = told
    assert (hook.name, hook.layer, hook.step, hook.noise) == ("blocks.2.hook_resid_post", 2, 5, (0.5,))
    assert hook.masked.tolist() == [[False, True]]


def test_the_answer_replaces_the_value():
    assert run(lambda value, hook: value + 1).tolist() == [[[2, 3, 4], [5, 6, 7]]]
    assert run(lambda value, hook: (value * 2).double()).dtype == VALUE.dtype
    assert run(lambda value, hook: None) is VALUE


def test_a_copy_edited_in_place_counts_as_returned():
    before = VALUE.clone()

    def edit(value, hook):
        value[..., 0] = 0

    assert run(edit).tolist() == [[[0, 2, 3], [0, 5, 6]]]
    assert torch.equal(VALUE, before)


@pytest.mark.parametrize("edit", [lambda value: value.data.zero_(), lambda value: value.numpy().fill(0)])
def test_a_copy_edited_behind_the_back_of_autograd_counts_too(edit):
    assert run(lambda value, hook: (edit(value), None)[1]).tolist() == [[[0, 0, 0], [0, 0, 0]]]


def test_a_value_that_is_no_number_is_left_alone():
    value = torch.full_like(VALUE, torch.nan)
    assert Hook(fn=lambda value, hook: None).edit(value, place()) is value


def test_the_scale_of_a_norm_can_only_be_read():
    reads, writes = (Hook(fn=fn, at="ln1_scale") for fn in (lambda value, hook: None, lambda value, hook: value * 0))
    assert reads.edit(VALUE, place(point="ln1_scale")) is VALUE
    with pytest.raises(
        ValueError, match="at blocks.0.ln1.hook_scale changed the ln1_scale; expected .*; edit what the norm r"
    ):
        writes.edit(VALUE, place(point="ln1_scale"))


def test_what_is_no_hook_raises():
    with pytest.raises(ValueError, match="at='stream'; expected a hook point: .*; check the spelling"):
        Hook(fn=print, at="stream").check(DIFFUSION)
    with unchecked(), pytest.raises(ValueError, match="the hook at resid_post is None; expected a function .*; pass"):
        Hook(fn=None).check(DIFFUSION)


def keyword_only(value, *, hook):
    return None


@pytest.mark.parametrize(
    "fn",
    [lambda value: value, lambda value, hook, scale: value, keyword_only, lambda: None, partial(named_later, 1, 2)],
)
def test_a_function_of_other_arguments_raises_before_it_is_called(fn):
    message = (
        r"^the hook .* at resid_post takes \(.*\); expected a function that can be called as fn\(value, hook\); give"
    )
    with pytest.raises(ValueError, match=message):
        Hook(fn=fn).check(DIFFUSION)


@pytest.mark.parametrize(
    "fn",
    [print, torch.add, partial(named_later, 1), lambda *both: None, lambda value, hook, scale=2.0: None, max, dict],
)
def test_whatever_takes_two_arguments_passes(fn):
    Hook(fn=fn).check(DIFFUSION)


def test_an_error_inside_the_function_names_the_hook():
    with pytest.raises(ZeroDivisionError) as caught:
        run(lambda value, hook: 1 / 0)
    [note] = caught.value.__notes__
    assert note.startswith("in the hook test_an_error_inside")
    assert note.endswith(" at blocks.2.hook_resid_post, step 5, called as fn(value, hook)")


@pytest.mark.parametrize(("answer", "came"), [(torch.zeros(1, 2), r"shape \(1, 2\)"), (3.0, "float")])
def test_an_answer_of_a_wrong_kind_raises(answer, came):
    with pytest.raises(
        ValueError, match=rf"at blocks.2.hook_resid_post returned {came}; expected None or a tensor of "
    ):
        run(lambda value, hook: answer)


def named(value, hook):
    return None


def test_words_and_plan():
    assert Hook(fn=named, layers=(2,)).words() == "call named at resid_post of layers 2"
    assert Hook(fn=named, at="logits").words() == "call named at logits"
    assert Hook(fn=named, at="logits").to_json() == {
        "op": "hook", "fn": "named", "at": "logits", "tokens": "all tokens"
    }  # fmt: skip
