"""Find what operations leave open until a run starts: the outlier channel, and means to ablate to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from dlens.models.model import Model
from dlens.ops.base.op import Calibration
from dlens.ops.base.target import Target
from dlens.ops.hook import Hook
from dlens.tracing.planning.inputs import Batch, as_batch
from dlens.tracing.planning.plan import plan_run
from dlens.tracing.probes.calibration import calibration_texts
from dlens.tracing.probes.probe import probe

__all__ = ["CALIBRATION_POSITIONS", "CALIBRATION_ROWS", "Calibrated", "channel_shares"]

# How many of the shipped texts are read, and how much of each.
CALIBRATION_ROWS, CALIBRATION_POSITIONS = 12, 64
_OUTLIER = "the outlier channel is found on text; load with tokenizer=, or name the channel"
_MEAN = "value='mean' is measured on text; load with tokenizer=, or give the value as a tensor"


@final
@dataclass(frozen=True)
class Calibrated(Calibration):
    """What operations leave open until their run starts, measured on the shipped text when one asks.

    Args:
        model, target: what runs.

    Raises:
        ValueError: when asked, and the model has no tokenizer to read the text with.
    """

    model: Model
    target: Target

    @cached_property
    def _name(self) -> str:
        return self.model.fingerprint()

    def outlier(self) -> tuple[int, float]:
        share = channel_shares(self.model, self.target, name=self._name)
        return int(share.argmax()), float(share.max())

    def means(self, point: str) -> Float[Tensor, "layer ..."]:
        return _calibrated(self.model, self.target, point, _MEAN, self._name)["mean"].float()


def channel_shares(
    model: Model, target: Target, n_blocks: int | None = None, name: str | None = None
) -> Float[Tensor, " d_model"]:
    """Each channel's share of the stream's energy.

    E_c(l) = sum_t h_{l,t,c}^2 / sum_t |h_{l,t}|^2 at resid_post on the shipped calibration text,
    averaged over the first blocks: by default 0 to L-2 (the last block removes the outlier).

    Args:
        n_blocks: how many blocks.
        name: the model's fingerprint, where it is known already.
    """
    sums = _calibrated(model, target, "resid_post", _OUTLIER, name or model.fingerprint())["energy"]
    blocks = sums[: max(1, target.n_layers - 1) if n_blocks is None else n_blocks]
    return (blocks / blocks.sum(-1, keepdim=True)).mean(0)


def _calibrated(model: Model, target: Target, point: str, why: str, name: str) -> dict[str, Tensor]:
    """Per layer and channel the mean and the energy on the calibration text; kept with the model.

    Args:
        why: what needs a tokenizer, and what to do without one.
        name: the model's fingerprint.
    """
    batch = _calibration_batch(model, why)
    kept, key = model.kept("calibration", name), (point, tuple(batch.ids.flatten().tolist()))
    if key not in kept:
        kept[key] = _measure(model, target, point, batch)
    return kept[key]


def _measure(model: Model, target: Target, point: str, batch: Batch) -> dict[str, Tensor]:
    energy: dict[int, Tensor] = {}
    total: dict[int, Tensor] = {}
    for row, length in enumerate(batch.lengths):
        ids = batch.ids[row : row + 1, -length:]

        def read(value: Tensor, hook: Any) -> None:
            rows = value[0].double().cpu()
            energy[hook.layer] = energy.get(hook.layer, 0) + rows.square().sum(0)
            total[hook.layer] = total.get(hook.layer, 0) + rows.sum(0)

        plan = plan_run([Hook(fn=read, at=point)], target, 1, torch.ones_like(ids, dtype=torch.bool))
        probe(model, target, plan, ids)
    layers = range(target.n_layers)
    mean = torch.stack([total[layer] for layer in layers]) / sum(batch.lengths)
    return {"energy": torch.stack([energy[layer] for layer in layers]), "mean": mean}


def _calibration_batch(model: Model, why: str) -> Batch:
    if model.tokenizer is None:
        raise ValueError(f"{model.name} has no tokenizer to read the calibration text with; expected one, as {why}")
    limit = min(CALIBRATION_POSITIONS, model.n_positions or CALIBRATION_POSITIONS)
    texts = calibration_texts()[:CALIBRATION_ROWS]
    return as_batch(model, [list(model.tokenizer(text)["input_ids"])[:limit] for text in texts])
