"""What is asked of a model follows from the settings, and each part is kept under its question."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tqdm.auto import tqdm

import dlens
from dlens import tasks
from dlens.caches import Delayed, Dual
from dlens.findings.effects.change import Change
from dlens.findings.study.asking import FULL, QUICK, Asking, StudySettings, model_identity, n_parts
from dlens.tasks import Problem, Task
from dlens.workers.store import Store
from tests.reference import fresh, shallow

SMALL = StudySettings(problems=2, texts=2, draws=1, answered=("whole",), deep=False)


@pytest.mark.parametrize(
    ("settings", "n"), [(QUICK, 16), (FULL, 20), (SMALL, 11), (replace(SMALL, compression=True), 16)]
)
def test_parts_are_counted_before_they_are_computed(settings: StudySettings, n: int) -> None:
    assert n_parts(settings) == n


def test_every_part_is_kept_under_its_question(ar: dlens.Model, tmp_path: Path) -> None:
    asking = Asking(dlens.trace(ar), tasks.get("trio-code"), SMALL, Store(tmp_path), tqdm(disable=True))
    found = asking.all("ar")
    kept = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    names = [entry["asked"]["part"] for entry in kept]
    assert sorted(names) == ["answers", *["losses"] * len(found.changes), "reading"]
    assert len(names) == n_parts(SMALL) - ("no largest" not in found.changes)
    assert all(entry["asked"]["model"] == model_identity(ar) for entry in kept)
    assert model_identity(ar)[0] == "trio/ar" and model_identity(ar)[-1] == ar.fingerprint()
    asked = {entry["asked"]["asked"][0]["name"]: entry for entry in kept if entry["asked"]["part"] == "losses"}
    assert list(found.losses) == list(found.changes) and set(asked) == set(found.changes)
    assert asked["apart"]["asked"]["asked"][0]["layers"] == list(found.changes["apart"].layers)
    assert asked["apart"]["result"] == found.losses["apart"].to_json()
    assert list(found.answers) == ["whole"] and found.disruption is found.thirds is None
    again = asking.all("ar")
    assert json.dumps(again.to_json()) == json.dumps(found.to_json()), "NaN included"
    assert len(asking.store.reused) == len(names)


@dataclass(frozen=True, eq=False)
class Held(Task):
    """One problem, and settings that decide how it is scored."""

    right: str = " 4"
    name, max_new_tokens = "held", 2

    def problems(self, n: int, seed: int = 0, split: str = "test") -> tuple[Problem, ...]:
        return tuple(Problem(f"{i} + {i} =", self.right, 1, str(i)) for i in range(n))

    def score(self, problem: Problem, continuation: str) -> bool:
        return continuation == self.right


class Lenient(Held):
    def score(self, problem: Problem, continuation: str) -> bool:
        return self.right in continuation


class Longer(Held):
    max_new_tokens = 3


def asked(model: dlens.Model, task: Task, folder: Path) -> set[str]:
    """The names of the files in which answers to a task are kept."""
    folder.mkdir()
    asking = Asking(dlens.trace(model), task, SMALL, Store(folder), tqdm(disable=True))
    asking._part(asking._answers(Change("whole", layers=(3,))))
    return {path.name for path in folder.glob("*.json")}


def test_an_answer_is_kept_under_all_that_it_depends_on(ar: dlens.Model, tmp_path: Path) -> None:
    def turned(module: Any) -> None:
        weight = module.model.layers[0].mlp.up_proj.weight
        weight.data = weight.data.flip(0).contiguous()

    def narrowed(module: Any) -> None:
        module.to(torch.bfloat16)

    def steeper(module: Any) -> None:
        module.model.norm.variance_epsilon = 0.1

    found = [asked(ar, task, tmp_path / str(i)) for i, task in enumerate([Held(), Held(" 5"), Lenient(), Longer()])]
    for edit in (turned, narrowed, steeper):
        model = replace(ar, module=fresh(ar.module), memo={})
        found.append(asked(model, Held(), tmp_path / edit.__name__) if edit(model.module) is None else set())
    assert all(len(names) == 1 for names in found) and len(set.union(*found)) == len(found)
    assert asked(replace(ar, module=fresh(ar.module), memo={}), Held(), tmp_path / "again") == found[0]


def parts_of(model: dlens.Model, cache: Any) -> dict[str, str]:
    """What each part is kept under."""
    settings = replace(SMALL, cache=cache)
    asking = Asking(dlens.trace(model), tasks.get("trio-code"), settings, Store(), tqdm(disable=True))
    change = Change("apart", layers=(1,))
    asked = [asking._answers(change), asking._disruption(change), *asking._compressed().values()]
    asked += [asking._losses(change), asking._thirds(change), asking._spectra()]
    return {str(i): json.dumps(question.asked) for i, question in enumerate(asked)}


def test_what_is_decoded_with_a_cache_is_kept_apart(ar: dlens.Model, diffusion: dlens.Model) -> None:
    model = shallow(diffusion, 3)
    found = [parts_of(model, cache) for cache in ("auto", Dual(), Delayed(4), Delayed(8))]
    n_decoded = len(found[0]) - 3
    n_kinds = [len({own[name] for own in found}) for name in found[0]]
    assert n_kinds == [4] * n_decoded + [1] * 3, "losses, thirds and spectra are asked without"
    target = dlens.trace(ar).target
    assert [replace(SMALL, cache=cache).cache_of(target) for cache in (Dual(), "off")] == ["auto", "off"]
