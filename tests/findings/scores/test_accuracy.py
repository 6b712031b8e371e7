"""Scores are those of the problems one by one, in their order, whatever the batches."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dlens
from dlens import tasks
from dlens.findings.scores.accuracy import answer_tokens, score_problems, score_task
from dlens.findings.scores.decoding import Decoding
from dlens.samplers import Autoregressive, LLaDA, Sampler
from dlens.tasks import Problem
from dlens.tasks.trio_code import TrioCode
from tests.refusing import refused

MATH = tasks.get("trio-math")
DATA = Path(__file__).parents[2] / "tasks" / "data"


def one_by_one(trace: dlens.Trace, problems: tuple[tasks.Problem, ...], new_tokens: int) -> list[str]:
    return [trace.generate(p.prompt, new_tokens, progress=False).text[0] for p in problems]


@pytest.mark.parametrize(("name", "new_tokens"), [("ar", 32), ("diffusion", 8)])
def test_scores_are_those_of_single_runs(name: str, new_tokens: int, request: pytest.FixtureRequest) -> None:
    trace = dlens.trace(request.getfixturevalue(name))
    scores = score_task(trace, "trio-math", n=5, seed=3, max_new_tokens=new_tokens, batch_size=4)
    assert scores.task == "trio-math" and scores.n == 5
    assert scores.problems == MATH.problems(5, seed=3)
    assert len({len(p.prompt) for p in scores.problems}) > 1
    assert list(scores.texts) == one_by_one(trace, scores.problems, new_tokens)
    assert list(scores.correct) == [MATH.score(*pair) for pair in zip(scores.problems, scores.texts, strict=True)]
    assert scores.accuracy == sum(scores.correct) / 5
    assert scores.seconds > 0 and scores.flops is None and scores.saved_flops is None


def test_some_answers_are_right_and_an_empty_model_has_none(ar: dlens.Model) -> None:
    plain = dlens.trace(ar)
    problems = MATH.problems(8, levels=(1,))
    assert score_problems(plain, MATH, problems).accuracy > 0.5
    broken = score_problems(plain.ablate(None), MATH, problems, Decoding(max_new_tokens=8))
    assert broken.accuracy == 0 and broken.plan[0]["op"] == "ablate"


def test_a_model_that_shows_padding_gets_prompts_of_one_length(ar: dlens.Model) -> None:
    open_model = replace(ar, honours_padding=False)
    scores = [score_task(dlens.trace(model), MATH, n=8, max_new_tokens=8) for model in (ar, open_model)]
    assert scores[0].texts == scores[1].texts


def test_flops_are_the_sum_of_the_batches(diffusion: dlens.Model) -> None:
    trace = dlens.trace(diffusion).skip([4, 9])
    scores = score_task(trace, MATH, n=4, max_new_tokens=4, batch_size=1, count_flops=True)
    records = [trace.generate(p.prompt, 4, progress=False) for p in scores.problems]
    assert scores.flops == sum(r.flops for r in records)
    assert scores.saved_flops == sum(r.saved_flops for r in records) and scores.saved_flops > 0


@pytest.mark.parametrize(("name", "sampler"), [("ar", Autoregressive(5.0)), ("diffusion", LLaDA(temperature=5.0))])
def test_the_seed_decides_what_is_sampled(name: str, sampler: Sampler, request: pytest.FixtureRequest) -> None:
    trace = dlens.trace(request.getfixturevalue(name))
    problems = MATH.problems(1) * 3
    decodings = [Decoding(sampler, max_new_tokens=8, batch_size=1, seed=seed) for seed in (1, 1, 2)]
    first, again, other = (score_problems(trace, MATH, problems, decoding) for decoding in decodings)
    assert first.texts == again.texts
    assert len(set(first.texts + other.texts)) == 6


def test_answers_are_read_as_token_ids(ar: dlens.Model) -> None:
    scores = score_task(dlens.trace(ar), MATH, n=2, max_new_tokens=4)
    assert [ar.tokenizer.decode(ids) for ids in answer_tokens(ar, scores)] == list(scores.texts)


def test_what_a_run_says_is_kept_once(ar: dlens.Model) -> None:
    trace = dlens.trace(ar).skip([3], steps=[63]).repeat(5, steps=[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dlens.UnfiredWarning)
        scores = score_task(trace, MATH, n=2, batch_size=1)
    assert len(scores.unfired) == 1 and len(scores.notes) == 1


def test_code_from_a_file_is_scored(ar: dlens.Model) -> None:
    task = tasks.from_file(DATA / "mbpp.jsonl", "mbpp", shots=0, allow_code=True)
    scores = score_task(dlens.trace(ar), task, n=3, max_new_tokens=8)
    assert scores.task == "mbpp" and {p.key for p in scores.problems} == {"mbpp/11", "mbpp/12", "mbpp/510"}
    assert scores.correct == (False, False, False)


def test_what_does_not_fit_is_refused_before_anything_is_computed(ar: dlens.Model) -> None:
    calls: list[int] = []
    handle = ar.module.register_forward_pre_hook(lambda *_: calls.append(1))
    for message, options in (
        ("n=0; expected at least 1", {"n": 0}),
        ("batch_size=0; expected", {"batch_size": 0}),
        ("are to come, .* in all; expected at most", {"max_new_tokens": 10**6}),
        ("task 'math'; expected one of", {"task": "math"}),
        ("split='valid'; expected", {"split": "valid"}),
    ):
        with pytest.raises(ValueError, match=message):
            score_task(dlens.trace(ar), **{"task": MATH, "n": 4} | options)
    with pytest.raises(ValueError, match="got no problems; expected at least one; draw"):
        score_problems(dlens.trace(ar), MATH, ())
    handle.remove()
    assert not calls


class Scored(TrioCode):
    """The same problems, with a score that is given."""

    def __init__(self, *scores: object) -> None:
        vars(self).update(scores=list(scores))

    def problems(self, n: int, seed: int = 0, split: str = "test") -> Any:
        return list(super().problems(n, seed, split))

    def score(self, problem: Problem, continuation: str) -> Any:
        return vars(self)["scores"].pop(0)


@pytest.mark.parametrize("score", [float("nan"), None, 0.5, 2, "True", np.array([True])], ids=repr)
def test_a_score_that_is_neither_yes_nor_no_is_refused_before_anything_runs(score: object, ar: dlens.Model) -> None:
    with refused(ar, ValueError, "Scored.score said "):
        score_task(dlens.trace(ar), Scored(score), n=2)


def test_yes_and_no_are_taken_in_every_spelling(ar: dlens.Model) -> None:
    task = Scored(True, np.True_, 1, np.int64(0))
    correct = score_task(dlens.trace(ar), task, n=3, max_new_tokens=1).correct
    # The longest problem is answered first.
    assert sorted(correct) == [False, True, True] and {type(one) for one in correct} == {bool}


def test_problems_may_be_a_list(ar: dlens.Model) -> None:
    scores = [True, False] * 3
    baseline = score_task(dlens.trace(ar), Scored(True, *scores), n=2, max_new_tokens=1)
    with pytest.raises(ValueError, match="a baseline with other rules of trio-code"):
        dlens.retention(ar, [3], Scored(*scores), n=2, max_new_tokens=1, baseline=baseline)
    assert dlens.retention(ar, [3], Scored(*scores), n=2, max_new_tokens=1).n == 2
