"""What a program is kept from, and that nothing of it stays."""

import os
import sys
import time
from pathlib import Path

import pytest

from dlens.tasks import running_code
from dlens.tasks.running_code import passes, require_permission


def test_a_program_that_ends_passes() -> None:
    assert passes("import math\nassert math.gcd(4, 6) == 2")
    assert passes("from __future__ import annotations\nclass A:\n    def f(self) -> B: ...")
    assert passes("print('x' * 10**6)\nif __name__ == '__main__':\n    raise ValueError")


@pytest.mark.parametrize(
    "program",
    [
        *("1 / 0", "assert False", "x =", "input()", "exit()", "raise SystemExit(0)", "import os\nos._exit(0)", "\0"),
        *("import numpy", "import dlens", "import os\nos.kill(os.getpid(), 9)"),
        "def f(n):\n    return f(n + 1)\nf(0)",
    ],
)
def test_anything_else_does_not(program: str) -> None:
    assert not passes(program)


@pytest.mark.parametrize("program", ["while True:\n    pass", "import time\ntime.sleep(60)"])
def test_time_is_limited(program: str) -> None:
    start = time.monotonic()
    assert not passes(program, seconds=1)
    assert time.monotonic() - start < 20


def test_memory_and_files_are_limited() -> None:
    assert passes("x = bytearray(2**28)\nopen('small', 'w').write('x' * 2**16)")
    assert not passes("x = bytearray(2**31)")
    assert not passes("open('large', 'wb').write(b'x' * 2**22)")


def test_a_program_sees_neither_environment_nor_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECRET", "1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "helper.py").touch()
    assert passes("import os\nassert not set(os.environ) - {'LC_CTYPE'}\nassert os.listdir() == ['program.py']")
    assert not passes("import helper")
    assert passes("open('left', 'w').close()") and not (tmp_path / "left").exists()


def test_what_a_program_starts_is_ended(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    start = f"import subprocess\nchild = subprocess.Popen([{sys.executable!r}, '-c', 'import time; time.sleep(60)'])\n"
    for end in ("", "child.wait()"):
        passed = passes(f"{start}open({str(note)!r}, 'w').write(str(child.pid))\n{end}", seconds=1)
        assert passed == (end == "")
        assert ended(int(note.read_text()))


def ended(pid: int) -> bool:
    """Whether a process is gone, or dead and only not yet reaped; killing takes a moment."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        status = Path(f"/proc/{pid}/stat")
        if status.exists() and status.read_text().rpartition(") ")[2].startswith("Z"):
            return True
        time.sleep(0.05)
    return False


def test_where_limits_do_not_work_code_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    require_permission("humaneval:x", True)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    running_code._limits_work.cache_clear()
    try:
        with pytest.raises(OSError, match="does not run under limits with /bin/false .*; expected .*; use Linux"):
            require_permission("humaneval:x", True)
    finally:
        running_code._limits_work.cache_clear()
