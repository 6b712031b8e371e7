"""lm-eval's model over a trace, against lm-eval's own `HFLM` on the same module."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model, model_registry
from lm_eval.models.huggingface import HFLM

import dlens
from dlens.evaluation.likelihood import Bound
from dlens.evaluation.lm import TraceLM
from dlens.findings.scores.decoding import Decoding
from tests.evaluation.harness import asked, run, small_tasks
from tests.reference import shallow

LONG = "Once upon a time there was a dog. " * 200


def requests(kind: Any, *arguments: tuple[Any, ...]) -> list[Instance]:
    return [Instance(kind, {}, each, number) for number, each in enumerate(arguments)]


def own(model: dlens.Model, **given: Any) -> HFLM:
    return HFLM(pretrained=model.module, tokenizer=model.tokenizer, device="cpu", batch_size=4, **given)


@pytest.mark.parametrize("name", ["ar", "smol"])
def test_ar_likelihoods_are_those_of_hflm(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model: dlens.Model = request.getfixturevalue(name)
    folder = small_tasks(tmp_path)
    ours = run(TraceLM(dlens.trace(model)), folder, "small_choice", "small_rolling")
    theirs = run(own(model), folder, "small_choice", "small_rolling")
    assert ours["results"]["small_choice"]["acc,none"] == theirs["results"]["small_choice"]["acc,none"]
    for task in ("small_choice", "small_rolling"):
        pairs = list(zip(asked(ours, task), asked(theirs, task), strict=True))
        assert len(pairs) == {"small_choice": 9, "small_rolling": 4}[task]
        for (a,), (b,) in pairs:
            (value, greedy), (expected, sure) = (a, b) if task == "small_choice" else ((a, None), (b, None))
            # The shortest of these continuations has two tokens, so this is less than 1e-4 a token.
            assert float(value) == pytest.approx(float(expected), abs=1e-4) and greedy == sure


def test_long_texts_are_cut_and_rolled_as_hflm_does(ar: dlens.Model) -> None:
    model = shallow(ar, 2)
    ours, theirs = TraceLM(dlens.trace(model)), own(model)
    assert ours.max_length == theirs.max_length == 512
    pair = requests("loglikelihood", (LONG, " The dog was happy."), (LONG, LONG[:1500]))
    rolling = requests("loglikelihood_rolling", (LONG,))
    for (value, _), (expected, _) in zip(ours.loglikelihood(pair), theirs.loglikelihood(pair), strict=True):
        assert value == pytest.approx(expected, rel=1e-5)
    assert ours.loglikelihood_rolling(rolling) == pytest.approx(theirs.loglikelihood_rolling(rolling), rel=1e-5)
    with pytest.raises(ValueError, match="a continuation of .* tokens; expected at most 512, .*; leave the task out"):
        ours.loglikelihood(requests("loglikelihood", ("Once", LONG)))


def test_token_boundaries_are_those_of_hflm(ar: dlens.Model, smol: dlens.Model) -> None:
    for model in (shallow(ar, 1), smol):
        ours, theirs = TraceLM(dlens.trace(model)), own(model)
        for context, continuation in (("Once upon", " a time"), ("Once ", "upon"), ("1 + 1 =  ", "2"), ("a", "b")):
            assert ours._encode_pair(context, continuation) == theirs._encode_pair(context, continuation)
        begun = f"{ours.tokenizer.bos_token}Once"
        assert ours.tok_encode(begun) == theirs.tok_encode(begun)
        assert ours.tok_encode("Once", add_special_tokens=False) == theirs.tok_encode("Once", add_special_tokens=False)
        assert ours.prefix_token_id == theirs.prefix_token_id and ours.eot_token_id == theirs.eot_token_id
        assert ours.tokenizer_name == theirs.tokenizer_name


def test_answers_are_those_of_hflm(ar: dlens.Model) -> None:
    given = {"until": ["."], "max_gen_toks": 12, "do_sample": False}
    contexts = [("Once upon a time", given), ("The dog", given), (LONG, given)]
    ours, theirs = TraceLM(dlens.trace(ar)), own(ar)
    expected = theirs.generate_until(requests("generate_until", *contexts))
    assert ours.generate_until(requests("generate_until", *contexts)) == expected
    assert all(expected) and not any("." in text for text in expected)
    assert ours.generate_until(requests("generate_until", ("", given))) == [
        dlens.trace(ar).generate([[ours.prefix_token_id]], 12, progress=False).text[0].partition(".")[0]
    ]


def test_a_diffusion_model_keeps_a_token_before_what_it_predicts(ar_init: dlens.Model) -> None:
    model = replace(shallow(ar_init, 1), family=ar_init.family)
    lm = TraceLM(dlens.trace(model), Bound(1), Decoding(batch_size=1))
    assert lm.max_length == 511
    windows = lm._windows(LONG)
    assert max(len(context) + len(continuation) for context, continuation in windows) == 512
    assert sum(len(continuation) for _, continuation in windows) == len(lm.tok_encode(LONG))
    (value,) = lm.loglikelihood_rolling(requests("loglikelihood_rolling", (LONG,)))
    assert value < 0


def test_chat_templates_are_written_as_hflm_does(smol: dlens.Model) -> None:
    messages = [{"role": "user", "content": "What is 2 + 2?"}]
    ours, theirs = TraceLM(dlens.trace(smol)), own(smol)
    assert ours.apply_chat_template(messages) == theirs.apply_chat_template(messages)
    begun = [*messages, {"role": "assistant", "content": "It is"}]
    assert ours.apply_chat_template(begun, False) == theirs.apply_chat_template(begun, False)
    assert ours.chat_template(True) == smol.tokenizer.chat_template


def test_it_is_made_of_arguments_as_lm_eval_hands_them_over(ar: dlens.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlens.evaluation.arguments.load", lambda name: ar)
    kind: Any = get_model("dlens")
    assert kind is TraceLM
    lm = kind.create_from_arg_string("pretrained=trio/ar,skip=3-5,batch_size=4", {"batch_size": 1, "device": None})
    assert str(lm.trace).endswith("skip layers 3, 5") and lm.decoding.batch_size == 4
    other = kind.create_from_arg_obj({"pretrained": "trio/ar"}, {"batch_size": 2})
    assert other.decoding.batch_size == 2 and other.trace.ops == ()


def test_the_command_line_of_lm_eval_knows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    known: list[bool] = []
    monkeypatch.setattr("lm_eval.__main__.cli_evaluate", lambda: known.append("dlens" in model_registry))
    runpy.run_module("dlens.evaluation", run_name="__main__")
    assert known == [True]


def test_text_needs_a_tokenizer(ar: dlens.Model) -> None:
    with pytest.raises(ValueError, match="trio/ar has no tokenizer; expected one, as tasks are text; load with"):
        TraceLM(dlens.trace(replace(ar, tokenizer=None)))
