"""Put a sparse autoencoder into the stream: what it keeps goes on, with chosen features set to a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from dlens.axes import POINTS
from dlens.checks import as_flag, refuse
from dlens.features.autoencoder import SparseAutoencoder
from dlens.ops.base.edit import Edit, Place
from dlens.ops.base.given import as_ints, as_number
from dlens.ops.base.target import Target

__all__ = ["Splice", "site_of"]


def site_of(sae: Any, at: str | None, layers: Any) -> tuple[str, Any]:
    """Where an autoencoder goes: its own site, where nothing else is named.

    Raises:
        ValueError: no autoencoder, or one that does not know its site.
    """
    if not isinstance(sae, SparseAutoencoder):
        refuse("sae", sae, "a sparse autoencoder", "pass dlens.load_sae('trio/diffusion'), or another one")
    point = sae.point if at is None else at
    if point is None or layers is None and (sae.layer is None or point != sae.point):
        refuse("layers", layers, "a place, as the autoencoder names none there", "pass layers=, and at= with it")
    return point, sae.layer if layers is None else layers


@final
@dataclass(frozen=True, kw_only=True)
class Splice(Edit):
    """The value is encoded, features are set, and what they decode to goes on.

    Args:
        sae: the autoencoder.
        error: whether what it does not reconstruct is added again, so that only the features set change anything.
        features: which features are set; None sets none.
        value: what they are set to.
    """

    sae: SparseAutoencoder
    error: bool = True
    features: tuple[int, ...] | None = None
    value: float = 0.0

    def check(self, target: Target) -> None:
        site_of(self.sae, self.at, self.layers or ())
        super().check(target)
        as_flag(self.error, "error")
        as_number(self.value, "value")
        width = None if "position_b" in POINTS[self.at].axes else target.width(self.at, self.layers)
        if width != self.sae.d_model:
            raise ValueError(
                f"an autoencoder of {self.sae.d_model} channels at {self.at} of {target.name}, which has "
                f"{'an unknown number of' if width is None else width}; expected as many; take one that was trained on "
                f"this model and point"
            )
        for feature in () if self.features is None else as_ints(self.features, "feature"):
            if not 0 <= feature < self.sae.n_features:
                raise IndexError(
                    f"feature {feature} of an autoencoder; expected 0 to {self.sae.n_features - 1}; give a smaller "
                    f"number"
                )

    def edit(self, value: Tensor, place: Place) -> Tensor:
        if self.error and self.features is None:
            return value
        own = self.sae.on(value.device)
        x = value.to(own.encoder.dtype)
        features = own.encode(x)
        if not self.error:
            return own.decode(self._set(features), x).to(value.dtype)
        # The error x - decode(features) is added to what the features decode to once they are set.
        return (x + (own.decode(self._set(features), x) - own.decode(features, x))).to(value.dtype)

    def _set(self, features: Tensor) -> Tensor:
        if self.features is None:
            return features
        chosen = torch.tensor(self.features, device=features.device)
        return features.index_fill(-1, chosen, self.value)

    def words(self) -> str:
        error = "with" if self.error else "without"
        setting = ""
        if self.features is not None:
            setting = f", features {', '.join(map(str, self.features))} set to {self.value:g},"
        return f"splice an autoencoder of {self.sae.n_features} features{setting} {error} its error into {self.where()}"

    def details(self) -> dict[str, Any]:
        features = None if self.features is None else list(self.features)
        return {"n_features": self.sae.n_features, "error": self.error, "features": features, "value": self.value}
