"""What GPTQ and SparseGPT share: the factor of the inverse Hessian, and columns that make up for those before them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dlens.compression.methods.method import Inputs, Kept, Weight

__all__ = ["Begin", "Column", "compensated", "free_columns", "in_parts", "inverse_factor"]

DAMPING = 0.01
"""Share of the mean of the diagonal that is added to it, as in GPTQ's and SparseGPT's code."""
_MORE_DAMPING = (1, 10, 100)

Column = Callable[[Float[Tensor, " d_out"], int], Float[Tensor, " d_out"]]
"""From a column as it stands, and its number within the part that is worked on: the new column."""

Begin = Callable[[Weight, Float[Tensor, " part"], int], Column]
"""From a part as it stands, the diagonal of the factor there, and the number of its first column: what makes its
columns."""


def inverse_factor(hessian: Float[Tensor, "d_in d_in"]) -> Float[Tensor, "d_in d_in"]:
    """The upper Cholesky factor of the inverse of the damped Hessian (GPTQ, arXiv 2210.17323, section 3.3).

    Raises:
        ValueError: even a hundredfold damping leaves it singular.

    Examples:
        >>> factor = inverse_factor(torch.eye(2) * 4)
        >>> bool(torch.isclose(factor[0, 0], torch.tensor(4.04).rsqrt()))
        True
    """
    mean = hessian.diagonal().mean()
    for more in _MORE_DAMPING:
        damped = hessian.clone()
        damped.diagonal().add_(DAMPING * more * mean)
        lower, failed = torch.linalg.cholesky_ex(damped)
        if failed:
            continue
        upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
        if not failed:
            return upper
    raise ValueError(
        f"the Hessian of {len(hessian)} inputs has no inverse, even with {DAMPING * _MORE_DAMPING[-1]:g} of its mean "
        f"on the diagonal; expected inputs that are finite and not all zero; give more calibration text"
    )


def free_columns(weight: Weight, kept: Kept | None) -> Int[Tensor, " free"]:
    """The numbers of the columns that may change."""
    every = torch.arange(weight.shape[1], device=weight.device)
    return every if kept is None else every[~kept.all(0)]


def compensated(
    weight: Weight, inputs: Inputs | None, order: Int[Tensor, " free"], sizes: Sequence[int], begin: Begin
) -> Weight:
    """Column after column gets its new value, and those after it make up for the error (arXiv 2210.17323, eq. 2 and 3).

    Args:
        weight: the matrix.
        inputs: with the Hessian.
        order: the columns that change, one after the other; the rest stays and makes up for nothing.
        sizes: how many columns each part has: errors reach later parts when a part is done, with the same result.
        begin: called once a part, for what makes its columns.

    Returns:
        The new matrix. Columns whose input was always zero are zero.
    """
    assert inputs is not None and inputs.hessian is not None
    hessian, new = inputs.hessian[order][:, order], weight.to(inputs.hessian.dtype)[:, order]
    dead = hessian.diagonal() == 0
    hessian.diagonal()[dead] = 1
    new[:, dead] = 0
    found = weight.clone()
    # Columns lie side by side in memory: each is read and written some hundred times.
    found[:, order] = _each_column(new.T.contiguous(), inverse_factor(hessian), sizes, begin).T.to(weight.dtype)
    return found


def _each_column(
    new: Float[Tensor, "free d_out"], factor: Float[Tensor, "free free"], sizes: Sequence[int], begin: Begin
) -> Float[Tensor, "free d_out"]:
    stop = 0
    for size in sizes:
        start, stop = stop, stop + size
        part, inner = new[start:stop], factor[start:stop, start:stop]
        column, errors = begin(part.T, inner.diagonal(), start), torch.empty_like(part)
        for i, diagonal in enumerate(inner.diagonal()):
            changed = column(part[i], i)
            torch.div(part[i] - changed, diagonal, out=errors[i])
            part[i + 1 :].addr_(inner[i, i + 1 :], errors[i], alpha=-1)
            part[i] = changed
        new[stop:] -= factor[start:stop, stop:].T @ errors
    return new


def in_parts(count: int, size: int = 128) -> list[int]:
    """Sizes of parts that make up so many columns.

    Examples:
        >>> in_parts(300)
        [128, 128, 44]
    """
    return [min(size, count - start) for start in range(0, count, size)]
