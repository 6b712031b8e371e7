"""Tasks by name."""

import pytest

from dlens.tasks import get, names


def test_each_name_gives_its_task() -> None:
    assert names() == ("trio-math", "trio-code")
    assert [get(name).name for name in names()] == list(names())


def test_an_unknown_name_is_refused() -> None:
    known = "trio-math, trio-code, gsm8k:PATH, math500:PATH, humaneval:PATH, mbpp:PATH, mbpp_sanitized:PATH"
    for name in ("trio-maths", "math:file.jsonl", "gsm8k"):
        fix = "check the spelling|did you mean 'trio-math'"
        with pytest.raises(ValueError, match=f"task '{name}'; expected one of {known}; ({fix})"):
            get(name)


def test_a_drawn_task_has_no_examples() -> None:
    with pytest.raises(ValueError, match="shots=2, examples=None with trio-math; expected neither, .*; leave both out"):
        get("trio-math", shots=2)
    assert get("trio-math", allow_code=True) is get("trio-math")
