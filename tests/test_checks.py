"""What every room asks of what users give: words, flags and numbers, and every flag of the public functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

import dlens
from dlens import checks, samplers, tasks, widgets
from dlens.checks import as_flag, finite, plain_fields, quoted, real, require_word, whole
from dlens.findings.scores import accuracy, decoding
from dlens.findings.study import asking
from dlens.measures import cosine_pairs
from dlens.tasks.formats import gsm8k, humaneval, mbpp
from dlens.workers import store
from tests.refusing import assert_three_parts
from tests.unchecked import unchecked

NO_FLAGS = ["no", "", 0, 1, None, [], np.array([True]), np.array([True, False]), torch.tensor(True)]


@pytest.mark.parametrize("value", NO_FLAGS, ids=str)
def test_a_flag_is_yes_or_no_and_nothing_else(value: Any) -> None:
    assert [as_flag(each, "fresh") for each in (True, False, np.True_, np.False_)] == [True, False] * 2
    with pytest.raises(ValueError) as caught:
        as_flag(value, "fresh")
    assert_three_parts(str(caught.value), f"fresh={quoted(value)}")


@pytest.mark.parametrize("value", ["erly", 3, None, ["early"], np.array(["early", "late"]), {}], ids=str)
def test_a_word_is_one_of_those_known(value: Any) -> None:
    require_word("steps", "early", ("early", "late"))
    with pytest.raises(
        ValueError, match="remasking='rand'; expected one of low_confidence, random; did you mean 'random'"
    ):
        require_word("remasking", "rand", ("low_confidence", "random"))
    with pytest.raises(ValueError, match="expected one of early, late; (check the spelling|did you mean 'early')"):
        require_word("steps", value, ("early", "late"))


def test_numbers_of_any_type_are_read_once() -> None:
    assert [whole(each) for each in (3, np.int8(3), np.array(3), torch.tensor(3))] == [3] * 4
    for none in (True, np.True_, torch.tensor(True), 3.0, "3", None, [3], np.array([3]), torch.tensor([3])):
        assert whole(none) is None
    assert [real(each) for each in (2, np.float32(2), np.array([2.0]), torch.tensor(2.0))] == [2.0] * 4
    for none in (True, np.True_, 2j, np.complex64(2), torch.tensor(2j), "2", None, [2], torch.ones(2), 10**400):
        assert real(none) is None
    assert real(float("inf")) == float("inf") and finite(float("inf")) is finite(float("nan")) is None


@dataclass(frozen=True)
class Held:
    number: Any
    flag: Any


def test_settings_hold_plain_values() -> None:
    held = Held(np.float64(0.5), np.True_)
    plain_fields(held)
    assert repr(held) == "Held(number=0.5, flag=True)"
    several = Held(np.ones(2), None)
    plain_fields(several)
    assert isinstance(several.number, np.ndarray)


def public() -> Iterator[tuple[str, Callable[..., Any]]]:
    """What users call, by name."""
    rooms = (dlens, samplers, tasks, checks, cosine_pairs, accuracy, decoding, asking, store, gsm8k, humaneval, mbpp)
    for room in (*rooms, widgets):
        for name in room.__all__:
            own = getattr(room, name)
            if inspect.isfunction(own) or inspect.isclass(own) and not issubclass(own, BaseException):
                yield name, own
            if own is dlens.Trace:
                methods = inspect.getmembers(own, inspect.isroutine)
                yield from ((f"{name}.{each}", way) for each, way in methods if not each.startswith("_"))


def flags() -> list[tuple[str, str, Callable[..., Any]]]:
    """Every argument of a public function that is yes or no; what dlens fills in by itself is left out."""
    internal = {"Model", "Visit", "Span", "Target"}
    found = {}
    for name, way in public():
        asked = {} if name in internal else inspect.signature(way).parameters
        found |= {(name, each.name): way for each in asked.values() if each.annotation in ("bool", bool)}
    return [(*key, way) for key, way in found.items()]


# What else a call needs to be one that would run.
ARGUMENTS: dict[str, Any] = {
    "self": lambda models: dlens.trace(models["diffusion"]),
    "trace": lambda models: dlens.trace(models["diffusion"]),
    "model": lambda models: models["diffusion"],
    "source": lambda models: models["diffusion"].module,
    "prompts": lambda models: "Once upon a time",
    "plan": lambda models: [3],
    "budget": lambda models: 1 / 16,
    "n": lambda models: 2,
    "task": lambda models: tasks.get("trio-code"),
    "tasks": lambda models: ["gsm8k:nowhere.jsonl"],
    "problems": lambda models: tasks.get("trio-code").problems(2),
    "name": lambda models: "trio-code",
    "path": lambda models: __file__,
    "format": lambda models: "mbpp",
    "entries": lambda models: {},
}


@pytest.mark.parametrize(("name", "flag", "way"), flags(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_public_flag_is_yes_or_no(
    name: str, flag: str, way: Callable[..., Any], diffusion: dlens.Model, tmp_path: Any
) -> None:
    parameters = inspect.signature(way).parameters.values()
    needed = [each.name for each in parameters if each.default is each.empty or each.name == "plan"]
    given = {each: ARGUMENTS[each]({"diffusion": diffusion}) if each in ARGUMENTS else 1 for each in needed}
    given |= {"out": tmp_path / "page.html"} if name == "report" else {}
    with unchecked(), pytest.raises(ValueError) as caught:
        way(**given | {flag: "no"})
    assert_three_parts(str(caught.value), f"{flag}='no'")


def test_the_flags_are_all_that_there_are() -> None:
    named = {name.partition(".")[0] for name, _, _ in flags()}
    assert {"load", "Trace", "report", "retention", "CKA", "CosinePairs", "LLaDA", "SkipPlanner", "Site"} <= named


def forms() -> dict[str, dict[str, Any]]:
    """Public settings, and for each of their fields what it does not take."""
    several, number, text = ("x", 3.5, None, [...]), (None, "x", [], {}), (None, 3, [], ...)
    plan = {"layers": several, "scores": several, "model": text, "rule": text, "notes": (3, None, [3])}
    return {
        "SkipPlan": plan,
        "SkipSchedule": {"levels": several, "layers": (3, None, ["x"]), "budget": number, "n_layers": number},
        "Pairs": {"clean": (3, None, [[None]]), "right": several, "at": several, "words": (3, None, [3])},
        "Family": {"name": text, "layout": (3, "x", []), "mask_token_id": ("x", 3.5, []), "inputs": (3, None)},
        "Layout": {"blocks": text, "sites": (3, "x", []), "attn_skip": (3, None), "reads": (3, [3])},
        "Site": {"path": text, "index": number, "part": number, "spelled": text},
        "Fill": {"path": text, "make": (3, None, "x")},
        "Structure": {"skips": (3, None, []), "runs": (3, "x"), "swaps": (3, None, "x")},
    }


PLAN: dict[str, Any] = {"scores": (), "losses": (), "model": "m", "notes": ()}
SETTINGS: dict[str, Callable[..., Any]] = {
    "SkipPlan": lambda **given: dlens.SkipPlan(**{"layers": (3,), "rule": "cosine", "order": (3,)} | PLAN | given),
    "SkipSchedule": lambda **given: dlens.SkipSchedule(
        **{"levels": (0.0, 1.0), "layers": ((3,),), "budget": 0.1, "n_layers": 4, "losses": (1.0,)}
        | {"whole_losses": (1.0,), "model": "m", "notes": ()}
        | given
    ),
    "Pairs": lambda **given: dlens.Pairs(
        **{"clean": ((5,),), "corrupted": ((6,),), "right": (1,), "wrong": (2,), "at": (0,), "words": ("a",)} | given
    ),
    "Family": lambda **given: dlens.Family(**{"name": "mine", "objective": "diffusion", "shift": 0} | given),
    "Layout": lambda **given: dlens.Layout(**{"blocks": "b", "embed": "e", "norm": "n", "head": "h"} | given),
    "Site": lambda **given: dlens.Site(**{"path": "p"} | given),
    "Fill": lambda **given: dlens.Fill(**{"path": "p", "make": max} | given),
    "Structure": dlens.Structure,
}
FIELDS = [(name, field, value) for name, held in forms().items() for field, values in held.items() for value in values]


@pytest.mark.parametrize(("name", "field", "value"), FIELDS, ids=str)
def test_settings_refuse_what_a_field_does_not_hold(name: str, field: str, value: Any) -> None:
    with unchecked():
        SETTINGS[name]()
        with pytest.raises(ValueError) as caught:
            SETTINGS[name](**{field: value})
    assert_three_parts(str(caught.value), f"{field}={quoted(value)}")


def test_numbers_of_any_type_are_numbers_of_a_field() -> None:
    with unchecked():
        plan = SETTINGS["SkipPlan"](layers=[np.int64(3)], scores=np.array([0.5, np.nan]))
    assert [*plan.layers] == [3] and np.isnan(plan.scores[1])
