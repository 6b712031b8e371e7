"""Show in a terminal how the text of a run comes about, step by step."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any, final

from dlens.tracing.progress import StepView
from dlens.tracing.records.text import MASK_SIGN

__all__ = ["TerminalView", "printable", "terminal_view"]

# Line breaks and tabs move the cursor as text does; all other control characters command the terminal.
_COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_PLAIN = "\x1b[0m"
_STYLE: dict[str, str] = {"mask": "\x1b[2m", "new": "\x1b[1;32m", "old": _PLAIN}


def printable(text: str) -> str:
    r"""Text that a terminal shows and does not obey: control characters become visible.

    Examples:
        >>> print(printable("red \x1b[31m"))
        red \x1b[31m
    """
    return _COMMANDS.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


@final
@dataclass
class TerminalView:
    """Draws the first row of a run after each step; pass it as `on_step`.

    Masks are shown as ░ and what the step changed stands out. On a terminal each step is drawn
    over the one before; elsewhere each is a plain line. Control characters of the text are shown, not obeyed.

    Args:
        decode: token ids to text.
        prompt_width: positions of the prompt, which is not shown.
        mask_token_id: the mask token; None for an autoregressive model.
        write: takes what is to be shown.
        columns: width of the terminal; None writes plain lines.
        coloured: mark what is new and dim the masks.
        mask_sign: one mask.
    """

    decode: Callable[[list[int]], str]
    prompt_width: int
    mask_token_id: int | None
    write: Callable[[str], None]
    columns: int | None
    coloured: bool = True
    mask_sign: str = MASK_SIGN
    before: list[int] = field(default_factory=list)
    drawn: int = 0

    def __call__(self, view: StepView) -> None:
        tokens = view.tokens[0, self.prompt_width :].tolist()
        pieces = self._pieces(tokens)
        header = f"step {view.step + 1} of {view.n_steps}"
        if self.columns is None:
            self.write(f"{header}: {''.join(text for _, text in pieces)}\n")
        else:
            self._redraw(header, pieces, self.columns)
        self.before = tokens

    def _pieces(self, tokens: list[int]) -> list[tuple[str, str]]:
        """Runs of tokens of one status, as text."""
        statuses = [self._status(position, token) for position, token in enumerate(tokens)]
        pieces: list[tuple[str, str]] = []
        for status, group in groupby(zip(statuses, tokens, strict=True), key=lambda pair: pair[0]):
            ids = [token for _, token in group]
            pieces.append((status, self.mask_sign * len(ids) if status == "mask" else printable(self.decode(ids))))
        return pieces

    def _status(self, position: int, token: int) -> str:
        if token == self.mask_token_id:
            return "mask"
        known = position < len(self.before) and self.before[position] == token
        return "old" if known else "new"

    def _redraw(self, header: str, pieces: list[tuple[str, str]], columns: int) -> None:
        plain = f"{header}\n{''.join(text for _, text in pieces)}"
        shown = "".join(self._styled(status, text) for status, text in pieces)
        back = f"\x1b[{self.drawn}F\x1b[J" if self.drawn else ""
        self.write(f"{back}{header}\n{shown}\n")
        self.drawn = sum(max(1, -(-len(line) // columns)) for line in plain.split("\n"))

    def _styled(self, status: str, text: str) -> str:
        return f"{_STYLE[status]}{text}{_PLAIN}" if self.coloured else text


def terminal_view(model: Any, prompt_width: int) -> TerminalView:
    """A view on the standard output: drawn over on a terminal, plain lines elsewhere.

    With NO_COLOR (https://no-color.org) nothing is coloured; a terminal that is "dumb" gets plain lines. Where the
    output cannot spell ░, a mask is "_".
    """
    import shutil

    drawn_over = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    return TerminalView(
        decode=partial(model.tokenizer.decode, skip_special_tokens=True),
        prompt_width=prompt_width,
        mask_token_id=model.family.mask_token_id,
        write=partial(print, end="", flush=True),
        columns=shutil.get_terminal_size().columns if drawn_over else None,
        coloured=not os.environ.get("NO_COLOR"),
        mask_sign=MASK_SIGN if _spells(MASK_SIGN) else "_",
    )


def _spells(text: str) -> bool:
    """Whether the encoding of the standard output has these characters."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
