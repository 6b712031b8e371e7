"""Profiles of several models side by side, by layer and by depth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np

from dlens.checks import quoted, refuse
from dlens.findings.layers.profile import Profile, inputs_read, profile

if TYPE_CHECKING:
    import xarray as xr
from dlens.ops.base.given import as_index

__all__ = ["Comparison", "compare", "relative_depth", "third"]

_GRID = 21


@final
@dataclass(frozen=True, eq=False)
class Comparison:
    """Profiles of several models on the same prompts.

    Args:
        profiles: name -> profile.

    Examples:
        >>> import dlens
        >>> table = dlens.compare({"ar": "trio/ar", "dllm": "trio/diffusion"}, ["Once upon a time"])
        >>> table.table()[-1]["model"], table.table()[-1]["layer"], table.table()[-1]["depth"]
        ('dllm', 15, 1.0)
        >>> dict(table.to_xarray().sizes), dict(table.by_depth(points=5).sizes)
        ({'model': 2, 'layer': 16}, {'model': 2, 'depth': 5})
        >>> print(table)
        Comparison of 2 models on clean and masked inputs (prompts: 1)
          ar: trio/ar, 16 layers
          dllm: trio/diffusion, 16 layers
    """

    profiles: Mapping[str, Profile]

    def __post_init__(self) -> None:
        given = self.profiles.values() if isinstance(self.profiles, Mapping) else ()
        if not given or not all(isinstance(own, Profile) for own in given):
            refuse("profiles", self.profiles, "a mapping of names to profiles", "let dlens.compare make it")

    def table(self) -> list[dict[str, Any]]:
        """One row a model and layer: "model", "layer", "depth" from 0 (first block) to 1 (last), and every number."""
        rows = []
        for name, own in self.profiles.items():
            depths = relative_depth(own.n_layers)
            for row, depth in zip(own.table(), depths.tolist(), strict=True):
                rows.append({"model": name, "layer": row["layer"], "depth": depth} | row | {"model": name})
        return rows

    def to_xarray(self) -> xr.Dataset:
        """The numbers over `model` and `layer`, with the coordinate `depth`; NaN beyond a model's last layer."""
        import xarray as xr

        n_layers = max(own.n_layers for own in self.profiles.values())
        depth = np.full((len(self.profiles), n_layers), np.nan)
        for i, own in enumerate(self.profiles.values()):
            depth[i, : own.n_layers] = relative_depth(own.n_layers)
        values = {}
        for variable in self._variables():
            values[variable] = (("model", "layer"), np.full(depth.shape, np.nan))
            for i, column in enumerate(self._columns(variable)):
                values[variable][1][i, : len(column)] = column
        coords = {"model": list(self.profiles), "layer": list(range(n_layers)), "depth": (("model", "layer"), depth)}
        return xr.Dataset(values, coords)

    def by_depth(self, points: int = _GRID) -> xr.Dataset:
        """The numbers over `model` and relative `depth`, read off straight lines between layers.

        Numbers that only name something, such as "top_channel", are left out.

        Args:
            points: how many depths, from 0 to 1.

        Raises:
            ValueError: not a whole number of at least 1.
        """
        if as_index(points, "points") < 1:
            raise ValueError(f"points={points}; expected at least 1 depth; give for example {_GRID}")
        import xarray as xr

        grid = np.linspace(0, 1, points)
        values = {}
        for variable in self._variables():
            if variable == "top_channel":
                continue
            lines = [_on_grid(column, grid) for column in self._columns(variable)]
            values[variable] = (("model", "depth"), np.stack(lines))
        return xr.Dataset(values, {"model": list(self.profiles), "depth": grid})

    def __str__(self) -> str:
        first = next(iter(self.profiles.values()))
        read = " and ".join(dict.fromkeys(inputs_read(own) for own in self.profiles.values()))
        head = f"Comparison of {len(self.profiles)} models on {read} inputs (prompts: {first.n_prompts})"
        return "\n".join(
            [head, *(f"  {name}: {own.model}, {own.n_layers} layers" for name, own in self.profiles.items())]
        )

    __repr__ = __str__

    def _variables(self) -> list[str]:
        """All that any profile has by layer, in the order of the first that has it."""
        rows = [own.table()[0] for own in self.profiles.values()]
        return [name for name in dict.fromkeys(name for row in rows for name in row) if name not in ("model", "layer")]

    def _columns(self, variable: str) -> list[list[float]]:
        """A variable by layer, of each model; empty where a profile does not have it."""
        tables = [own.table() for own in self.profiles.values()]
        return [[float(row[variable]) for row in table if variable in row] for table in tables]


def compare(models: Mapping[str, Any], prompts: Any = None, inputs: str = "masked", **options: Any) -> Comparison:
    """Profile several models on the same prompts, side by side.

    Models may differ in depth: `.table()` and `.to_xarray()` have the layer and the relative depth,
    `.by_depth()` has all models on one axis of relative depth.

    Args:
        models: name -> anything `dlens.profile` takes, or a profile made before.
        prompts, inputs, options: as in `dlens.profile`, for the models that are profiled here.

    Returns:
        `.table()`, `.to_xarray()`, `.by_depth()`, `.profiles`.

    Raises:
        ValueError: no model, profiles of other inputs or prompts than each other, or what `dlens.profile` refuses.

    Examples:
        >>> import dlens
        >>> table = dlens.compare({"ar": "trio/ar", "dllm": "trio/diffusion"}, ["Once upon a time"])
        >>> table.to_xarray()["cosine"].dims, len(table.table())
        (('model', 'layer'), 32)
    """
    if not isinstance(models, Mapping) or not models or not all(isinstance(name, str) for name in models):
        raise ValueError(
            f"compare got {quoted(models)}; expected names with models; write dlens.compare({{'ar': 'trio/ar', ...}})"
        )
    given = {name: own for name, own in models.items() if isinstance(own, Profile)}
    _refuse_others(given, None if len(given) == len(models) else inputs)
    return Comparison(
        {
            name: model if isinstance(model, Profile) else profile(model, prompts, inputs, **options)
            for name, model in models.items()
        }
    )


def relative_depth(n_layers: int) -> np.ndarray:
    """The depth of each layer, from 0 for the first to 1 for the last; 0 for a single one.

    Examples:
        >>> relative_depth(3).tolist()
        [0.0, 0.5, 1.0]
    """
    return np.arange(n_layers) / max(1, n_layers - 1)


def third(n_layers: int) -> int:
    """Blocks in a third of depth, block 0 not counted; at least one.

    Examples:
        >>> third(16), third(3)
        (5, 1)
    """
    return max(1, round((n_layers - 1) / 3))


def _refuse_others(given: Mapping[str, Profile], inputs: str | None) -> None:
    """Refuse profiles that read something else than each other, or than the models still to be profiled."""
    read = {f"{own.inputs} inputs of {own.n_prompts} prompts": name for name, own in given.items()}
    if len(read) > 1 or any(inputs not in (None, own.inputs) for own in given.values()):
        held = "; ".join(f"{name}: {what}" for what, name in read.items())
        wanted = "" if inputs is None else f", with inputs={inputs!r} as the models that are still to be profiled"
        raise ValueError(
            f"compare got profiles of different inputs ({held}); expected the same for each{wanted}; profile all of "
            f"them alike, or pass the models"
        )


def _on_grid(column: list[float], grid: np.ndarray) -> np.ndarray:
    if not column:
        return np.full(len(grid), np.nan)
    return np.interp(grid, relative_depth(len(column)), column)
