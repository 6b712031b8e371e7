"""Show in a terminal how the text of a run comes about, step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any, final

from dlens.tracing.progress import StepView
from dlens.tracing.records.text import MASK_SIGN

__all__ = ["TerminalView", "terminal_view"]

_PLAIN = "\x1b[0m"
_STYLE: dict[str, str] = {"mask": "\x1b[2m", "new": "\x1b[1;32m", "old": _PLAIN}


@final
@dataclass
class TerminalView:
    """Draws the first row of a run after each step; pass it as `on_step`.

    Masks are shown as ░ and what the step changed stands out. On a terminal each step is drawn
    over the one before; elsewhere each is a plain line.

    Args:
        decode: token ids to text.
        prompt_width: positions of the prompt, which is not shown.
        mask_token_id: the mask token; None for an autoregressive model.
        write: takes what is to be shown.
        columns: width of the terminal; None writes plain lines.
    """

    decode: Callable[[list[int]], str]
    prompt_width: int
    mask_token_id: int | None
    write: Callable[[str], None]
    columns: int | None
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
            pieces.append((status, MASK_SIGN * len(ids) if status == "mask" else self.decode(ids)))
        return pieces

    def _status(self, position: int, token: int) -> str:
        if token == self.mask_token_id:
            return "mask"
        known = position < len(self.before) and self.before[position] == token
        return "old" if known else "new"

    def _redraw(self, header: str, pieces: list[tuple[str, str]], columns: int) -> None:
        plain = f"{header}\n{''.join(text for _, text in pieces)}"
        styled = "".join(f"{_STYLE[status]}{text}{_PLAIN}" for status, text in pieces)
        back = f"\x1b[{self.drawn}F\x1b[J" if self.drawn else ""
        self.write(f"{back}{header}\n{styled}\n")
        self.drawn = sum(max(1, -(-len(line) // columns)) for line in plain.split("\n"))


def terminal_view(model: Any, prompt_width: int) -> TerminalView:
    """A view on the standard output: drawn over on a terminal, plain lines elsewhere."""
    import shutil
    import sys

    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    write = partial(print, end="", flush=True)
    decode = partial(model.tokenizer.decode, skip_special_tokens=True)
    return TerminalView(decode, prompt_width, model.family.mask_token_id, write, columns)
