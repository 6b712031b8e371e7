"""What all kinds of workers say of themselves."""

import pytest

from dlens.workers import Here, Local, Ray, Slurm
from dlens.workers.base import Workers


def test_kinds_say_whether_they_may_be_on_other_machines() -> None:
    assert [kind().elsewhere for kind in (Here, Local, Slurm, Ray)] == [False, False, True, True]
    with pytest.raises(TypeError, match="abstract"):
        Workers()  # pyright: ignore
