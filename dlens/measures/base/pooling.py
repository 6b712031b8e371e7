"""Average a measure over some of its dimensions, each cell by the positions it holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dlens.checks import refuse, several

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["pool"]


def pool(dataset: xr.Dataset, variable: str, dims: str | Sequence[str]) -> xr.DataArray:
    """Mean of a variable over dimensions, weighted by the number of positions in each cell.

    Args:
        dataset: a measure's result, with the number of positions in "n", or for some variables in what its attribute
            "count_of_" with their name says.
        variable: which of its data variables.
        dims: dimensions to average over; those that the dataset does not have are passed over,
            so that one call serves diffusion (with `noise`) and AR (without).

    Returns:
        The pooled variable; NaN where no position was measured.

    Raises:
        KeyError: no such variable.

    Examples:
        >>> import xarray as xr
        >>> cells = xr.Dataset({"cosine": ("step", [0.5, 1.0, float("nan")]), "n": ("step", [3, 1, 0])})
        >>> float(pool(cells, "cosine", "step"))
        0.625
    """
    import xarray as xr

    if not isinstance(dataset, xr.Dataset):
        refuse("dataset", dataset, "a measure's result", "pass record.measures['cosine'], or another of its keys")
    if not isinstance(dims, str) and not (several(dims) and all(isinstance(dim, str) for dim in dims)):
        refuse("dims", dims, "a dimension, or a list of them", f"name some of {', '.join(map(str, dataset.dims))}")
    if not isinstance(variable, str) or variable not in dataset:
        raise KeyError(
            f"no variable {variable!r} in the dataset; expected one of {', '.join(map(str, dataset.data_vars))}; "
            f"check the spelling"
        )
    values = dataset[variable]
    named = [dims] if isinstance(dims, str) else list(dims)
    over = [dim for dim in named if dim in values.dims]
    # Their variables, as labels that are equal anyway are slow to align.
    cells = values.variable
    n = dataset[dataset.attrs.get(f"count_of_{variable}", "n")].variable.where(cells.notnull(), 0)
    total = n.sum(over)
    pooled = (cells.fillna(0) * n).sum(over) / total.where(total > 0)
    kept = [dim for dim in values.dims if dim not in over]
    coords = {name: own for name, own in values.coords.items() if set(own.dims) <= set(kept)}
    return xr.DataArray(pooled.transpose(*kept), coords, name=variable)
