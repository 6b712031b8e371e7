"""A decoding is what `Trace.generate` is told, whoever passes it on."""

from __future__ import annotations

import pytest
import torch

import dlens
from dlens import tasks
from dlens.findings.scores.decoding import Decoding
from dlens.samplers import LLaDA


def test_a_run_is_that_of_generate(diffusion: dlens.Model) -> None:
    trace, sampler = dlens.trace(diffusion), LLaDA(steps=4, block_length=8, temperature=1.0)
    found = Decoding(sampler, 8, seed=3).generate(trace, [[5, 6, 7]])
    expected = trace.generate([[5, 6, 7]], 8, sampler=sampler, seed=3, progress=False)
    assert torch.equal(found.tokens, expected.tokens)
    other = Decoding(sampler, 8, seed=3).generate(trace, [[5, 6, 7]], seed=4)
    assert torch.equal(other.tokens, trace.generate([[5, 6, 7]], 8, sampler=sampler, seed=4, progress=False).tokens)
    assert not torch.equal(other.tokens, found.tokens)


def test_the_cache_is_as_asked(ar: dlens.Model) -> None:
    widths: list[int] = []
    handle = ar.module.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(kwargs["input_ids"].shape[-1]), with_kwargs=True
    )
    for cache in ("auto", "off"):
        Decoding(max_new_tokens=3, cache=cache).generate(dlens.trace(ar), [[5, 6, 7]])
    handle.remove()
    assert widths == [3, 1, 1, 3, 4, 5]


def test_the_length_is_the_tasks_where_none_is_given() -> None:
    task = tasks.get("trio-code")
    assert Decoding().of(task).length == task.max_new_tokens == 32
    assert Decoding(max_new_tokens=5).of(task).length == 5
    with pytest.raises(ValueError, match="a Decoding without max_new_tokens; expected a length"):
        _ = Decoding().length


def test_steps_are_planned_by_the_sampler_or_the_family(ar: dlens.Model, diffusion: dlens.Model) -> None:
    assert [Decoding(max_new_tokens=8).planned_steps(model) for model in (ar, diffusion)] == [8, 8]
    assert Decoding(LLaDA(steps=4, block_length=8), 8).planned_steps(diffusion) == 4
