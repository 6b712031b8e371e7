import io
import re
from typing import Any

import pytest
import torch

from dlens.show.terminal import TerminalView, printable, terminal_view
from dlens.tracing.progress import StepView

MASK = 9


def decode(ids: list[int]) -> str:
    return "".join("abcdefgh\n"[token] for token in ids)


def watch(columns: int | None, canvases: list[list[int]]) -> str:
    written: list[str] = []
    view = TerminalView(decode, prompt_width=1, mask_token_id=MASK, write=written.append, columns=columns)
    for step, canvas in enumerate(canvases):
        view(StepView(step, len(canvases), (0,), torch.tensor([canvas]), [""]))
    return "".join(written)


def test_a_pipe_gets_a_plain_line_a_step() -> None:
    lines = watch(None, [[0, MASK, 2], [0, 1, 2]])
    assert lines == "step 1 of 2: ░c\nstep 2 of 2: bc\n"


def test_a_terminal_is_drawn_over_with_new_tokens_marked() -> None:
    first, second = watch(80, [[0, MASK, 2], [0, 1, 2]]).split("\x1b[2F\x1b[J")
    assert first == "step 1 of 2\n\x1b[2m░\x1b[0m\x1b[1;32mc\x1b[0m\n"
    assert second == "step 2 of 2\n\x1b[1;32mb\x1b[0m\x1b[0mc\x1b[0m\n"


def test_it_goes_back_over_wrapped_lines_and_line_breaks() -> None:
    text = watch(4, [[0, 1, 1, 1, 1, 1, 8, 1], [0] * 8])
    # "step 1 of 2" takes 3 lines of 4 columns, "bbbbb" takes 2, "b" one.
    assert re.findall(r"\x1b\[(\d+)F", text) == ["6"]


def test_a_growing_text_marks_its_end() -> None:
    text = watch(80, [[0, 1], [0, 1, 2]])
    assert text.endswith("\x1b[0mb\x1b[0m\x1b[1;32mc\x1b[0m\n")


def test_control_characters_are_shown_and_not_obeyed() -> None:
    assert printable("a\x1b[2Jb\rc\x9bd\x7f") == r"a\x1b[2Jb\x0dc\x9bd\x7f"
    assert printable("one\n\ttwo ░ 中") == "one\n\ttwo ░ 中"


def test_escape_codes_of_the_text_do_not_reach_the_terminal() -> None:
    written: list[str] = []
    view = TerminalView(lambda ids: "\x1b]0;title\x07" * len(ids), 0, MASK, written.append, None)
    view(StepView(0, 1, (0,), torch.tensor([[1]]), [""]))
    assert written == [r"step 1 of 1: \x1b]0;title\x07" + "\n"]


def test_without_colour_it_is_drawn_over_all_the_same() -> None:
    written: list[str] = []
    view = TerminalView(decode, 0, MASK, written.append, 80, coloured=False, mask_sign="_")
    for step in range(2):
        view(StepView(step, 2, (0,), torch.tensor([[1, MASK]]), [""]))
    assert written == ["step 1 of 2\nb_\n", "\x1b[2F\x1b[Jstep 2 of 2\nb_\n"]


@pytest.mark.parametrize(
    ("terminal", "encoding", "told", "expected"),
    [
        (True, "utf-8", {}, (True, True, "░")),
        (True, "utf-8", {"NO_COLOR": "1"}, (True, False, "░")),
        (True, "latin-1", {"NO_COLOR": ""}, (True, True, "_")),
        (True, "utf-8", {"TERM": "dumb"}, (False, True, "░")),
        (False, "ascii", {}, (False, True, "_")),
    ],
)
def test_the_view_goes_by_the_terminal(
    terminal: bool, encoding: str, told: dict[str, str], expected: tuple[Any, ...], ar: Any, monkeypatch: Any
) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(out, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    view = terminal_view(ar, 3)
    assert (view.columns is not None, view.coloured, view.mask_sign) == expected
