"""Read the arguments of a command line with tyro: what they ask for comes back uncalled, a mistake is one line."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from difflib import get_close_matches
from functools import partial, wraps
from itertools import groupby
from typing import Any

__all__ = ["asked"]


def asked(commands: Sequence[Callable[..., None]], arguments: Sequence[str]) -> Callable[[], None]:
    """The command that the arguments ask for, not yet run.

    Args:
        commands: functions; their signatures and docstrings say what they take.
        arguments: as they came.

    Raises:
        ValueError: they ask for none.
        SystemExit: they ask for help, which was printed.
    """
    import tyro

    named = {each.__name__: _later(each) for each in commands}
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return tyro.extras.subcommand_cli_from_dict(
                named,
                prog="dlens",
                description="Trace, change and measure diffusion and autoregressive language models. "
                "`dlens --version` prints the version.",
                args=arguments,
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone),
            )
    except SystemExit as stopped:
        if not stopped.code:
            raise
        command = arguments[0] if arguments and arguments[0] in named else ""
        raise ValueError(_in_parts(_unboxed(said.getvalue()), f"dlens {command}".rstrip(), list(named))) from None


def _later(command: Callable[..., None]) -> Callable[..., Callable[[], None]]:
    """The same arguments, for a call that waits until all of them were read."""

    @wraps(command)
    def bound(*args: Any, **kwargs: Any) -> Callable[[], None]:
        return partial(command, *args, **kwargs)

    return bound


def _in_parts(said: str, command: str, commands: Sequence[str]) -> str:
    """What the argument parser says as what came; what was expected; the usual fix. What it has not said yet stays.

    Examples:
        >>> _in_parts("Missing value for argument '--seed'. Expected 1 values", "dlens skip", ["skip"])
        '--seed without a value; expected one after it; see dlens skip --help'
    """
    fix = f"see {command} --help"
    if found := _NO_NUMBER.match(said):
        kind = "a number" if "float" in said.lower() else "a whole number"
        return f"{found['option']} {found['came']}; expected {kind}; {fix}"
    if found := _NO_CHOICE.match(said):
        choices = [each for each in _QUOTED.findall(found["choices"]) if each != "None"]
        return f"{found['option']} {found['came']!r}; expected one of {', '.join(sorted(choices))}; {fix}"
    if found := _NO_VALUE.match(said):
        return f"{found['option']} without a value; expected one after it; {fix}"
    if found := _LACKS.match(said):
        lacking = found["what"].replace(". (required)", ",")
        return f"{command} without {lacking}; expected a value for it; {fix}"
    if said.startswith("Expected one of {"):
        return f"no command; expected one of {', '.join(commands)}; {fix}"
    if found := _UNKNOWN.match(said):
        what = found["what"]
        if command == "dlens":
            known = f"expected one of {', '.join(commands)}"
            return f"Unrecognized options: {what}; {known}; {_respelt(what.split(',')[0], commands)}{fix}"
        near = _OPTION.findall(found["near"] or "")
        return f"Unrecognized options: {what}; expected those that it takes; {_respelt(what, near)}{fix}"
    return said


def _respelt(came: str, known: Sequence[str]) -> str:
    """The fix of a misspelt word, before another one; empty where it resembles none."""
    # `dlens.axes.respell` does the same, and loads torch.
    close = get_close_matches(came.split(",")[0], known, n=1, cutoff=0.8)
    return f"did you mean {close[0]!r}? " if close else ""


# How the argument parser names a mistake.
_NO_NUMBER = re.compile(r"""Error parsing (?P<option>[^:]+): .*(int\(\)|float).*: (?P<came>'[^']*'|"[^"]*")(;|$)""")
_NO_CHOICE = re.compile(
    r"invalid choice '(?P<came>.*)' for argument '(?P<option>\S+)'\. Expected one of (?P<choices>.*)"
)
_NO_VALUE = re.compile(r"Missing value for argument '(?P<option>[^']+)'")
_LACKS = re.compile(r"Missing from [^:]+: (?P<what>.*?)\.?(?: \(required\))?(?:; see .*)?$")
_UNKNOWN = re.compile(
    r"Unrecognized options: (?P<what>.*?)(?:; Perhaps you meant: (?P<near>.*?))?(?: in dlens.*|; .*)?$"
)
_OPTION = re.compile(r"--[a-z-]+")
_QUOTED = re.compile(r"'([^']*)'")


def _unboxed(message: str) -> str:
    """What the argument parser says in a box of several lines, on one.

    Examples:
        >>> _unboxed("╭─ Title ─╮\\n│ No such │\\n│ option. │\\n│ ─────── │\\n│ For full helptext, run dlens --help │")
        'No such option; see dlens --help'
    """
    lines = [line.strip() for line in _COLOUR.sub("", message).splitlines()]
    framed = [line[1:-1].strip() for line in lines if line[:1] in ("│", "|")]
    parts = [list(part) for rule, part in groupby(framed or lines, lambda line: set(line) <= {"─", "-"}) if not rule]
    # Where the output has no letters for a frame, the title is a part like any other.
    parts = parts if framed else parts[1:]
    said = [" ".join(part).rstrip(".") for part in parts if not part[0].startswith(("For full", "Argument help"))]
    more = [f"see {found[0]}" for part in parts if (found := _HELP.search(" ".join(part)))]
    return "; ".join(said + more) or message


# How the argument parser colours, and where it says what to read.
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_HELP = re.compile(r"\bdlens (?:[a-z]+ )?--help")
