"""Plans choose from models without operations, and from the blocks that may go."""

from __future__ import annotations

import pytest

import dlens
from dlens.findings.skipping.choosable import bare, choosable


def test_blocks_at_the_ends_are_kept() -> None:
    assert choosable("by hand", 10, 3, 0, 0) == (3, range(10))
    assert choosable("by hand", 10, 9, 2, 3) == (9, range(2, 7))


@pytest.mark.parametrize(
    ("message", "n_layers", "n", "first", "last"),
    [
        ("by hand has 1 block; expected at least two, as one must stay", 1, 1, 0, 0),
        ("n=0 of the 4 blocks of by hand; expected 1 to 3, as one must stay", 4, 0, 0, 0),
        ("n=4 of the 4 blocks of by hand; expected 1 to 3, as one must stay", 4, 4, 0, 0),
        ("keep_first=2 and keep_last=2 of the 4 blocks of by hand; expected numbers from 0", 4, 1, 2, 2),
        ("keep_first=-1 and keep_last=0 of the 4 blocks of by hand; expected numbers from 0", 4, 1, -1, 0),
    ],
)
def test_nothing_to_choose_from_is_refused(message: str, n_layers: int, n: int, first: int, last: int) -> None:
    with pytest.raises(ValueError, match=message):
        choosable("by hand", n_layers, n, first, last)


def test_a_model_is_taken_as_it_is(ar: dlens.Model) -> None:
    trace = dlens.trace(ar)
    assert bare(trace, "phases") is trace
    assert bare(ar, "phases").model is ar and bare(ar, "phases").ops == ()
    with pytest.raises(ValueError, match=r"phases with a trace that has operations, the first 'skip layers 3'; expe"):
        bare(trace.skip([3]), "phases")
    with pytest.raises(ValueError, match="phases with a profile of trio/ar; expected a model, as it runs one; pass"):
        bare(dlens.profile(ar, ["Once upon"]), "phases")
