"""Keeps a program that a model wrote: runs it under limits, ends all that it started, removes its folder. A script.

It imports the standard library alone, and two processes run it. The keeper waits for the program and outlives it; the
program has a process to itself. The keeper ends both when the program is over, when its input ends (so also when the
process that asked was killed), and says nothing. That a program passed is told by the program's process alone, over
a channel: it sends back what it was sent, which it can only do once the last check is over.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import types
from collections.abc import Iterator
from contextlib import suppress

__all__ = ["NONCE", "PROGRAM", "keep", "remove", "run"]

NONCE = 32
"""Bytes that are sent back."""
PROGRAM = "program.py"
# Of one user, where the user is not root: a program that starts others without end leaves room for the rest.
_PROCESSES = 4096
# Killing may race with a program that starts processes as fast as it can.
_SECONDS_TO_END = 10
# From prctl(2): the program ends with its keeper; what loses its parent becomes a child of the keeper.
_PARENT_DEATH_SIGNAL, _CHILD_SUBREAPER = 1, 36
# By these a program could read the values of frames that still run, or jump over its checks.
_REFUSED = ("gc.get_objects", "gc.get_referents", "gc.get_referrers", "sys.setprofile", "sys.settrace")
_NATIVE = ("ctypes", "_ctypes", "_testcapi", "_testinternalcapi")


def keep(folder: str, channel: str, *limits: str) -> None:
    """Run the program of a folder until it or the input ends, then end what it started and remove the folder."""
    _prctl(_CHILD_SUBREAPER, 1)
    program = os.fork()
    if program == 0:
        _prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.execv(sys.executable, [sys.executable, "-I", "-S", __file__, "run", channel, *limits])
    os.close(int(channel))
    threading.Thread(target=_end_with_input, args=(program,), daemon=True).start()
    os.waitpid(program, 0)
    _end_all(program)
    os.chdir("/")
    remove(folder)


def _prctl(option: int, value: int) -> None:
    """Tell Linux how a process ends; other systems have no such call."""
    import ctypes

    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _end_with_input(program: int) -> None:
    os.read(0, 1)
    with suppress(ProcessLookupError):
        os.kill(program, signal.SIGKILL)


def _end_all(program: int) -> None:
    """Kill the program's process group, then what was handed down to the keeper, until nothing is left."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(program, signal.SIGKILL)
    end = time.monotonic() + _SECONDS_TO_END
    # Without children waiting is an error.
    with suppress(ChildProcessError):
        while time.monotonic() < end:
            if os.waitpid(-1, os.WNOHANG) != (0, 0):
                continue
            for child in _children():
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(child, signal.SIGKILL)
            time.sleep(0.001)


def _children() -> Iterator[int]:
    """The processes whose parent is this one, where the system lists them."""
    with suppress(OSError):
        for name in os.listdir("/proc"):
            with suppress(OSError, ValueError):
                with open(f"/proc/{int(name)}/stat", "rb") as file:
                    parent = file.read().rpartition(b") ")[2].split()[1]
                if int(parent) == os.getpid():
                    yield int(name)


def remove(folder: str) -> None:
    """Remove a folder, however deep, and whatever its permissions are; what the system does not let go stays."""
    number, name = 0, os.urandom(8).hex()
    while inner := [path for path, is_folder in _entries(folder) if is_folder]:
        for path in inner:
            # A deep folder has too long a name, so what is two levels down moves up.
            for below, is_folder in _entries(path):
                with suppress(OSError):
                    if is_folder:
                        number += 1
                        os.chmod(below, 0o700)
                        os.rename(below, os.path.join(folder, f"{name}.{number}"))
                    else:
                        os.unlink(below)
            try:
                os.rmdir(path)
            except OSError:
                return
    for path, _ in _entries(folder):
        with suppress(OSError):
            os.unlink(path)
    with suppress(OSError):
        os.rmdir(folder)


def _entries(folder: str) -> list[tuple[str, bool]]:
    with suppress(OSError):
        os.chmod(folder, 0o700)
        with os.scandir(folder) as entries:
            return [(entry.path, entry.is_dir(follow_symlinks=False)) for entry in entries]
    return []


def run(channel: int, seconds: int, memory: int, largest_file: int) -> None:
    """Run the program in this process, and after it the checks that the channel holds; then send the nonce back.

    While the program runs, the nonce is in no variable, argument, file or attribute: it waits on the interpreter's
    stack for the end of the line. So only a program whose checks are over sends it, however else it ends.
    """
    import resource

    for limit, value in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, largest_file),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, _PROCESSES),
    ):
        _, most = resource.getrlimit(limit)
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(limit, (value, value))
    os.write(channel, os.read(channel, NONCE) + _checked(channel))
    os._exit(0)


def _checked(channel: int) -> bytes:
    """Nothing, once the program and its checks are over without an error."""
    with open(PROGRAM, encoding="utf-8", newline="") as file:
        # A backslash at the end continues with the empty line.
        program = compile(file.read() + "\n\n", PROGRAM, "exec", dont_inherit=True)
    with os.fdopen(os.dup(channel), "rb") as received:
        checks = compile(received.read(), "checks.py", "exec", dont_inherit=True)
    # Dataclasses look for the module that a class says it is of.
    module = sys.modules["program"] = types.ModuleType("program")
    names = vars(module)
    _guard()
    # The checks and what runs them are on the stack before the program begins, which then cannot put others there.
    exec(checks, names, exec(program, names))
    return b""


def _guard() -> None:
    """From now on refuse what looks into the interpreter. A hook cannot be taken out, nor reached by name."""

    def refuse(event: str, given: tuple[object, ...]) -> None:
        native = event.startswith("ctypes.") or event == "import" and given[0] in _NATIVE
        memory = event in ("open", "os.symlink") and f"{given[0]!s}".rstrip("'").endswith("/mem")
        if event in _REFUSED or native or memory:
            raise RuntimeError(f"{event} is refused")

    sys.addaudithook(refuse)


if __name__ == "__main__":
    if sys.argv[1] == "keep":
        keep(*sys.argv[2:])
    else:
        run(*map(int, sys.argv[2:]))
