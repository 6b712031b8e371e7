"""Answers as requests ask for them: their length, where they stop, how they are drawn."""

from __future__ import annotations

from typing import Any

import pytest

import dlens
from dlens import samplers
from dlens.evaluation.generation import Asked, answers, sampler_of
from dlens.findings.scores.decoding import Decoding
from tests.reference import shallow

PROMPTS = [[652, 401], [5, 6, 7, 8, 9], [44]]


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({}, Asked(256, (), ())),
        ({"until": "\n", "max_gen_toks": 8}, Asked(8, ("\n",), ())),
        ({"until": ["b", "", "a"], "max_new_tokens": 8}, Asked(8, ("b", "a"), ())),
        ({"max_tokens": 4, "max_gen_toks": 8, "until": None}, Asked(8, (), ())),
        ({"do_sample": False, "temperature": 0.7, "top_p": 0.9}, Asked(256, (), ())),
        ({"do_sample": True, "temperature": 0.0}, Asked(256, (), ())),
        ({"temperature": 0.7, "top_p": 0.9}, Asked(256, (), (("temperature", 0.7), ("top_p", 0.9)))),
    ],
)
def test_what_a_request_asks_for(given: dict[str, Any], asked: Asked) -> None:
    assert Asked.of(given) == asked


def test_requests_that_nobody_understands_are_refused() -> None:
    with pytest.raises(ValueError, match="a request with num_beams; expected do_sample, .*; leave it out"):
        Asked.of({"num_beams": 4, "until": "a"})
    with pytest.raises(ValueError, match="max_gen_toks=0; expected at least 1, .*; ask for more"):
        Asked.of({"max_gen_toks": 0})


def test_only_requests_that_draw_change_the_sampler(ar: dlens.Model, diffusion: dlens.Model) -> None:
    drawn, fixed = Asked(draws=(("temperature", 0.5),)), Asked()
    own = samplers.LLaDA(steps=2, block_length=4)
    assert sampler_of(diffusion, own, fixed) is own and sampler_of(ar, None, fixed) is None
    assert sampler_of(diffusion, own, drawn) == samplers.LLaDA(steps=2, block_length=4, temperature=0.5)
    assert sampler_of(ar, None, drawn) == samplers.Autoregressive(temperature=0.5)
    assert sampler_of(diffusion, None, drawn) == samplers.LLaDA(temperature=0.5)
    with pytest.raises(ValueError, match=r"a request with top_p and LLaDA\(.*; expected a sampler .*; take another"):
        sampler_of(diffusion, own, Asked(draws=(("temperature", 0.5), ("top_p", 0.9))))


@pytest.mark.parametrize("name", ["ar", "diffusion"])
def test_answers_are_those_of_single_runs(name: str, request: pytest.FixtureRequest) -> None:
    trace = dlens.trace(shallow(request.getfixturevalue(name), 2)).skip([0])
    asked = [Asked(4), Asked(6), Asked(4)]
    expected = [trace.generate([p], a.length, progress=False).text[0] for p, a in zip(PROMPTS, asked, strict=True)]
    assert answers(trace, PROMPTS, asked, Decoding(batch_size=2), 512) == expected
    longer = [trace.generate([p], 3, progress=False).text[0] for p in PROMPTS]
    assert answers(trace, PROMPTS, asked, Decoding(max_new_tokens=3), 512) == longer


def test_an_answer_ends_before_its_first_stop(ar: dlens.Model) -> None:
    trace = dlens.trace(shallow(ar, 2))
    (text,) = answers(trace, PROMPTS[:1], [Asked(8)], Decoding(), 512)
    first, second = text[2], text[4]
    cut = text[: min(text.index(first), text.index(second))]
    assert answers(trace, PROMPTS[:1], [Asked(8, (second, first))], Decoding(), 512) == [cut]


def test_prompts_are_cut_from_the_left_and_answers_leave_room(ar: dlens.Model) -> None:
    trace = dlens.trace(shallow(ar, 2))
    short = answers(trace, [[7, 8, 9]], [Asked(4)], Decoding(), 512)
    assert answers(trace, [[4, 5, 6, 7, 8, 9]], [Asked(4)], Decoding(), 7) == short
    with pytest.raises(ValueError, match="answers of 7 tokens from .*; expected fewer than the 7 positions .*; give"):
        answers(trace, [[7]], [Asked(7)], Decoding(), 7)


def test_a_seed_decides_what_is_drawn(ar: dlens.Model) -> None:
    trace, asked = dlens.trace(shallow(ar, 2)), [Asked(6, draws=(("temperature", 1.5),))] * 3
    first, again, other = (answers(trace, PROMPTS, asked, Decoding(seed=seed), 512) for seed in (1, 1, 2))
    assert first == again != other


def test_settings_that_do_not_fit_are_refused_before_anything_runs(diffusion: dlens.Model) -> None:
    trace = dlens.trace(shallow(diffusion, 2))
    calls: list[int] = []
    trace = trace.hook("resid_post", lambda value, hook: calls.append(1), layers=0)
    decoding = Decoding(samplers.LLaDA(steps=3, block_length=4))
    with pytest.raises(ValueError, match="block_length"):
        answers(trace, PROMPTS[:2], [Asked(4), Asked(6)], decoding, 512)
    assert calls == []
