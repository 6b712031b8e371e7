"""Tasks by name."""

import pytest

from dlens.tasks import get, names


def test_each_name_gives_its_task() -> None:
    assert names() == ("trio-math", "trio-code")
    assert [get(name).name for name in names()] == list(names())


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="task 'trio-maths'; expected one of trio-math, trio-code; check the spelling"):
        get("trio-maths")
