"""Replace channels of the stream, or of another hook point, by zero, by their mean, or by given values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, cast, final, get_args

import torch
from torch import Tensor

from dlens.axes import POINTS, STREAM_POINTS
from dlens.checks import require_word
from dlens.ops.base.edit import Edit, Place
from dlens.ops.base.given import as_ints, as_tensor
from dlens.ops.base.op import Calibration
from dlens.ops.base.target import Target

__all__ = ["Ablate", "AblateOutlier", "AblateValue", "as_value"]

Word = Literal["zero", "mean"]
AblateValue = Word | Tensor


def as_value(value: Any) -> AblateValue:
    """What channels are set to, as a user writes it: a word, or anything that holds numbers."""
    return cast(Word, value) if isinstance(value, str) else as_tensor(value, "value")


@final
@dataclass(frozen=True, kw_only=True)
class Ablate(Edit):
    """Channels are set to a value.

    Args:
        channels: which channels, along the last axis of the point; None is all of them.
        value: "zero", "mean" (over shipped calibration text, at the same point and layer), or a
            tensor: one number, [channel] in the order of `channels`, [d_model] (the last axis of the point), or one
            of these per layer of the model.
        means: [layer, ...], filled in when a run with value="mean" starts; with an axis of heads where the point has.
    """

    channels: tuple[int, ...] | None = None
    value: AblateValue = "zero"
    means: Tensor | None = None

    def check(self, target: Target) -> None:
        super().check(target)
        width = target.width(self.at, self.layers)
        for channel in () if self.channels is None else as_ints(self.channels, "channel"):
            if width is not None and not 0 <= channel < width:
                where = target.name if self.at in STREAM_POINTS else f"{self.at} of {target.name}"
                raise IndexError(f"channel {channel} of {where}; expected 0 to {width - 1}; give a smaller number")
        self._check_value(target, width)

    def _check_value(self, target: Target, width: int | None) -> None:
        pairs = "position_b" in POINTS[self.at].axes
        if pairs and (self.channels is not None or self.value == "mean" or getattr(self.value, "ndim", 0) > 0):
            raise ValueError(
                f"ablate at {self.at} with channels, a mean or several values; expected one number for all keys, as "
                f"its last axis is the keys of the run; use .knockout for chosen keys, or .hook"
            )
        if isinstance(self.value, str):
            require_word("value", self.value, get_args(Word), "'zero', 'mean' or a tensor")
        elif width is not None:
            self._check_shape(as_tensor(self.value, "value"), target, width)

    def _check_shape(self, value: Tensor, target: Target, whole: int) -> None:
        width = whole if self.channels is None else len(self.channels)
        allowed = {(), (width,), (whole,), (target.n_layers, width), (target.n_layers, whole)}
        if tuple(value.shape) not in allowed:
            raise ValueError(
                f"value has shape {tuple(value.shape)}; expected one number, [{width}], [{whole}] or a row "
                f"of these for each of {target.n_layers} layers; reshape it"
            )

    def filled(self, calibration: Calibration) -> Ablate:
        means = _means(self, self.value, calibration)
        return self if means is None else replace(self, means=means)

    @property
    def replays(self) -> bool:
        return True

    def edit(self, value: Tensor, place: Place) -> Tensor:
        channels = slice(None) if self.channels is None else list(self.channels)
        edited = value.clone()
        # Taken there in the open, so that a recorded step finds them there.
        places = channels if isinstance(channels, slice) else torch.tensor(channels).to(value.device)
        edited[..., places] = self._fill(value, place, channels)
        return edited

    def _fill(self, value: Tensor, place: Place, channels: slice | list[int]) -> Tensor:
        if isinstance(self.value, str):
            if self.value == "zero":
                return value.new_zeros(())
            assert self.means is not None
            return self.means[place.layer][..., channels].to(value)
        fill = self.value
        named = self.channels is not None and fill.shape[-1:] == (len(self.channels),)
        if fill.ndim == 2:
            fill = fill[place.layer]
        # A value for each channel named is in their order, any other row is by channel of the point.
        if fill.ndim == 1 and not named:
            fill = fill[channels]
        return fill.to(value)

    def words(self) -> str:
        what = "all channels" if self.channels is None else f"channels {', '.join(map(str, self.channels))}"
        value = self.value if isinstance(self.value, str) else "given values"
        return f"ablate {what} to {value} in {self.where()}"

    def details(self) -> dict[str, Any]:
        return {
            "channels": None if self.channels is None else list(self.channels),
            "value": _value_json(self.value),
        }


@final
@dataclass(frozen=True, kw_only=True)
class AblateOutlier(Edit):
    """The super-outlier channel is set to a value.

    Args:
        channel: the channel; None finds the one with the largest share of the stream's energy,
            averaged over blocks 0 to L-2 on shipped calibration text, when the run starts.
        value: as in `Ablate`.
        share: its energy share, filled in when the channel is found.
        means: as in `Ablate`.

    Layers default to blocks 0 to L-2, as the last block removes the outlier by itself
    (Layer Collapse in Diffusion Language Models, section 2 as measured there).
    """

    channel: int | None = None
    value: AblateValue = "zero"
    share: float | None = None
    means: Tensor | None = None

    def check(self, target: Target) -> None:
        super().check(target)
        known = self if self.channel is not None else replace(self, channel=0)
        known.resolved(target).check(target)

    def filled(self, calibration: Calibration) -> AblateOutlier:
        found = self
        if self.channel is None:
            channel, share = calibration.outlier()
            found = replace(self, channel=channel, share=share)
        means = _means(self, self.value, calibration)
        return found if means is None else replace(found, means=means)

    def resolved(self, target: Target) -> Ablate:
        """The plain ablation it stands for, once the channel is known."""
        assert self.channel is not None
        layers = self.layers if self.layers is not None else tuple(range(max(1, target.n_layers - 1)))
        return Ablate(
            channels=(self.channel,),
            value=self.value,
            means=self.means,
            at=self.at,
            layers=layers,
            tokens=self.tokens,
            scope=self.scope,
        )

    def edit(self, value: Tensor, place: Place) -> Tensor:
        raise AssertionError("the engine runs the resolved ablation")

    def words(self) -> str:
        which = "the outlier channel (found when the run starts)"
        if self.channel is not None:
            share = "" if self.share is None else f", {self.share:.1%} of the energy"
            which = f"outlier channel {self.channel}{share}"
        value = self.value if isinstance(self.value, str) else "given values"
        where = self.where() if self.layers is not None else f"{self.at} of all layers but the last{self.scope.words()}"
        return f"ablate {which} to {value} in {where}"

    def details(self) -> dict[str, Any]:
        return {"channel": self.channel, "share": self.share, "value": _value_json(self.value)}


def _means(op: Edit, value: AblateValue, calibration: Calibration) -> Tensor | None:
    """[layer, d_model], what "mean" stands for at an operation's point; None for any other value."""
    return calibration.means(op.at) if isinstance(value, str) and value == "mean" else None


def _value_json(value: AblateValue) -> str:
    return value if isinstance(value, str) else f"tensor {list(value.shape)}"
