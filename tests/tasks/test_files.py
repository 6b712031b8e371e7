"""Benchmarks from files: what is read, how problems are drawn, and what is refused."""

import gzip
from pathlib import Path

import pytest

from dlens import tasks
from dlens.tasks.benchmark import Benchmark
from dlens.tasks.files import FORMATS

DATA = Path(__file__).parent / "data"


def held(format: str) -> Path:
    """A small file in a format; the sanitized MBPP is published as one list."""
    return DATA / (f"{format}.json" if format == "mbpp_sanitized" else f"{format}.jsonl")


def opened(format: str, path: Path | None = None) -> Benchmark:
    return tasks.from_file(path or held(format), format, allow_code=True)


@pytest.mark.parametrize("format", FORMATS)
def test_a_name_with_a_path_is_the_same_task(format: str) -> None:
    named = tasks.get(f"{format}:{held(format)}", allow_code=True)
    assert named.name == format and type(named) is type(opened(format))
    assert named.problems(2) == opened(format).problems(2)


@pytest.mark.parametrize("format", FORMATS)
def test_a_gzipped_file_is_the_same_task(format: str, tmp_path: Path) -> None:
    packed = tmp_path / "packed.jsonl.gz"
    packed.write_bytes(gzip.compress(held(format).read_bytes()))
    assert opened(format, packed).problems(2) == opened(format).problems(2)


@pytest.mark.parametrize("format", FORMATS)
def test_the_reference_answers_are_right_and_nothing_is_not(format: str) -> None:
    task = opened(format)
    for problem in task.problems(3):
        assert task.score(problem, problem.answer)
        assert not task.score(problem, "")


MATH = (DATA / "gsm8k.jsonl").read_bytes()
CODE = (DATA / "mbpp.jsonl").read_bytes()
MISFITS: dict[str, tuple[str, str, bytes]] = {
    "empty": ("is empty; expected one JSON object", "gsm8k", b"\n"),
    "no JSON": ("line 9: no JSON .*; expected one JSON object a line, or a list .*; give", "gsm8k", MATH + b"{"),
    "no list": ("file.jsonl: no JSON .*; expected one JSON object a line, or a list .*; give", "gsm8k", b"[{},\n"),
    "a list": ("entry 1: without a usable question, answer; expected an object", "gsm8k", b"[1]"),
    "not sanitized": ("line 1: without a usable prompt, test_imports; expected", "mbpp_sanitized", CODE),
    "another format": ("line 1: without a usable task_id, .*; expected an object", "humaneval", MATH),
    "another type": ("line 9: without a usable task_id; expected", "mbpp", CODE.replace(b"601", b'"601"')),
    "no mark": ("entry 8: an answer without '#### '; expected the result", "gsm8k", MATH.replace(b"#### 36", b"36")),
    "no text": ("cannot be read: .*; expected UTF-8", "gsm8k", b"\xff\xfe"),
    "no examples": ("shots=3 from .*; expected 0 to 1, .*; take fewer", "mbpp", CODE.splitlines()[1]),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_file_that_does_not_fit(case: str, tmp_path: Path) -> None:
    message, format, content = MISFITS[case]
    path = tmp_path / "file.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        opened(format, path)


def test_what_cannot_be_opened_or_drawn_is_refused(tmp_path: Path) -> None:
    math = DATA / "gsm8k.jsonl"
    with pytest.raises(FileNotFoundError, match="no file .*; expected a .jsonl, .json or gzipped file; check the path"):
        tasks.get(f"gsm8k:{tmp_path / 'none.jsonl'}")
    with pytest.raises(
        ValueError, match="format='math'; expected one of gsm8k, math500, humaneval, mbpp, mbpp_sanitized; "
    ):
        tasks.from_file(math, "math")
    for shots in (-1, 9):
        with pytest.raises(ValueError, match=f"shots={shots} from .*; expected 0 to 8, .*; take fewer, or name"):
            tasks.from_file(math, "gsm8k", shots=shots)
    with pytest.raises(ValueError, match="shots=2, examples=None with humaneval; expected neither, .*; leave"):
        tasks.from_file(DATA / "humaneval.jsonl", "humaneval", shots=2, allow_code=True)
    for n in (0, 4):
        with pytest.raises(ValueError, match=f"n={n} test problems of .*; expected 1 to 3, as it .*; take fewer"):
            opened("gsm8k").problems(n)
    for format in ("gsm8k", "math500", "humaneval"):
        with pytest.raises(ValueError, match=f"split='train' of .*; expected 'test', as a {format} file .*; open"):
            opened(format).problems(1, split="train")
    with pytest.raises(ValueError, match="split='valid'; expected one of train, test; check"):
        opened("mbpp").problems(1, split="valid")


@pytest.mark.parametrize("format", ["humaneval", "mbpp", "mbpp_sanitized"])
def test_code_needs_a_clear_yes(format: str) -> None:
    path = held(format)
    for open in (lambda: tasks.from_file(path, format), lambda: tasks.get(f"{format}:{path}")):
        with pytest.raises(
            ValueError, match=f"{format}:.* runs programs .* not set; expected a clear yes; pass allow_"
        ):
            open()
