"""A decoding is what `Trace.generate` is told, whoever passes it on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import dlens
from dlens import tasks
from dlens.findings.scores.accuracy import score_task
from dlens.findings.scores.decoding import Decoding
from dlens.findings.scores.loss import text_loss
from dlens.samplers import LLaDA
from tests.refusing import assert_three_parts, refused
from tests.unchecked import unchecked


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


SEEDED: dict[str, Any] = {
    "profile": lambda m, path: dlens.profile(m, ["Once"], "clean", seed=-1),
    "trajectory": lambda m, path: dlens.profile(m, ["Once"], "trajectory", seed=-1),
    "probe_layers": lambda m, path: dlens.probe_layers(m, ["Once upon", "A fox"], folds=2, seed=-1),
    "plan_skip": lambda m, path: dlens.plan_skip(m, 1, "angular", prompts=["Once"], seed=-1),
    "retention": lambda m, path: dlens.retention(m, [3], n=2, seed=-1),
    "phases": lambda m, path: dlens.phases(m, [3], n=2, seed=-1),
    "collapse": lambda m, path: dlens.collapse(m, n=2, seed=-1),
    "disruption": lambda m, path: dlens.disruption(m, [3], ["Once"], seed=-1),
    "text_loss": lambda m, path: text_loss(dlens.trace(m), ["Once upon"], seed=-1),
    "score_task": lambda m, path: score_task(dlens.trace(m), "trio-math", 2, seed=-1),
    "report": lambda m, path: dlens.report([m], path / "page.html", seed=-1),
}


@pytest.mark.parametrize("name", SEEDED)
def test_a_negative_seed_is_refused_before_the_work(name: str, ar: dlens.Model, tmp_path: Path) -> None:
    with refused(ar, ValueError, "seed=-1"):
        SEEDED[name](ar, tmp_path)


UNUSABLE: dict[str, tuple[str, Any]] = {
    "length": ("max_new_tokens 'x'", lambda m: dlens.retention(m, [3], n=2, max_new_tokens="x")),  # pyright: ignore
    "batch": ("batch_size=0", lambda m: dlens.retention(m, [3], n=2, batch_size=0)),
    "task": ("task 5", lambda m: dlens.retention(m, [3], 5, n=2)),  # pyright: ignore
    "number": ("n=1.5", lambda m: tasks.get("trio-math").problems(1.5)),  # pyright: ignore
    "seed": ("seed='x'", lambda m: tasks.get("trio-code").problems(2, "x")),  # pyright: ignore
    "path": ("path=5", lambda m: tasks.from_file(5, "gsm8k")),  # pyright: ignore
    "positions": ("positions=-1", lambda m: dlens.probe_layers(m, ["Once", "A fox"], folds=2, positions=-1)),
    "targets": ("targets=5", lambda m: dlens.probe_layers(m, ["Once", "A fox"], targets=5)),  # pyright: ignore
    "channel": ("channel 1.5", lambda m: dlens.collapse(m, n=2, channel=1.5)),  # pyright: ignore
    "controls": ("n_random 'x'", lambda m: dlens.collapse(m, n=2, n_random="x")),  # pyright: ignore
    "threshold": ("threshold=nan", lambda m: dlens.plan_skip(m, 1, threshold=float("nan"), prompts=["Once"])),
    "fractions": ("fractions=5", lambda m: dlens.disruption(m, [3], ["Once"], 5)),  # pyright: ignore
    "repeats": ("times=1000000000000)", lambda m: dlens.trace(m).repeat(3, 10**12)),
    "a measure's name": ("name=5 of Cosine", lambda m: dlens.trace(m).measure(dlens.Cosine(name=5))),  # pyright: ignore
    "no layers": ("layers=() names no layer", lambda m: dlens.TopTokens(layers=[])),
    "a switch for a value": ("value is a bool", lambda m: dlens.trace(m).ablate(3, 5, True)),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_what_cannot_be_used_is_refused_before_the_work(case: str, ar: dlens.Model) -> None:
    came, action = UNUSABLE[case]
    with unchecked(), refused(ar, ValueError, came):
        action(ar)


def test_a_task_is_taken_as_it_is() -> None:
    task = tasks.get("trio-math")
    assert tasks.get(task) is task


def test_a_schedule_has_such_a_seed_too(diffusion: dlens.Model) -> None:
    with refused(diffusion, ValueError, "seed=-1"):
        dlens.plan_schedule(diffusion, 1 / 16, seed=-1)


@pytest.mark.parametrize("settings", [{"sampler": "llada"}, {"cache": "on"}, {"max_new_tokens": 0}], ids=str)
def test_settings_that_no_run_takes_are_refused_when_they_are_made(settings: Any) -> None:
    [[name, value]] = settings.items()
    with unchecked(), pytest.raises(ValueError) as caught:
        Decoding(**settings)
    assert_three_parts(str(caught.value), f"{name}={value!r}")
