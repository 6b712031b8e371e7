"""Small steps that measures share: widen, flatten, leave channels out, label."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dlens.measures.base.cells import Cells
from dlens.measures.base.measure import Span, Visit
from dlens.measures.base.settings import whole_numbers

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "DropsChannels",
    "LayerValues",
    "acted",
    "check_channels",
    "fused",
    "labelled",
    "left_out",
    "scratch",
    "wide",
    "wide_dtype",
    "zeroed",
]


LayerValues = Float[Tensor, "layer batch position d_model"]


@dataclass(frozen=True, kw_only=True)
class DropsChannels:
    """The argument of a measure that can leave channels out; the first of its bases.

    Args:
        drop: channels left out.

    Examples:
        >>> import dlens
        >>> dlens.Cosine(drop=[3, 5]).left_out
        (3, 5)
    """

    drop: Sequence[int] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "drop", whole_numbers("drop", self.drop))

    @property
    def left_out(self) -> tuple[int, ...]:
        """The channels that do not count."""
        return tuple(self.drop)


def wide(value: Tensor) -> Tensor:
    """The same numbers in float32, or in float64 where they came in it."""
    return value.to(wide_dtype(value))


def wide_dtype(value: Tensor) -> torch.dtype:
    """The type of `wide(value)`."""
    return torch.float64 if value.dtype == torch.float64 else torch.float32


def left_out(value: LayerValues, drop: Sequence[int] = ()) -> LayerValues:
    """The values with the channels in `drop` set to zero, in memory of their own; as they are without any."""
    if not drop:
        return value
    value = value.clone()
    for channel in drop:
        value[..., channel] = 0
    return value


def scratch(visit: Visit, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Memory to write to, with anything in it; on a CPU the same under one name as long as a run lasts.

    Fresh pages cost more there than the arithmetic does. Elsewhere torch keeps memory by itself.
    """
    device = visit.cells.state.device
    if device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    key, size = ("scratch", name, dtype), math.prod(shape)
    if key not in visit.kept or visit.kept[key].numel() < size:
        visit.kept[key] = torch.empty(size, dtype=dtype)
    return visit.kept[key][:size].view(*shape)


def zeroed(value: LayerValues, cells: Cells, drop: Sequence[int] = ()) -> LayerValues:
    """0 in the channels left out, and where nothing is measured, even for values that are not finite."""
    inside = (cells.state >= 0)[..., None]
    if drop:
        kept = torch.ones(value.shape[-1], dtype=torch.bool, device=value.device)
        kept[list(drop)] = False
        return torch.where(inside & kept, value, 0)
    # Asking an accelerator would wait for it; there the pass is cheap.
    if value.device.type == "cpu" and bool(inside.all()):
        return value
    return torch.where(inside, value, 0)


def acted(visit: Visit) -> Bool[Tensor, "layer n"] | None:
    """Per layer and position of each row, whether the block acted there; None where all acted everywhere."""
    if visit.skipped is None:
        return None
    return (~visit.skipped)[..., None].expand(-1, -1, visit.cells.state.shape[-1]).flatten(1)


def fused(value: Tensor, sums: Tensor) -> Any:
    """The fused kernels where they run, on CUDA with Triton; else None, and plain torch computes the same."""
    if value.device.type != "cuda" or value.device != sums.device or value.dtype == torch.float64:
        return None
    return _kernels()


@cache
def _kernels() -> Any:
    try:
        from dlens.measures.base import kernels

        # Triton builds on first use, which needs a compiler on the machine.
        kernels.try_out()
    except (ImportError, OSError, RuntimeError):
        return None
    return kernels


def check_channels(channels: Sequence[int], d_model: int) -> None:
    """Refuse channels that the model does not have, and all that it has.

    Raises:
        IndexError: names the channel.
        ValueError: no channel is left.
    """
    for channel in channels:
        if not 0 <= channel < d_model:
            raise IndexError(f"drop names channel {channel}; expected 0 to {d_model - 1}; give a smaller number")
    if len(set(channels)) >= d_model:
        raise ValueError(
            f"drop names all {d_model} channels; expected fewer, as nothing would be left to measure; name the few "
            f"that stand out"
        )


def labelled(
    variables: Mapping[str, tuple[Sequence[str], Tensor]],
    span: Span,
    coords: Mapping[str, Any] | None = None,
    **attrs: Any,
) -> xr.Dataset:
    """A dataset with the coordinates of a span, only those whose dimension occurs."""
    import xarray as xr

    used = {dim for dims, _ in variables.values() for dim in dims}
    known = {dim: values for dim, values in span.coords().items() if dim in used} | dict(coords or {})
    return xr.Dataset({name: (dims, values.cpu().numpy()) for name, (dims, values) in variables.items()}, known, attrs)
