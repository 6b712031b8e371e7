from typing import Any

import pytest
import torch

import dlens
from dlens.widgets import Heads, LayerCollapse, TokenRecency
from dlens.widgets.sources import as_trace, asked_run, opening, spread, watched
from tests.refusing import assert_three_parts


def test_the_opening_is_eight_words() -> None:
    assert len(opening().split()) == 8


@pytest.mark.parametrize(
    "n, most, expected", [(3, 8, [0, 1, 2]), (9, 3, [0, 4, 8]), (32, 8, [0, 4, 9, 13, 18, 22, 27, 31]), (0, 8, [])]
)
def test_steps_are_evenly_apart_with_both_ends(n: int, most: int, expected: list[int]) -> None:
    assert spread(n, most) == expected


def test_a_trace_is_taken_as_it_is(ar: dlens.Model) -> None:
    chain = dlens.trace(ar).skip([3])
    assert as_trace(chain) is chain and as_trace(ar).model is ar


def test_a_diffusion_model_is_watched_at_steps_of_its_run(diffusion: dlens.Model) -> None:
    record = watched(dlens.trace(diffusion), "Once upon a time", 9, (dlens.Cosine(),))
    assert record.coords("resid_post")["step"] == spread(9) and "cosine" in record.measures
    assert record.text == dlens.trace(diffusion).generate("Once upon a time", 9).text


def test_an_ar_model_is_watched_over_its_finished_text(ar: dlens.Model) -> None:
    run = dlens.trace(ar).generate("Once upon a time", 3)
    record = watched(dlens.trace(ar), "Once upon a time", 3)
    assert record.kind == "forward" and record.text == run.text and torch.equal(record.tokens, run.tokens)
    assert record["resid_post"].shape[:3] == (16, 1, run.tokens.shape[1])


def test_models_write_what_was_asked_or_the_usual(ar: dlens.Model) -> None:
    record = dlens.trace(ar).forward("Once")
    assert asked_run([ar], None, None, 16) == (opening(), 16)
    assert asked_run(["trio/ar", record], "Once", 4, 16) == ("Once", 4)
    assert asked_run([record], None, None, 16) == (opening(), 16)
    # An empty prompt is nobody's wish for another one: the run refuses it.
    assert asked_run([ar], "", 4, 16) == ("", 4)


@pytest.mark.parametrize("given", [{"prompt": "Once"}, {"max_new_tokens": 4}])
@pytest.mark.parametrize("widget", [Heads, LayerCollapse, TokenRecency])
def test_what_only_a_model_can_run_is_refused_beside_a_record(widget: Any, given: Any, ar: dlens.Model) -> None:
    record = dlens.trace(ar).capture("resid_post", "pattern").forward("Once upon")
    widget(record)
    for source in (record, [record, record]) if widget is TokenRecency else (record,):
        with pytest.raises(ValueError) as caught:
            widget(source, **given)
        name, value = next(iter(given.items()))
        assert_three_parts(str(caught.value), f"{name}={value!r}")


def test_another_record_beside_a_model_is_refused(ar: dlens.Model) -> None:
    other = dlens.trace(ar).capture("resid_post").forward("Once upon")
    with pytest.raises(ValueError) as caught:
        LayerCollapse(ar, other)
    assert_three_parts(str(caught.value), "other=")
