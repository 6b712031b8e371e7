"""Decoding canvas block by canvas block: where each row of a batch is, at its own pace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dlens.axes import TokenIds, TokenMask
from dlens.samplers.sampler import Tokens

__all__ = ["STOPS", "BlockWalk", "Place", "filled_up", "most_blocks"]

STOPS = ("never", "block", "token")


def filled_up(lengths: Sequence[int], new_tokens: int, block_length: int) -> tuple[int, ...]:
    """How many places after the new tokens make the last canvas block of each row whole.

    Args:
        lengths: tokens of each prompt.

    Examples:
        >>> filled_up([5, 8], 6, block_length=4)
        (1, 2)
    """
    return tuple(-(length + new_tokens) % block_length for length in lengths)


def most_blocks(new_tokens: int, infill: int, block_length: int) -> int:
    """The most canvas blocks that new tokens and masks within a prompt lie in, wherever the prompt ends.

    Examples:
        >>> most_blocks(8, 0, 4), most_blocks(9, 0, 4), most_blocks(8, 2, 4)
        (3, 3, 5)
    """
    return -(-(new_tokens + block_length - 1) // block_length) + infill


@final
@dataclass(frozen=True)
class Place:
    """The canvas block that each row is in.

    Args:
        columns: of the canvas; what lies beyond it is left out where all rows end there, else its last column.
        mine: which of them are the row's to fill, decoded or not; none in a finished row.
        open: which of these are masked.
        first: the first of `columns` in a row where it is the first token of a block that another one precedes.
    """

    columns: Int[Tensor, "batch column"]
    mine: Bool[Tensor, "batch column"]
    open: Bool[Tensor, "batch column"]
    first: Bool[Tensor, "batch column"]

    @property
    def asked(self) -> Int[Tensor, " column"] | Int[Tensor, "batch column"]:
        """The columns as a forward is asked for them: once where all rows are at the same."""
        return self.columns[0] if bool((self.columns == self.columns[:1]).all()) else self.columns

    def write(
        self, canvas: TokenIds, chosen: Bool[Tensor, "batch column"], tokens: Int[Tensor, "batch column"]
    ) -> TokenIds:
        """A new canvas with the chosen tokens written into it."""
        rows, offsets = chosen.nonzero(as_tuple=True)
        written = canvas.clone()
        written[rows, self.columns[rows, offsets]] = tokens[rows, offsets]
        return written


@final
@dataclass
class BlockWalk:
    """Rows that go through their own canvas blocks from left to right, each at its own pace.

    Args:
        generated: what is to be filled.
        block_length: tokens a block, counted from each row's first real token.
        tokens: special token ids, and where each row begins.
        stop: when an end of sequence ends a row: "never"; at the end of its "block"; at the "token", as soon as
            everything before it is decoded.

    Examples:
        >>> canvas = torch.tensor([[5, 6, 9, 9, 9]])
        >>> walk = BlockWalk(canvas == 9, 2, Tokens(mask=9, eos=0), "block")
        >>> walk.look(canvas).columns.tolist(), walk.live
        ([[2, 3]], [True])
        >>> walk.move([True], canvas)
        >>> walk.look(canvas).columns.tolist()
        [[4]]
    """

    generated: TokenMask
    block_length: int
    tokens: Tokens
    stop: str
    left: list[list[int]] = field(init=False)
    now: list[int] = field(init=False)

    def __post_init__(self) -> None:
        rows, device = len(self.generated), self.generated.device
        self._starts = self.tokens.starts or (0,) * rows
        self.left = [self._blocks(row) for row in range(rows)]
        self.now = [blocks[0] if blocks else 0 for blocks in self.left]
        self._offsets = torch.arange(self.block_length, device=device)
        ends = [token for token in (self.tokens.eos, *self.tokens.ends) if token is not None]
        self._ends = torch.tensor(ends, dtype=torch.long, device=device)

    def _blocks(self, row: int) -> list[int]:
        """The blocks of a row that hold something to fill."""
        places = self.generated[row].nonzero().squeeze(1) - self._starts[row]
        return sorted({place // self.block_length for place in places.tolist()})

    @property
    def live(self) -> list[bool]:
        """Which rows are not finished."""
        return [bool(blocks) for blocks in self.left]

    def look(self, canvas: TokenIds) -> Place:
        """Where the rows are."""
        width, device = canvas.shape[1], canvas.device
        start = [first + block * self.block_length for first, block in zip(self._starts, self.now, strict=True)]
        columns = torch.tensor(start, device=device)[:, None] + self._offsets
        columns = columns[:, (columns < width).any(0)]
        inside = (columns < width) & torch.tensor(self.live, device=device)[:, None]
        columns = columns.clamp(max=width - 1)
        mine = inside & self.generated.gather(1, columns)
        first = torch.zeros_like(mine)
        first[:, 0] = torch.tensor([block > 0 for block in self.now], device=device)
        return Place(columns, mine, mine & (canvas.gather(1, columns) == self.tokens.mask), first)

    def move(self, over: Sequence[bool], canvas: TokenIds) -> None:
        """Rows whose block is over go on to their next one, or are finished."""
        ended = self._ended(canvas) if self.stop == "block" and any(over) else [False] * len(over)
        for row, leaves in enumerate(over):
            if leaves:
                self.left[row] = [] if ended[row] else self.left[row][1:]
                self.now[row] = self.left[row][0] if self.left[row] else self.now[row]

    def stop_early(self, canvas: TokenIds) -> None:
        """Rows that have an end of sequence with nothing masked before it are finished, where that is asked."""
        if self.stop == "token":
            for row, ended in enumerate(self._ended(canvas)):
                if ended:
                    self.left[row] = []

    def _ended(self, canvas: TokenIds) -> list[bool]:
        """Whether a row has an end of sequence with nothing masked before it."""
        masked = self.generated & (canvas == self.tokens.mask)
        ends = self.generated & torch.isin(canvas, self._ends)
        return (ends & (masked.cumsum(1) == 0)).any(1).tolist()

    def finished(self, canvas: TokenIds) -> TokenIds:
        """The canvas, with the end of sequence wherever a row that stopped left masks."""
        if not len(self._ends):
            return canvas
        return torch.where(self.generated & (canvas == self.tokens.mask), self._ends[0], canvas)
