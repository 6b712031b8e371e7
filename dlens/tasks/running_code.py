"""Runs a program that a model wrote in a process of its own, with limits. This is no security sandbox."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

__all__ = ["passes", "require_permission"]

SECONDS = 10
MEMORY = 2**30
LARGEST_FILE = 2**20
# Wall-clock time for each second of processor time: a program that waits uses none, and others may share the machine.
PATIENCE = 3

# A program may end itself with 0 before its tests ran.
_PASSED = 97
_LIMITED = """
import os, resource, sys
seconds, memory, largest_file, passed = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
with open("program.py", encoding="utf-8", newline="") as file:
    program = compile(file.read(), "program.py", "exec", dont_inherit=True)
exec(program, {"__name__": "program"})
os._exit(passed)
"""


def passes(program: str, seconds: int = SECONDS) -> bool:
    """Whether a Python program runs to its end without an error.

    It runs in a process of its own: the standard library alone, an empty folder as working
    directory, an empty environment, nothing to read, output thrown away, 1 GiB of memory, files of
    at most 1 MiB. What it leaves running in its process group is killed.

    This is no security sandbox: the program can read and delete what the user can, and use the
    network. It guards against accidents alone; run untrusted models in a container or a virtual machine.

    Args:
        program: source text with its tests.
        seconds: of processor time, and a third of the time that it may take in all. The published scorers stop
            after 3 s; a reference solution of MBPP takes 2.

    Examples:
        >>> passes("assert sum([1, 2]) == 3"), passes("assert sum([1, 2]) == 4"), passes("exit()")
        (True, False, False)
    """
    with tempfile.TemporaryDirectory(prefix="dlens-", ignore_cleanup_errors=True) as folder:
        Path(folder, "program.py").write_text(program, encoding="utf-8", errors="replace", newline="")
        nothing = subprocess.DEVNULL
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _LIMITED, *map(str, (seconds, MEMORY, LARGEST_FILE, _PASSED))],
            cwd=folder,
            env={},
            stdin=nothing,
            stdout=nothing,
            stderr=nothing,
            start_new_session=True,
        )
        try:
            return process.wait(timeout=PATIENCE * seconds) == _PASSED
        except subprocess.TimeoutExpired:
            return False
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def require_permission(name: str, allowed: bool) -> None:
    """Refuse a task that runs a model's programs, unless the user said that it may and the limits work.

    Raises:
        ValueError: the user did not.
        OSError: this system does not take the limits.
    """
    if not allowed:
        raise ValueError(
            f"{name} runs programs that the model writes, with your rights and no security sandbox, and allow_code is "
            f"not set; expected a clear yes; pass allow_code=True, or --allow-code, if you accept this"
        )
    if not _limits_work():
        raise OSError(
            f"a program that does nothing does not run under limits with {sys.executable} on {sys.platform}; expected "
            f"a system with POSIX resource limits; use Linux, or a container"
        )


@cache
def _limits_work() -> bool:
    return os.name == "posix" and passes("pass")
