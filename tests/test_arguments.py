"""Arguments of a command line: read before anything runs, and mistakes on one line."""

import pytest

from dlens.arguments import _unboxed, asked

RAN: list[tuple[str, int]] = []


def greet(name: str, /, *, times: int = 1) -> None:
    """Greet somebody.

    Args:
        name: whom.
        times: how often.
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
        (["great"], "Unrecognized options: great; Available subcommands: greet, leave; see dlens --help"),
        (
            ["greet", "Ada", "--tines", "2"],
            "Unrecognized options: --tines, 2; Perhaps you meant: --times INT how often",
        ),
        (["greet"], "Missing from dlens greet: STR whom. (required); see dlens greet --help"),
        (["greet", "Ada", "--times", "x"], "Error parsing --times: invalid literal for int() with base 10: 'x'"),
        ([], "Expected one of {greet, leave}; see dlens --help"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        asked([greet, leave], arguments)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


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
