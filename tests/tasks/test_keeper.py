"""The keeper ends what a program started and removes its folder, whatever the program did to it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dlens.tasks import keeper
from dlens.tasks.keeper import remove


def test_a_folder_of_any_depth_is_removed(tmp_path: Path) -> None:
    program = (
        "import os\nfor _ in range(40):\n    os.mkdir('d' * 200)\n    os.chdir('d' * 200)\n    open('f', 'w').close()"
    )
    (tmp_path / "deep").mkdir()
    subprocess.run([sys.executable, "-S", "-c", program], cwd=tmp_path / "deep", check=True)
    remove(str(tmp_path / "deep"))
    assert not list(tmp_path.iterdir())


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o750)
    (outside / "mine").touch()
    inside = tmp_path / "inside"
    (inside / "a" / "b").mkdir(parents=True)
    for folder in (inside, inside / "a", inside / "a" / "b"):
        (folder / "link").symlink_to(outside)
        (folder / "loop").symlink_to(folder)
    os.mkfifo(inside / "a" / "pipe")
    (inside / "a").chmod(0)
    remove(str(inside))
    assert list(tmp_path.iterdir()) == [outside] and (outside / "mine").exists()
    assert outside.stat().st_mode & 0o777 == 0o750


def test_what_is_gone_is_no_error(tmp_path: Path) -> None:
    remove(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("code", "refused"),
    [
        *[("import gc\ngc.get_referents([])", True), ("import gc\ngc.get_objects()", True)],
        *[("import sys\nsys.settrace(None)", True), ("import ctypes", True), ("open('/proc/self/mem', 'rb')", True)],
        *[("import os\nos.open(b'/proc/self/mem', 0)", True), ("import os\nos.symlink('/proc/self/mem', 'x')", True)],
        *[("import gc\ngc.collect()", False), ("import asyncio, dataclasses, unittest, typing", False)],
    ],
)
def test_what_looks_into_the_interpreter_is_refused(code: str, refused: bool) -> None:
    start = f"import runpy\nrunpy.run_path({keeper.__file__!r})['_guard']()\n"
    run = subprocess.run([sys.executable, "-I", "-S", "-c", start + code], capture_output=True, text=True)
    assert ("is refused" in run.stderr, run.returncode) == (refused, int(refused))
