"""What a program is kept from, and that nothing of it stays."""

import os
import socket
import sys
import tempfile
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


# Each ends, or tries to send what its channel expects, before its checks ran; none knows what to send.
SEND = "\n    for fd in range(3, 12):\n        try: os.write(fd, found)\n        except OSError: pass\nos._exit(0)"
WALK = """import os
try:
    1 / 0
except ZeroDivisionError as error:
    frame = error.__traceback__.tb_frame
every = []
while frame:
    every += [*frame.f_locals.values(), *frame.f_globals.values(), *frame.f_code.co_consts]
    frame = frame.f_back
for found in [value for value in every if isinstance(value, bytes)] or [b"x" * 32]:"""
READ = """import os
every = []
for fd in range(3, 12):
    try:
        every.append(os.read(fd, 64))
    except OSError:
        pass
for found in every:"""
AGAIN = """import os, sys
main = sys.modules["__main__"]
main._checked = lambda channel: b""
main.run(*map(int, sys.argv[2:]))"""
FAKES = {
    "exit": "import os\nos._exit(97)",
    "SystemExit": "raise SystemExit(97)",
    "exit handler": "import atexit, os\natexit.register(os._exit, 97)\nraise SystemExit",
    "finaliser": "import os\nclass A:\n    def __del__(self): os._exit(97)\nA()",
    "thread": "import os, threading, time\nthreading.Thread(target=os._exit, args=(97,)).start()\ntime.sleep(9)",
    "signal": "import os, signal\nsignal.signal(15, lambda *_: os._exit(97))\nos.kill(os.getpid(), 15)",
    "exception hook": "import os, sys\nsys.excepthook = lambda *_: os._exit(97)\n1 / 0",
    "another program": "import os\nos.execv('/bin/sh', ['sh', '-c', 'exit 97'])",
    "fork": "import os\nif os.fork():\n    os._exit(97)\nos._exit(97)",
    "frames": WALK + SEND,
    "channel": READ + SEND,
    "the run again": AGAIN,
    "no checks": "import builtins\nbuiltins.exec = lambda *_: None\ndef f(x): return 0",
    "open text": "x = '''",
    "keeper ended": "import os\nos.kill(os.getppid(), 9)",
}


@pytest.mark.parametrize("case", FAKES)
def test_a_pass_is_not_faked(case: str) -> None:
    assert not passes(FAKES[case], seconds=2, checks="assert f(1) == 2\nx = ''''''")


def test_checks_run_after_the_program_with_its_names() -> None:
    assert passes("def f(x): return x + 1\\", checks="assert f(1) == 2")
    assert not passes("def f(x): return x", checks="assert f(1) == 2")
    assert passes("x = 1", checks="assert x == 1, '\ud800'")


def test_what_leaves_the_process_group_is_ended(tmp_path: Path) -> None:
    note = tmp_path / "pids"
    program = f"""
import os, time
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            with open({str(note)!r}, "a") as file:
                file.write(f"{{os.getpid()}}\\n")
            time.sleep(60)
        os._exit(0)
while not os.path.exists({str(note)!r}) or open({str(note)!r}).read().count("\\n") < 3:
    time.sleep(0.01)
"""
    assert passes(program)
    pids = [int(line) for line in note.read_text().split()]
    assert len(pids) == 3 and all(map(ended, pids))


def test_a_program_ends_with_the_process_that_asked(tmp_path: Path) -> None:
    folder, note = tmp_path / "program", tmp_path / "pid"
    folder.mkdir()
    program = f"import os, time\nopen({str(note)!r}, 'w').write(f'{{os.getpid()}}.')\ntime.sleep(60)"
    (folder / "program.py").write_text(program)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = running_code._start(str(folder), theirs.fileno(), 10)
        ours.sendall(b"x" * 32)
        ours.shutdown(socket.SHUT_WR)
        while not (note.exists() and note.read_text().endswith(".")):
            time.sleep(0.01)
        # As the system does when a process is killed.
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(20) == 0
    assert ended(int(note.read_text()[:-1])) and not folder.exists()


@pytest.mark.parametrize(
    "program",
    [
        "import os\nfor _ in range(1200):\n    os.mkdir('d')\n    os.chdir('d')",
        "import os\nos.makedirs('a/b/c')\nfor path in ('a/b/c', 'a/b', 'a', '.'):\n    os.chmod(path, 0)",
        "import os, shutil\nshutil.rmtree(os.getcwd())",
    ],
)
def test_a_program_leaves_no_folder(program: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert passes(program)
    assert not list(tmp_path.iterdir())


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


def test_a_dataclass_with_annotations_as_text_passes() -> None:
    program = """
from __future__ import annotations
from dataclasses import dataclass
@dataclass
class Point:
    x: int
"""
    assert passes(program, checks="assert Point(3).x == 3")
