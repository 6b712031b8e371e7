"""Take values of a hook point from another run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from jaxtyping import Bool
from torch import Tensor

from dlens.axes import TokenMask
from dlens.ops.op import Edit, Place, Target

__all__ = ["Patch", "Source"]


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """What another run had at a hook point.

    Args:
        values: [step, layer, batch, position, d_model]; a step axis of length 1 serves every step (a forward,
            or AR decoding, where each position is computed once).
        layers: the layers that `values` holds.
        steps: the steps that `values` holds; None where the step axis has length 1.
        real: [batch, position], neither padding nor after the end of its row.
        kind: "forward", "denoising" or "decoding".
        width: the positions that the run planned to compute; `values` holds fewer if it ended early.
        padding: [batch, prompt], the positions of its prompts that are padding.
        n_steps, planned_steps: the steps that ran, and that were planned.
    """

    values: Tensor
    layers: tuple[int, ...]
    steps: tuple[int, ...] | None
    real: TokenMask
    kind: str
    width: int
    padding: Bool[Tensor, "batch prompt"]
    n_steps: int
    planned_steps: int


@final
@dataclass(frozen=True, kw_only=True)
class Patch(Edit):
    """Values are replaced by those another run had at the same point, layer and step.

    Under classifier-free guidance only the conditional half is replaced, as a record holds that half.

    Args:
        source: the other run's values; what it does not hold, as it is padding or that run had ended, keeps
            its own value.
    """

    source: Source

    def check(self, target: Target) -> None:
        super().check(target)
        missing = sorted(set(target.layers(self.layers)) - set(self.source.layers))
        if missing:
            raise ValueError(
                f"the record to patch from lacks layers {missing} of {self.at}; expected every layer that is patched; "
                f"capture them, or name layers={list(self.source.layers)}"
            )
        width = self.source.values.shape[-1]
        if width != target.d_model:
            raise ValueError(
                f"the record to patch from has d_model {width}; expected {target.d_model}; "
                f"patch between runs of models of one width"
            )

    def edit(self, value: Tensor, place: Place) -> Tensor:
        assert place.layer is not None
        source = self.source
        if source.steps is not None and place.step not in source.steps:
            return value
        step = 0 if source.steps is None else source.steps.index(place.step)
        rows = list(place.rows)
        other = source.values[step, source.layers.index(place.layer)][rows][:, place.columns].to(value)
        real = source.real[rows][:, place.columns].to(value.device)[..., None]
        edited = value.clone()
        known = edited[: len(rows), : other.shape[1]]
        known.copy_(other.where(real, known))
        return edited

    def words(self) -> str:
        return f"patch {self._where()} from another run"

    def to_json(self) -> dict[str, Any]:
        return {"op": "patch"} | self._edit_json()
