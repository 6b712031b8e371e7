"""Runs a program that a model wrote in a process of its own, with limits. This is no security sandbox."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from dlens.checks import as_flag
from dlens.tasks import keeper

__all__ = ["passes", "require_permission"]

SECONDS = 10
MEMORY = 2**30
LARGEST_FILE = 2**20
# Wall-clock time for each second of processor time: a program that waits uses none, and others may share the machine.
PATIENCE = 3
# How long the keeper may take to end what a program started and to remove its files.
_SECONDS_TO_TIDY = 60


def passes(program: str, seconds: int = SECONDS, checks: str = "") -> bool:
    """Whether a Python program and the checks after it run to their end without an error.

    It runs in a process of its own: the standard library alone, an empty folder as working
    directory, an empty environment, nothing to read, output thrown away, 1 GiB of memory, files of
    at most 1 MiB. When it ends, or this process does, what it started is killed (on Linux also what left its process
    group) and its folder is removed.

    However a program ends before its last check is over (an exit with any code, a signal, an exit handler), it
    does not pass. As with the published scorers, it shares one process with its checks: it may answer them with
    objects that equal everything, or change the built-in functions that they call.

    This is no security sandbox: the program can read and delete what the user can, and use the
    network; one that attacks its own interpreter or dlens on purpose can also pass. It guards against accidents and
    shortcuts alone; run untrusted models in a container or a virtual machine.

    Args:
        program: source text, its tests too where they are one text.
        seconds: of processor time, and a third of the time that it may take in all. The published scorers stop
            after 3 s; a reference solution of MBPP takes 2.
        checks: source text that runs after the program, with its names; nothing in the program can make it a comment
            or a part of a text.

    Examples:
        >>> passes("assert sum([1, 2]) == 3"), passes("assert sum([1, 2]) == 4"), passes("exit()")
        (True, False, False)
        >>> passes("def f(x): return x + 1", checks="assert f(1) == 2")
        True
    """
    folder = tempfile.mkdtemp(prefix="dlens-")
    try:
        Path(folder, keeper.PROGRAM).write_text(program, encoding="utf-8", errors="replace", newline="")
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                process = _start(folder, theirs.fileno(), seconds)
            nonce = secrets.token_bytes(keeper.NONCE)
            return _over(process, ours, nonce + checks.encode(errors="replace"), PATIENCE * seconds) == nonce
    finally:
        # The keeper removed it, unless the program ended the keeper.
        keeper.remove(folder)


def _start(folder: str, channel: int, seconds: int) -> subprocess.Popen[bytes]:
    limits = (seconds, MEMORY, LARGEST_FILE)
    return subprocess.Popen(
        [sys.executable, "-I", "-S", keeper.__file__, "keep", folder, str(channel), *map(str, limits)],
        cwd=folder,
        env={},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[channel],
        start_new_session=True,
    )


def _over(process: subprocess.Popen[bytes], channel: socket.socket, sent: bytes, seconds: float) -> bytes:
    """What came back over the channel when all is over; nothing where time ran out."""
    in_time = True
    try:
        channel.settimeout(seconds)
        # A program that does not compile may end before it was sent all.
        with suppress(OSError):
            channel.sendall(sent)
            channel.shutdown(socket.SHUT_WR)
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        in_time = False
    finally:
        _end(process)
    channel.setblocking(False)
    with suppress(OSError):
        return channel.recv(2 * len(sent)) if in_time else b""
    return b""


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let the keeper end everything: its input ends."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(_SECONDS_TO_TIDY)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def require_permission(name: str, allowed: bool) -> None:
    """Refuse a task that runs a model's programs, unless the user said that it may and the limits work.

    Raises:
        ValueError: the user did not, or said something that is neither yes nor no.
        OSError: this system does not take the limits.
    """
    if not as_flag(allowed, "allow_code"):
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
