"""A copy of a model with fewer bits or weights."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from dlens.axes import TokenIds
from dlens.checks import as_flag, quoted
from dlens.compression.calibration import calibration_rows
from dlens.compression.matrices import Matrix, head_and_embed, matrices_of
from dlens.compression.memory import refuse_too_large
from dlens.compression.protect import protected_channels
from dlens.compression.recipe import Read, Recipe
from dlens.compression.shares import shares_by_layer, shares_of
from dlens.compression.treat import Work, treat
from dlens.models.compression import Compression, Treated
from dlens.models.load import load
from dlens.models.model import Model
from dlens.models.wrapper import foreign_forwards, unwrap
from dlens.ops.base.given import as_index

__all__ = ["check_recipe", "compress", "compressed"]


def compress(
    model: Any,
    method: str = "gptq",
    *,
    bits: int | None = None,
    group: int | None = None,
    symmetric: bool = True,
    act_order: bool = True,
    sparsity: float | None = None,
    allocation: str | Sequence[float] = "uniform",
    half_range: float | None = None,
    calibration: Read | None = None,
    texts: Any = None,
    rows: int | None = None,
    length: int = 128,
    repeats: int = 1,
    seed: int = 0,
    protect: str | Sequence[int] | None = None,
    head: bool = False,
    embed: bool = False,
    device: Any = None,
    batch_size: int = 8,
    progress: bool = True,
) -> Model:
    """A copy of a model whose matrices have fewer bits or weights; the model itself stays as it is.

    The linear matrices of all blocks change, one block after the other, each seeing what the compressed blocks before
    it make of the calibration text; embedding, norms, biases and head stay unless asked. Weights are stored in the
    type they had, so this is for asking what a compressed model computes, and saves no memory.

    Args:
        model: anything `dlens.load` takes.
        method: "rtn", "gptq", "magnitude", "wanda" or "sparsegpt".
        bits, group, symmetric, act_order, sparsity, allocation, half_range, calibration: see `Recipe`.
        rows, length, repeats, seed, protect, head, embed: see there too.
        texts: what is read for calibration: anything `Trace.forward` takes, put end to end and cut into rows; the
            shipped text by default. For a good result give 128 rows of 2048 tokens of your own.
        device: where blocks compute, one at a time, such as "cuda" for a model on the CPU; None is where they are.
        batch_size: rows a forward.
        progress: show a bar over layers.

    Returns:
        A model that every other function takes; `.compression` says matrix by matrix what was done and left out,
        `.save(folder)` writes it for `dlens.load(folder)`.

    Raises:
        ValueError, MemoryError: before anything is computed: settings that do not fit each other or the model,
            calibration text of one token, weights that are not finite, too little memory.

    Examples:
        >>> import dlens
        >>> small = dlens.compress("trio/diffusion", method="wanda", sparsity=0.5, allocation="early-sparser")
        >>> small
        trio/diffusion (wanda, 50 % zeros, early-sparser): diffusion, 16 layers, d_model 192, float32 on cpu
        >>> [round(row["zeros"], 2) for row in small.compression.table()[::56]]
        [0.7, 0.48]
    """
    progress = as_flag(progress, "progress")
    recipe = Recipe(
        method=method,
        bits=bits,
        group=group,
        symmetric=symmetric,
        act_order=act_order,
        sparsity=sparsity,
        allocation=allocation,
        half_range=half_range,
        calibration=calibration,
        rows=rows,
        length=length,
        repeats=repeats,
        seed=seed,
        protect=protect,
        head=head,
        embed=embed,
    )
    return compressed(load(model), recipe, texts, device, batch_size, progress)


def compressed(
    model: Model, recipe: Recipe, texts: Any = None, device: Any = None, batch_size: int = 8, progress: bool = True
) -> Model:
    """A copy of a model, compressed by a recipe; see `compress`.

    Examples:
        >>> import dlens
        >>> model = dlens.load("trio/ar")
        >>> compressed(model, dlens.Recipe(method="rtn", bits=4)).compression.settings["bits"]
        4
    """
    if as_index(batch_size, "batch_size") < 1:
        raise ValueError(
            f"batch_size={batch_size}; expected at least 1, the number of rows a forward; give for example 8"
        )
    place, progress = _device(device), as_flag(progress, "progress")
    with model.lock, torch.no_grad():
        recipe, rows = check_recipe(model, recipe, texts)
        refuse_too_large(model, recipe, place)
        started = time.perf_counter()
        other = _copy(model)
        found, left_out = matrices_of(other)
        work = Work(other, recipe, rows, place, as_index(batch_size, "batch_size"), progress)
        shares = shares_of(work, found)
        treated = treat(work, found, shares, left_out)
    done = _told(model, recipe, treated, left_out, time.perf_counter() - started)
    return replace(other, name=f"{model.name} ({done.words})", compression=done)


def check_recipe(model: Model, recipe: Recipe, texts: Any = None) -> tuple[Recipe, TokenIds | None]:
    """A recipe with all that it left open, and the rows that the model reads; nothing runs but a search for outliers.

    Raises:
        ValueError: the model cannot be compressed so.

    Examples:
        >>> import dlens
        >>> recipe, rows = check_recipe(dlens.load("trio/diffusion"), dlens.Recipe(method="gptq", bits=3))
        >>> recipe.calibration, rows.shape
        ('masked', torch.Size([17, 128]))
    """
    recipe = recipe.of(model)
    _check(model, recipe)
    shares_by_layer(recipe, model.n_layers)
    rows = calibration_rows(model, recipe, texts) if recipe.reads else None
    return replace(recipe, protect=protected_channels(model, recipe.protect)), rows


def _device(device: Any) -> torch.device | None:
    try:
        return None if device is None else torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(
            f"device={quoted(device)}; expected one of PyTorch's, such as 'cuda'; leave it out to compute where the "
            f"model is"
        ) from None


def _copy(model: Model) -> Model:
    other = replace(model, module=copy.deepcopy(model.module), memo={}, origin=None)
    unwrap(other.module)
    return other


def _told(
    model: Model, recipe: Recipe, treated: Sequence[Treated], left_out: dict[str, str], seconds: float
) -> Compression:
    every = sum(value.numel() for value in model.module.parameters())
    share = sum(one.weights for one in treated) / every
    return Compression(model.name, asdict(recipe), tuple(treated), left_out, share, seconds, before=model.compression)


def _check(model: Model, recipe: Recipe) -> None:
    """Refuse what this model's matrices cannot do."""
    if replaced := foreign_forwards(model.module):
        raise ValueError(
            f"{model.name} has another forward on {replaced[0]}, which a copy would share with it; expected a model "
            f"that its classes and weights describe; put the forward into its class"
        )
    found, _ = matrices_of(model)
    if not found:
        raise ValueError(
            f"{model.name} has no linear matrices of floating-point numbers in its blocks; expected some to compress; "
            f"load it without quantisation, and whole on one device"
        )
    found += [matrix for part in head_and_embed(model, recipe.head, recipe.embed) for matrix in part]
    for matrix in found:
        _check_matrix(matrix, recipe)


def _check_matrix(matrix: Matrix, recipe: Recipe) -> None:
    columns = matrix.weight.shape[1]
    if recipe.group is not None and columns % recipe.group:
        raise ValueError(
            f"group={recipe.group} and {matrix.label} of {columns} columns; expected a group that divides them all; "
            f"give group={_divisor(columns, recipe.group)}"
        )
    if not bool(matrix.weight.isfinite().all()):
        raise ValueError(
            f"{matrix.label} holds weights that are NaN or infinite; expected finite ones; check the checkpoint "
            f"({quoted(matrix.part)})"
        )


def _divisor(columns: int, near: int) -> int:
    return max(number for number in range(1, min(near, columns) + 1) if columns % number == 0)
