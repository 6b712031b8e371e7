"""Evaluates arithmetic in x that a model wrote, without running it."""

from __future__ import annotations

import ast
import operator
import re

__all__ = ["evaluate"]

LONGEST = 120
LARGEST = 10**6

# Whole words, as "0x10" is a number to the parser.
_WORDS = re.compile(r"(\b(x|[0-9]+)\b|[-+* ()])*")
_UNARY = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_BINARY = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}


def evaluate(expression: str, x: int) -> int:
    """The value of an expression of whole numbers, x, +, -, * and parentheses.

    The text is parsed and its tree is walked; nothing is compiled or called. Bounds on length and
    numbers keep the work small whatever the text is.

    Args:
        expression: one line of at most 120 characters, with numbers up to a million.
        x: the value of x.

    Raises:
        ValueError: the expression holds anything else.

    Examples:
        >>> evaluate("((x + 3) * 2)", 5), evaluate("-x", 4)
        (16, -4)
    """
    if len(expression) > LONGEST or not _WORDS.fullmatch(expression):
        raise _refusal(expression)
    try:
        return _value(ast.parse(expression.strip(" "), mode="eval").body, x)
    except (SyntaxError, ValueError) as error:
        raise _refusal(expression) from error


def _value(node: ast.expr, x: int) -> int:
    match node:
        case ast.Name(id="x"):
            return x
        case ast.Constant(value=int(number)) if number <= LARGEST:
            return number
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _UNARY[type(op)](_value(operand, x))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _BINARY[type(op)](_value(left, x), _value(right, x))
    raise ValueError(f"{type(node).__name__} in an expression")


def _refusal(expression: str) -> ValueError:
    return ValueError(
        f"the expression {expression[:LONGEST]!r}; expected at most {LONGEST} characters of whole numbers up to "
        f"{LARGEST}, x, +, -, * and parentheses; write for example '((x + 3) * 2)'"
    )
