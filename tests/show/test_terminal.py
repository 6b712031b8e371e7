import re

import torch

from dlens.show.terminal import TerminalView
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
