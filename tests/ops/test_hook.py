"""Hook: what the function is told, and what becomes of its answer."""

import pytest
import torch

from dlens.ops.hook import Hook
from tests.ops.targets import DIFFUSION, VALUE, place


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
