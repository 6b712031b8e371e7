"""How heavy the tails of the weights' spectra are, by layer and matrix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dlens.checks import as_flag
from dlens.compression.spectra import SPECTRA, alpha_peak, effective_rank, eigenvalues, hill
from dlens.models.layout.matrices import linear_weight, matrices_in, offloaded_weight
from dlens.models.load import load
from dlens.models.model import Model
from dlens.ops.base.given import as_seed
from dlens.tracing.progress import quiet

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["spectral_alpha"]


@dataclass(frozen=True)
class _Found:
    """A matrix of a block.

    Args:
        layer, path: where it is.
        weight: [d_out, d_in]; None where it is left out.
        why: it is left out.
    """

    layer: int
    path: str
    weight: Float[Tensor, "d_out d_in"] | None
    why: str = ""


def spectral_alpha(model: Any, farms: bool = True, seed: int = 0, progress: bool = True) -> xr.Dataset:
    """How heavy the tail of each weight matrix's spectrum is: the exponent of a power law, by layer and matrix.

    The less alpha, the heavier the tail, and the further the matrix is trained (AlphaPruning, arXiv 2410.10912);
    arXiv 2605.06366 reads from it that the early layers of diffusion models are overtrained. Nothing is run: these
    are numbers of the weights alone.

    Args:
        model: anything `dlens.load` takes.
        farms: take the eigenvalues of sub-blocks of 128 x 128, so that matrices of different shapes compare (FARMS,
            arXiv 2506.06280), where a matrix is as large; else of the whole matrix.
        seed: of the draw of 256 sub-blocks, where there are more. Each matrix has a draw of its own.
        progress: show a progress bar when it takes longer than a second.

    Returns:
        Over layer and matrix, the paths of the linear modules of a block: "alpha"; "ks", the distance of the fit;
        "hill", the exponent of the upper half of the spectrum; "effective_rank", of the whole matrix. NaN where a block
        has no such matrix, and where nothing can be fitted. The attributes have the estimators, and under "left_out"
        what of the blocks was not read, and why: packed and quantised matrices, weights that are not finite, and
        matrices of modules that are not linear.

    Raises:
        ValueError: no block has a matrix that can be read.

    Examples:
        >>> import dlens
        >>> found = dlens.spectral_alpha("trio/diffusion")
        >>> found["alpha"].dims, found["matrix"].values.tolist()[:2], found.attrs["n"]
        (('layer', 'matrix'), ['self_attn.q_proj', 'self_attn.k_proj'], 112)
        >>> bool((found["alpha"] > 1).all())
        True
    """
    farms, seed, progress = as_flag(farms, "farms"), as_seed(seed), as_flag(progress, "progress")
    model = load(model)
    with model.lock:
        found = list(_matrices(model))
        kept = [matrix for matrix in found if matrix.weight is not None]
        if not kept:
            raise ValueError(
                f"{model.name} has no matrix that can be read: {_left_out(found)[:3]}; expected linear modules of "
                f"floating-point weights in its blocks; load it without quantisation"
            )
        numbers = [_numbers(matrix, farms, seed) for matrix in _shown(kept, progress)]
    return _labelled(model, found, kept, numbers, farms, seed)


def _matrices(model: Model) -> Iterator[_Found]:
    for layer, block in enumerate(model.blocks):
        for held in matrices_in(block):
            weight = offloaded_weight(held.part) if held.why else linear_weight(held.part)
            why = held.why if weight is None else "" if bool(weight.isfinite().all()) else "NaN or infinite"
            yield _Found(layer, held.path, None if why else weight, why)


def _shown(kept: list[_Found], progress: bool) -> Any:
    from tqdm.auto import tqdm

    return tqdm(kept, unit="matrix", delay=1.0, leave=False, disable=quiet(progress))


def _numbers(matrix: _Found, farms: bool, seed: int) -> tuple[float, float, float, float]:
    assert matrix.weight is not None
    with torch.no_grad():
        spectrum = eigenvalues(matrix.weight, farms, seed)
        return *alpha_peak(spectrum), hill(spectrum), effective_rank(matrix.weight)


def _left_out(found: list[_Found]) -> list[str]:
    return [f"layer {matrix.layer} {matrix.path}: {matrix.why}" for matrix in found if matrix.weight is None]


def _labelled(
    model: Model,
    found: list[_Found],
    kept: list[_Found],
    numbers: list[tuple[float, float, float, float]],
    farms: bool,
    seed: int,
) -> xr.Dataset:
    import xarray as xr

    paths = list(dict.fromkeys(matrix.path for matrix in kept))
    values = np.full((4, model.n_layers, len(paths)), np.nan)
    for matrix, row in zip(kept, numbers, strict=True):
        values[:, matrix.layer, paths.index(matrix.path)] = row
    blocks = "of sub-blocks of 128 x 128, at most 256 of them drawn, of matrices that are as large (FARMS, arXiv "
    return xr.Dataset(
        dict(zip(("alpha", "ks", "hill", "effective_rank"), ((("layer", "matrix"), v) for v in values), strict=True)),
        {"layer": range(model.n_layers), "matrix": paths},
        SPECTRA
        | {
            "eigenvalues": "squared singular values, in float32, "
            + (f"{blocks}2506.06280), and of others whole" if farms else "of whole matrices"),
            "left_out": _left_out(found),
            "model": model.name,
            "seed": seed,
            "n": len(kept),
        },
    )
