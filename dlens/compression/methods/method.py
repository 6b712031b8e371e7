"""What a method of compression gets for one matrix, and what it says of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, final

from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["Ask", "Inputs", "Kept", "Method", "Weight"]

Weight = Float[Tensor, "d_out d_in"]
Kept = Bool[Tensor, "d_out d_in"]
Kind = Literal["bits", "sparsity"]


@final
@dataclass(frozen=True, eq=False)
class Inputs:
    """What a matrix was multiplied with in the calibration run.

    Args:
        norms: of each component the sum of squares over a row's positions, averaged over rows.
        hessian: the same of x x^T, where the method needs it.
    """

    norms: Float[Tensor, " d_in"]
    hessian: Float[Tensor, "d_in d_in"] | None = None


@final
@dataclass(frozen=True, eq=False)
class Ask:
    """What is asked of a matrix.

    Args:
        bits: levels are 2^bits, for methods that round.
        group: columns that share a scale; None is all of a row.
        symmetric: whether zero lies in the middle of the levels.
        sparsity: for methods that prune: the share of weights that become zero, of those that may change.
        act_order: whether GPTQ takes the columns of largest input first.
        kept: the weights that stay as they are, whole rows and columns; None where all may change.
    """

    bits: int | None = None
    group: int | None = None
    symmetric: bool = True
    sparsity: float = 0.0
    act_order: bool = True
    kept: Kept | None = None


@final
@dataclass(frozen=True)
class Method:
    """A way to compress.

    Args:
        name: its word in `dlens.compress`.
        kind: what it spends: "bits" or "sparsity".
        needs: what it must know of the inputs of a matrix.
        ordered: whether the inputs of a matrix come from those before it in its block as they are now, compressed.
        change: the new matrix, in the type of the old one.
        words: one sentence, with its source.
    """

    name: str
    kind: Kind
    needs: Literal["nothing", "norms", "hessian"]
    ordered: bool
    change: Callable[[Weight, Inputs | None, Ask], Weight]
    words: str
