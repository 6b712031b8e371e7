"""A file is replaced whole or not at all, whatever happens while it is written."""

from __future__ import annotations

import os
import platform
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dlens import files
from dlens.files import alone, check_file, check_folder, remove_leftovers, unfinished, write_text, written
from tests.refusing import assert_three_parts


@contextmanager
def full_disk(left: int) -> Iterator[None]:
    """No file grows over `left` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (left, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_has_the_new_text_when_all_of_it_is_written(tmp_path: Path) -> None:
    place = tmp_path / "new" / "page.html"
    assert write_text(place, "é") == place and place.read_bytes() == "é".encode()
    place.chmod(0o640)
    with written(place) as beside:
        beside.write_text("two")
        assert place.read_text(encoding="utf-8") == "é" and beside.parent == place.parent
    assert place.read_text() == "two" and names(place.parent) == ["page.html"]
    assert stat.S_IMODE(place.stat().st_mode) == 0o640


def test_what_fails_leaves_the_older_file_and_nothing_else(tmp_path: Path) -> None:
    place = write_text(tmp_path / "page.html", "older")
    with pytest.raises(UnicodeEncodeError):
        write_text(place, "x" * 100_000 + "\ud800")
    with pytest.raises(KeyboardInterrupt), written(place) as beside:
        beside.write_text("half")
        raise KeyboardInterrupt
    with full_disk(1000), pytest.raises(OSError, match="File too large") as caught:
        write_text(place, "x" * 2000)
    assert_three_parts(str(caught.value), f"{place} cannot be written")
    assert caught.value.errno == 27
    assert place.read_text() == "older" and names(tmp_path) == ["page.html"]


@pytest.mark.parametrize("place", ["folder", "file/page.html"])
def test_a_place_that_takes_no_file_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError) as caught:
        write_text(tmp_path / place, "text")
    assert_three_parts(str(caught.value), str(tmp_path / place))
    assert names(tmp_path) == ["file", "folder"] and (tmp_path / "file").read_text() == "mine"


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "there" / "numbers.json")
    for text in ("one", "two"):
        write_text(link, text)
        assert link.is_symlink() and (tmp_path / "there" / "numbers.json").read_text() == text
    assert names(tmp_path / "there") == ["numbers.json"] and names(tmp_path) == ["link.json", "there"]


def test_a_device_takes_what_comes() -> None:
    write_text(os.devnull, "text")
    assert not Path(os.devnull).is_file()


# Of the standard library alone, so a process that writes until it is killed starts at once.
WRITES = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("files", {files.__file__!r})
files = importlib.util.module_from_spec(spec)
spec.loader.exec_module(files)
n = 0
while True:
    n += 1
    files.write_text(sys.argv[1], str(n) * 100_000)
    print(n, flush=True)
"""


def test_a_killed_process_leaves_a_whole_file_and_what_it_left_goes(tmp_path: Path) -> None:
    place = tmp_path / "numbers.txt"
    for last in (1, 3, 6, 10):
        process = subprocess.Popen([sys.executable, "-c", WRITES, str(place)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(last):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        done = [last, *map(int, process.communicate()[0].split())][-1]
        text = place.read_text()
        assert text in (str(done) * 100_000, str(done + 1) * 100_000)
    write_text(place, "end")
    assert names(tmp_path) == ["numbers.txt"]


def test_leftovers_are_known_by_their_names(tmp_path: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    own = unfinished(tmp_path / "page.html")
    left = own.with_name(own.name.replace(f"-{os.getpid()}-", f"-{dead.stdout.strip()}-"))
    folder = left.with_name(left.name.replace("page", "record"))
    elsewhere = own.with_name(own.name.replace(platform.node(), "another-host"))
    long_ago = elsewhere.with_name(elsewhere.name.replace("page", "old"))
    others = [tmp_path / ".page.html.unfinished", tmp_path / "page.unfinished"]
    for path in (own, left, elsewhere, long_ago, *others):
        path.touch()
    os.utime(long_ago, (0, 0))
    folder.mkdir()
    (folder / "tensors").touch()
    remove_leftovers(tmp_path)
    assert set(tmp_path.iterdir()) == {own, elsewhere, *others}


def test_files_are_checked_before_they_are_made(tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "file").touch()
    assert check_file(tmp_path / "new" / "x.json", ".json", ".html") == tmp_path / "new" / "x.json"
    assert names(tmp_path / "new") == []
    with pytest.raises(ValueError) as wrong:
        check_file(tmp_path / "x.txt", ".json", ".html")
    assert_three_parts(str(wrong.value), "x.txt")
    for path in (tmp_path / "folder.json", tmp_path / "file" / "x.json", Path("/proc/x.json")):
        with pytest.raises(PermissionError) as caught:
            check_file(path, ".json")
        assert_three_parts(str(caught.value), str(path))


def test_folders_are_checked_and_not_made(tmp_path: Path) -> None:
    check_folder(tmp_path)
    check_folder(tmp_path / "new")
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert names(tmp_path) == ["file", "link"]
    for path in (tmp_path / "file", tmp_path / "link", Path("/proc")):
        with pytest.raises(PermissionError) as caught:
            check_folder(path)
        assert_three_parts(str(caught.value), str(path))


def test_a_folder_is_held_by_one(tmp_path: Path) -> None:
    with alone(tmp_path):
        with pytest.raises(BlockingIOError) as caught, alone(tmp_path):
            pass
        assert_three_parts(str(caught.value), f"{tmp_path} is written to by another run")
    with alone(tmp_path):
        pass
