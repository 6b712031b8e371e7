"""Benchmarks from files, by the name of their format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dlens.checks import as_flag, as_path, quoted, require_word
from dlens.tasks.benchmark import Benchmark
from dlens.tasks.formats.gsm8k import Gsm8k
from dlens.tasks.formats.humaneval import HumanEval
from dlens.tasks.formats.math500 import Math500
from dlens.tasks.formats.mbpp import Mbpp

__all__ = ["FORMATS", "from_file"]

FORMATS = ("gsm8k", "math500", "humaneval", "mbpp", "mbpp_sanitized")


def from_file(
    path: str | Path,
    format: str,
    *,
    shots: int | None = None,
    examples: str | Path | None = None,
    allow_code: bool = False,
) -> Benchmark:
    """A benchmark from a file that you have, with the published prompts and the scorers' rules.

    Prompts are plain text: a tokenizer's chat template is not used. Nothing is downloaded.

    Args:
        path: a file as published, .jsonl or .json, plain or gzipped.
        format: "gsm8k", "math500", "humaneval", "mbpp" or "mbpp_sanitized". math500 needs the extra `eval`.
        shots: worked examples in each prompt; by default 5, 4, 0, 3 and 3. Fewer for models with a short context.
        examples: the file that they come from, such as GSM8K's training file; by default the file itself, and for
            math500 those of Minerva.
        allow_code: programs that the model writes may be run, which humaneval and both mbpp need. They
            run in a process of their own with limits of time and memory, and this is no security
            sandbox: see `dlens.tasks.running_code.passes`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds something else, a format has no such option, or code may not be run.
        OSError: this system does not take the limits that code runs under.
        ImportError: math-verify, which compares the results of math500, is not installed.

    Examples:
        >>> import json, tempfile
        >>> path = Path(tempfile.mkdtemp()) / "test.jsonl"
        >>> entry = {"question": "What is 2 + 2?", "answer": "2 + 2 = <<2+2=4>>4\\n#### 4"}
        >>> _ = path.write_text(json.dumps(entry))
        >>> task = from_file(path, "gsm8k", shots=0)
        >>> task.score(task.problems(1)[0], " 2 + 2 = 4\\n#### 4")
        True
    """
    require_word("format", format, FORMATS)
    allow_code = as_flag(allow_code, "allow_code")
    where = as_path(path, "path")
    given: dict[str, Any] = {"shots": shots, "examples": None if examples is None else as_path(examples, "examples")}
    options = {name: value for name, value in given.items() if value is not None}
    match format:
        case "gsm8k":
            return Gsm8k.read(where, **options)
        case "math500":
            return Math500.read(where, **options)
        case "mbpp" | "mbpp_sanitized":
            return Mbpp.read(where, allow_code=allow_code, sanitized=format == "mbpp_sanitized", **options)
    if shots or examples is not None:
        raise ValueError(
            f"shots={quoted(shots)}, examples={examples} with humaneval; expected neither, as its prompt has no worked "
            f"examples; leave both out"
        )
    return HumanEval.read(where, allow_code=allow_code)
