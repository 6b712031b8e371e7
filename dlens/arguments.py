"""Read the arguments of a command line with tyro: what they ask for comes back uncalled, a mistake is one line."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
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
        raise ValueError(_unboxed(said.getvalue())) from None


def _later(command: Callable[..., None]) -> Callable[..., Callable[[], None]]:
    """The same arguments, for a call that waits until all of them were read."""

    @wraps(command)
    def bound(*args: Any, **kwargs: Any) -> Callable[[], None]:
        return partial(command, *args, **kwargs)

    return bound


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
