"""Which positions of a step count, and sums over those of each (noise, state) cell."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from dlens.axes import STATES

__all__ = ["Cells", "Groups", "add_by_cell", "cell_of", "mean_of"]

Groups = Float[Tensor, "batch position group"]


@dataclass(frozen=True)
class Cells:
    """Which positions of a step count, and in which (noise, state) cell.

    Args:
        state: per position 0 prompt, 1 masked, 2 decoded, -1 not measured.
        noise: per row its noise bin; 0 where the noise level is undefined.

    Examples:
        One row of three positions, the first prompt, the others masked, in the last noise bin:

        >>> cells = Cells(state=torch.tensor([[0, 1, 1]]), noise=torch.tensor([9]))
        >>> cells.cell.tolist()
        [[27, 28, 28]]
        >>> sums = torch.zeros(30, 1)
        >>> cells.add(sums, torch.tensor([[[5.0, 1, 2]]]))
        >>> sums[27:, 0].tolist()
        [5.0, 3.0, 0.0]
    """

    state: Int[Tensor, "batch position"]
    noise: Int[Tensor, " batch"]

    @cached_property
    def cell(self) -> Int[Tensor, "batch position"]:
        """The cell of each position; -1 where nothing is measured."""
        return cell_of(self.noise, self.state)

    @cached_property
    def cell_of_states(self) -> Int[Tensor, "batch state"]:
        """The cell that each row's positions of each state are in."""
        return self.noise[:, None] * len(STATES) + torch.arange(len(STATES), device=self.noise.device)

    @cached_property
    def groups(self) -> Groups:
        """1 where a position is in a state, and, as the last group, where it is measured at all."""
        each = [self.state == number for number in range(len(STATES))]
        return torch.stack([*each, self.state >= 0], -1).float()

    @property
    def member(self) -> Float[Tensor, "batch position state"]:
        """1 where a position is in a state."""
        return self.groups[..., :-1]

    @cached_property
    def sizes(self) -> Float[Tensor, "batch group"]:
        """How many positions each group has."""
        return self.groups.sum(1)

    @cached_property
    def averaging(self) -> Float64[Tensor, "batch position group"]:
        """The matrix that takes the mean over each group; 0 for a group of none."""
        return self.groups.double() / self.sizes.clamp(min=1)[:, None]

    def add(self, sums: Float[Tensor, "cell layer"], values: Float[Tensor, "layer batch position"]) -> None:
        """Add the value of every measured position to the sum of its cell, in place.

        Args:
            sums: of all cells.
            values: anything, NaN included, at positions that are not measured.
        """
        add_by_cell(sums, values.flatten(1), self.cell.flatten())

    def add_states(
        self, sums: Float[Tensor, "cell layer *rest"], values: Float[Tensor, "layer batch state *rest"]
    ) -> None:
        """Add to each cell what was summed over the positions of a row in a state, in place.

        Args:
            sums: of all cells.
            values: one for each row and state; 0 where a row has no position in a state.

        Examples:
            >>> cells = Cells(state=torch.tensor([[0, 1, 1]]), noise=torch.tensor([9]))
            >>> sums = torch.zeros(30, 1)
            >>> cells.add_states(sums, torch.tensor([[[5.0, 3, 0]]]))
            >>> sums[27:, 0].tolist()
            [5.0, 3.0, 0.0]
        """
        sums.index_add_(0, self.cell_of_states.flatten(), values.flatten(1, 2).transpose(0, 1).to(sums))


def cell_of(noise: Int[Tensor, " batch"], state: Int[Tensor, "batch position"]) -> Int[Tensor, "batch position"]:
    """The cell of each position; -1 where nothing is measured.

    Examples:
        >>> cell_of(torch.tensor([2]), torch.tensor([[-1, 0, 1]])).tolist()
        [[-1, 6, 7]]
    """
    return torch.add(state, noise[:, None], alpha=len(STATES)).masked_fill_(state < 0, -1)


def add_by_cell(total: Float[Tensor, "cell layer"], values: Float[Tensor, "layer n"], cell: Int[Tensor, " n"]) -> None:
    """Add every row to the sum of its cell; those of cell -1 count nothing, even where they are NaN."""
    counted = torch.where(cell >= 0, values, 0).T.to(total)
    total.index_add_(0, cell.clamp(min=0), counted)


def mean_of(total: Float[Tensor, "*sums"], n: Tensor) -> Float[Tensor, "*sums"]:
    """Mean from a sum and a count; NaN where nothing was counted."""
    return torch.where(n > 0, total / n, torch.nan)
