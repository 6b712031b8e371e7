"""The evaluator: right on what it takes, and it takes arithmetic in x alone."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlens.tasks.expression import LARGEST, LONGEST, evaluate

atoms = st.sampled_from(["x"]) | st.integers(0, 999).map(str)
expressions = st.recursive(
    atoms,
    lambda inner: (
        st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda parts: f"({parts[0]} {parts[1]} {parts[2]})")
        | inner.map(lambda text: f"-{text}")
        | inner.map(lambda text: f"+({text})")
    ),
    max_leaves=8,
).filter(lambda text: len(text) <= LONGEST)


@given(expressions, st.integers())
def test_it_agrees_with_python(expression: str, x: int) -> None:
    assert evaluate(expression, x) == eval(expression, {"__builtins__": {}}, {"x": x})


@pytest.mark.parametrize(
    "expression",
    [
        *("", " ", "()", "x +", "* x", "(x", "x)", "x x", "2x", "x2", "xx", "*x", "x, x", "y", "True", "None"),
        *("x ** 2", "9 ** 9 ** 9", "x / 2", "x // 2", "x % 2", "x << 2", "x | 1", "~x", "x @ x", "not x", "x < 2"),
        *("x(3)", "abs(x)", "x.real", "x.__class__", "x[0]", "[x]", "{x}", "lambda: x", "x if x else 1", "x := 3"),
        *("0x10", "0b1", "1_000", "1e3", "1.0", "1j", "'x'", "007", "x;x", "x # x", "x\n", "x\t", "\\", "x\0"),
        *("\N{ARABIC-INDIC DIGIT THREE}", "\N{FULLWIDTH LATIN SMALL LETTER X}", "\N{SUPERSCRIPT TWO}"),
        *(str(LARGEST + 1), "9" * LONGEST, "x" + " " * LONGEST, "-" * LONGEST + "x", "(" * LONGEST),
    ],
)
def test_anything_else_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match="expected at most 120 characters of whole numbers.*; write for example"):
        evaluate(expression, 3)


@given(st.text() | st.text(alphabet="x0123456789+-* ()") | st.text(alphabet="x_.()[]'\"\n#,:=abc12 "))
def test_any_text_is_a_number_or_refused(text: str) -> None:
    try:
        value = evaluate(text, 3)
    except ValueError as error:
        assert str(error).startswith("the expression ")
        return
    assert type(value) is int
    assert re.fullmatch(r"[x0-9+\-* ()]*", text) and "**" not in text


def test_bounds_are_reached() -> None:
    assert evaluate(str(LARGEST), 0) == LARGEST
    assert evaluate("(" * 59 + "x" + ")" * 59, 5) == 5
    assert evaluate("-" * (LONGEST - 1) + "x", 5) == -5
    assert evaluate("*".join(["x"] * 60), 10) == 10**60


def test_nothing_is_executed(tmp_path: Path) -> None:
    for text in (f"open({str(tmp_path / 'made')!r}, 'w')", "__import__('os').abort()", "exit()", "1 + exit()"):
        with pytest.raises(ValueError, match="; expected"):
            evaluate(text, 1)
    assert not list(tmp_path.iterdir())
