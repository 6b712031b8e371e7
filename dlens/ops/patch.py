"""Take values of a hook point from another run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from torch import Tensor

from dlens.ops.op import Edit, Place, Target

__all__ = ["Patch"]


@final
@dataclass(frozen=True, kw_only=True)
class Patch(Edit):
    """Values are replaced by those another run had at the same point, layer and step.

    Under classifier-free guidance only the conditional half is replaced, as a record holds that half.

    Args:
        values: [step, layer, batch, position, d_model], the other run's; a step axis of length 1
            serves every step (a forward, or AR decoding, where each position is computed once).
        source_layers: the layers that `values` holds.
        source_steps: the steps that `values` holds; None where the step axis has length 1.
        source_kind: the kind of run they come from: "forward", "denoising" or "decoding".
        real: [batch, position], the positions that are not padding; others keep their value.
    """

    values: Tensor
    source_layers: tuple[int, ...]
    source_steps: tuple[int, ...] | None
    source_kind: str
    real: Tensor

    def check(self, target: Target) -> None:
        super().check(target)
        missing = sorted(set(target.layers(self.layers)) - set(self.source_layers))
        if missing:
            raise ValueError(
                f"the record to patch from lacks layers {missing} of {self.at}; expected every layer that is patched; "
                f"capture them, or name layers={list(self.source_layers)}"
            )
        if self.values.shape[-1] != target.d_model:
            raise ValueError(
                f"the record to patch from has d_model {self.values.shape[-1]}; expected {target.d_model}; "
                f"patch between runs of models of one width"
            )

    def edit(self, value: Tensor, place: Place) -> Tensor:
        assert place.layer is not None
        step = 0 if self.source_steps is None else self.source_steps.index(place.step)
        source = self.values[step, self.source_layers.index(place.layer)][list(place.rows)][:, place.columns].to(value)
        real = self.real[list(place.rows)][:, place.columns].to(value.device)[..., None]
        edited = value.clone()
        rows = len(source)
        edited[:rows] = source.where(real, value[:rows])
        return edited

    def words(self) -> str:
        return f"patch {self._where()} from another run"

    def to_json(self) -> dict[str, Any]:
        return {"op": "patch"} | self._edit_json()
