"""What a run has computed so far, on canvases written by hand."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dlens.caches import Blocks, Delayed, Dual
from dlens.caches.cache import Cache, View
from dlens.caches.course import Course
from tests.caches.views import row, shown

REAL = torch.ones(1, 6, dtype=torch.bool)


def canvas(text: str) -> tuple[Tensor, Tensor]:
    """Token ids and masks of one row: a digit a token, a question mark a mask."""
    return torch.tensor([[9 if mark == "?" else int(mark) for mark in text]]), row(text.translate({63: "x"} | digits()))


def digits() -> dict[int, str]:
    return {ord(str(number)): "." for number in range(10)}


def test_a_new_block_begins_where_other_columns_are_asked_for() -> None:
    course, ids = Course(Dual(), REAL), canvas("12????")
    asked = [row("..xx.."), row("..xx.."), row("...x.."), row("....xx"), row("....xx")]
    assert [shown(course.step(*ids, one, one)) for one in asked] == [None, ["..xx.."], ["..xx.."], None, ["....xx"]]


def test_what_changed_since_it_was_computed_is_stale_until_it_is_computed() -> None:
    course, asked = Course(Delayed(100), REAL), row("..xxxx")
    steps = ["12????", "123???", "1234??", "1234??", "12345?"]
    found = [shown(course.step(*canvas(text), asked, asked & canvas(text)[1])) for text in steps]
    # At step 1 all is computed, the first decoded token too.
    assert found == [None, None, ["...xxx"], ["....xx"], ["....xx"]]


@dataclass(frozen=True)
class Nothing(Cache):
    """Computes nothing but what is asked for."""

    def columns(self, view: View) -> Tensor | None:
        return torch.zeros_like(view.real)


def test_keys_that_were_never_computed_are_not_read() -> None:
    course = Course(Nothing(), REAL)
    assert course.step(*canvas("12????"), row("..x..."), row("..x...")) is None
    assert shown(course.step(*canvas("12????"), row("..x..."), row("..x..."))) == ["..x..."]


def test_an_exact_cache_need_not_begin_with_all() -> None:
    course = Course(Blocks(), REAL, block_length=2)
    steps = [("12????", "..xx.."), ("123???", "..xx.."), ("1234??", "....xx"), ("12345?", "....xx")]
    found = [shown(course.step(*canvas(text), row(asked), row(asked))) for text, asked in steps]
    assert found == [["xxxx.."], ["..xx.."], ["..xxxx"], ["....xx"]]


def test_a_row_of_which_nothing_is_wanted_computes_its_last_column() -> None:
    real = torch.ones(2, 4, dtype=torch.bool)
    course = Course(Nothing(), real)
    ids, none = torch.ones(2, 4, dtype=torch.long), torch.zeros(2, 4, dtype=torch.bool)
    asked = torch.cat([row("..x."), row("....")])
    course.step(ids, none, asked, asked)
    assert shown(course.step(ids, none, asked, asked)) == ["..x.", "...x"]
