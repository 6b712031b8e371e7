"""The command line: what `dlens` was asked is read, called, and ends in one line where it cannot be done."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from dlens.arguments import asked
from dlens.commands.evaluate import evaluate
from dlens.commands.generate import generate
from dlens.commands.models import models
from dlens.commands.profile import profile
from dlens.commands.report import report
from dlens.commands.skip import skip
from dlens.commands.sweep import sweep
from dlens.errors import Cancelled, NeverFired

__all__ = ["main"]

# What a wrong argument, a missing file or a model that does not fit raises; anything else shows where it came from.
_USER_ERRORS = (ValueError, LookupError, OSError, MemoryError, ImportError, NeverFired, Cancelled)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a wrong argument ends it with one line on stderr and exit code 2."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given == ["--version"]:
        print(f"dlens {version('dlens')}")
        return
    for stream in (sys.stdout, sys.stderr):
        # What the encoding of a terminal lacks is spelt out, and does not end a run.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        commands = (models, generate, profile, skip, report, sweep, evaluate)
        asked(commands, given)()
    except BrokenPipeError:
        # Who read the output has enough of it, as `| head` has; the exit must not write to it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except _USER_ERRORS as error:
        _stop(error)
    except KeyboardInterrupt:
        sys.exit(130)


def _stop(error: BaseException) -> None:
    from dlens.show.terminal import printable

    print(f"dlens: {printable(_one_line(error))}", file=sys.stderr)
    sys.exit(2)


def _one_line(error: BaseException) -> str:
    """The message without line breaks; str of a KeyError would quote it."""
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(message).split()) or type(error).__name__
