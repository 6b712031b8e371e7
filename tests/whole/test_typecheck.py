"""Types and shapes are checked in every function and dataclass of dlens while tests run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float
from torch import Tensor

import dlens
from dlens.axes import hook_name, parse_point
from dlens.digest import function_digest
from tests.typecheck import checked
from tests.unchecked import unchecked

decorate = checked(typechecker=None)


def scaled(values: Float[Tensor, "batch d_model"], factors: Float[Tensor, " batch"]) -> Float[Tensor, "batch d_model"]:
    return values * factors[:, None]


def wrong_result(values: Float[Tensor, "batch d_model"]) -> Float[Tensor, "batch d_model"]:
    return values.T


def grown(number: float, /, *others: int, by: float = 1, **named: str) -> float:
    return number + by + len(others)


def nested(first: Any, second: Any) -> list[Any]:
    made: list[Any] = []
    for value in (first, second):

        @decorate
        def inner(given: int, own: Any = value) -> int:
            return own

        made.append(inner(1))
    return made


@dataclass(frozen=True)
class Held:
    size: int
    values: Float[Tensor, "batch d_model"]


@decorate
@dataclass(frozen=True)
class Checked(Held):
    other: Float[Tensor, "batch d_model"]


def test_shapes_hold_across_arguments_and_the_result() -> None:
    check = decorate(scaled)
    assert check(torch.ones(2, 3), torch.ones(2)).shape == (2, 3)
    assert check(torch.ones(4, 5), factors=torch.ones(4)).shape == (4, 5)
    for wrong in (torch.ones(3), torch.ones(2, 1), torch.ones(2).int(), None):
        with pytest.raises(BeartypeCallHintViolation):
            check(torch.ones(2, 3), wrong)
    assert decorate(wrong_result)(torch.ones(2, 2)).shape == (2, 2)
    with pytest.raises(BeartypeCallHintViolation):
        decorate(wrong_result)(torch.ones(2, 3))


def test_shapes_of_a_call_within_are_its_own() -> None:
    check = decorate(scaled)

    @decorate
    def outer(values: Float[Tensor, "batch d_model"]) -> Float[Tensor, "batch d_model"]:
        assert check(torch.ones(7, 5), torch.ones(7)).shape == (7, 5)
        return values

    assert outer(torch.ones(2, 3)).shape == (2, 3)


def test_an_int_is_a_float_and_nothing_else_is() -> None:
    check = decorate(grown)
    assert check(1, 2, 3, by=0.5, word="x") == 3.5
    wrong: list[Callable[[], Any]] = [
        lambda: check("1"),
        lambda: check(1, 2.5),
        lambda: check(1, by="1"),
        lambda: check(1, word=1),
    ]
    for call in wrong:
        with pytest.raises(BeartypeCallHintViolation):
            call()
    for call in (lambda: check(), lambda: check(number="1")):
        with pytest.raises(TypeError):
            call()


def test_each_function_within_one_is_checked_with_its_own_values() -> None:
    assert nested(1, 2) == [1, 2]
    with pytest.raises(BeartypeCallHintViolation):
        nested(1, "2")


def test_dataclasses_are_checked() -> None:
    assert Checked(1, torch.ones(2, 3), torch.ones(2, 3)).size == 1
    for other in (torch.ones(3, 2), torch.ones(2), 1):
        with pytest.raises(BeartypeCallHintViolation):
            Checked(1, torch.ones(2, 3), other)  # pyright: ignore
    with pytest.raises(BeartypeCallHintViolation):
        dlens.Recipe(method="rtn", bits="4")  # pyright: ignore


def test_all_of_dlens_is_checked_and_can_be_left_unchecked() -> None:
    wrong: Any = 3
    for function in (parse_point, hook_name, dlens.load_record):
        with pytest.raises(BeartypeCallHintViolation):
            function(wrong)
    with unchecked():
        assert decorate(grown)(1, 2.5) == 3  # pyright: ignore


def test_digests_look_through_it() -> None:
    check = decorate(grown)
    before = function_digest(check)
    check(1)
    assert function_digest(check) == before == function_digest(grown)
