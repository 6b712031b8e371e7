"""Arguments of a command line: read before anything runs, and mistakes on one line."""

from typing import Literal

import pytest

from dlens.arguments import _unboxed, asked
from tests.refusing import assert_three_parts

RAN: list[tuple[str, int]] = []


def greet(
    name: str,
    /,
    *,
    times: int = 1,
    often: int | None = None,
    loud: float | None = None,
    tone: Literal["low", "high"] | None = None,
) -> None:
    """Greet somebody.

    Args:
        name: whom.
        times: how often.
        often: the same.
        loud: how loud.
        tone: the tone.
    """
    RAN.append((name, times))


def leave() -> None:
    """Go."""


def test_what_is_asked_for_is_not_yet_run() -> None:
    RAN.clear()
    command = asked([greet, leave], ["greet", "Ada", "--times", "2"])
    assert RAN == []
    command()
    assert RAN == [("Ada", 2)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["great"],
            "Unrecognized options: great; expected one of greet, leave; did you mean 'greet'? see dlens --h",
        ),
        (["begin"], "Unrecognized options: begin; expected one of greet, leave; see dlens --help"),
        (
            ["greet", "Ada", "--tines", "2"],
            "Unrecognized options: --tines, 2; expected those that it takes; did you mean '--times'? see dlens greet",
        ),
        (["greet", "Ada", "too"], "Unrecognized options: too; expected those that it takes; see dlens greet --help"),
        (["greet"], "dlens greet without STR whom; expected a value for it; see dlens greet --help"),
        (["greet", "Ada", "--times", "x"], "--times 'x'; expected a whole number; see dlens greet --help"),
        (["greet", "Ada", "--times", "1.5"], "--times '1.5'; expected a whole number; see dlens greet --help"),
        (["greet", "Ada", "--often", "x"], "--often 'x'; expected a whole number; see dlens greet --help"),
        (["greet", "Ada", "--loud", "x"], "--loud 'x'; expected a number; see dlens greet --help"),
        (["greet", "Ada", "--loud", "it's"], '--loud "it\'s"; expected a number; see dlens greet --help'),
        (["greet", "Ada", "--tone", "x"], "--tone 'x'; expected one of high, low; see dlens greet --help"),
        (["greet", "Ada", "--times"], "--times without a value; expected one after it; see dlens greet --help"),
        ([], "no command; expected one of greet, leave; see dlens --help"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        asked([greet, leave], arguments)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
    assert_three_parts(str(caught.value), message.partition("; ")[0])


def test_boxes_of_any_letters_are_read() -> None:
    for side, rule in (("│", "─"), ("|", "-")):
        lines = [
            f"{side} {part:30} {side}"
            for part in ("No such", "option.", rule * 30, "For full helptext, see dlens --help")
        ]
        assert _unboxed("\n".join(["╭─ Title ─╮", *lines])) == "No such option; see dlens --help"
    assert _unboxed("Title\n-----\nNo such option.\n-----\nFor full helptext, run dlens skip --help") == (
        "No such option; see dlens skip --help"
    )
    assert _unboxed("something else") == "something else"
