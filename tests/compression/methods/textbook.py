"""Optimal brain surgery column by column, by the inverse itself and without any factor: what GPTQ and SparseGPT are."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor


def damped(hessian: Tensor, share: float = 0.01) -> Tensor:
    return hessian + share * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=hessian.dtype)


def pivots(hessian: Tensor) -> list[float]:
    """The element of the inverse that each column divides by, once those before it are eliminated."""
    inverse, found = torch.linalg.inv(damped(hessian)), []
    for j in range(len(hessian)):
        found.append(float(inverse[j, j]))
        inverse = inverse - torch.outer(inverse[:, j], inverse[j]) / inverse[j, j]
    return found


def surgery(weight: Tensor, hessian: Tensor, new: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Each column takes the value that `new` gives, from the matrix as it stands; the later ones make up for it."""
    inverse, work = torch.linalg.inv(damped(hessian)), weight.clone()
    for j in range(weight.shape[1]):
        value = new(work, j)
        error = (work[:, j] - value) / inverse[j, j]
        work[:, j + 1 :] -= error[:, None] * inverse[j, j + 1 :]
        work[:, j] = value
        inverse = inverse - torch.outer(inverse[:, j], inverse[j]) / inverse[j, j]
    return work


def problems() -> Iterator[tuple[Tensor, Tensor]]:
    """Matrices and Hessians of inputs that go together, in float64."""
    for seed, (rows, columns) in enumerate([(5, 8), (16, 64), (7, 256)]):
        generator = torch.Generator().manual_seed(seed)
        mixed = torch.randn(columns, columns, generator=generator, dtype=torch.float64)
        inputs = torch.randn(3 * columns, columns, generator=generator, dtype=torch.float64) @ mixed
        yield torch.randn(rows, columns, generator=generator, dtype=torch.float64), inputs.T @ inputs / len(inputs)
