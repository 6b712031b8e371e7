"""What a sparse autoencoder is: features of a vector, and the vector that they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, final, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from dlens.axes import parse_point
from dlens.checks import as_flag, quoted, refuse, require_word, whole

__all__ = ["Activation", "Normalize", "SparseAutoencoder", "as_rows", "check_site"]

Activation = Literal["topk", "relu", "jumprelu"]
Normalize = Literal["none", "layer_norm", "constant_norm_rescale"]

# SAELens' own; a layer norm without it would differ in the last digits.
_EPS = 1e-5


@final
@dataclass(frozen=True, eq=False)
class SparseAutoencoder:
    """Features of a vector, most of them 0, and back: f = act((x - b) W + c), x' = f D + b.

    TopK keeps the k largest of f and sets the others, and what is negative, to 0 (arXiv 2406.04093); JumpReLU keeps
    what is above a threshold (arXiv 2407.14435).

    Args:
        encoder: [d_model, feature], W.
        decoder: [feature, d_model], D; its rows are the directions of the features.
        encoder_bias: [feature], c.
        decoder_bias: [d_model], b.
        activation: "topk", "relu" or "jumprelu".
        k: features a vector, of "topk".
        threshold: [feature], of "jumprelu".
        centred: whether b is taken off before encoding.
        normalize: what is done to x before, and undone after: "layer_norm" or "constant_norm_rescale" of SAELens.
        site: the full name of the hook point whose values it takes, such as "blocks.8.hook_resid_post"; None where
            nobody said.
        model: the model that it was trained on.
        facts: how it came about.
        memo: itself on other devices, kept once it was asked for there.

    Examples:
        >>> import dlens, torch
        >>> sae = dlens.load_sae("trio/diffusion")
        >>> sae.d_model, sae.n_features, sae.k, sae.site, sae.point, sae.layer
        (192, 1024, 32, 'blocks.8.hook_resid_post', 'resid_post', 8)
        >>> x = torch.randn(5, 192)
        >>> features = sae.encode(x)
        >>> features.shape, bool((features > 0).sum(-1).max() <= 32)
        (torch.Size([5, 1024]), True)
        >>> torch.equal(sae.decode(features), sae.reconstruct(x)), sae.direction(3).shape, sae.on(x.device) is sae
        (True, torch.Size([192]), True)
    """

    encoder: Float[Tensor, "d_model feature"]
    decoder: Float[Tensor, "feature d_model"]
    encoder_bias: Float[Tensor, " feature"]
    decoder_bias: Float[Tensor, " d_model"]
    activation: Activation = "topk"
    k: int | None = None
    threshold: Float[Tensor, " feature"] | None = None
    centred: bool = True
    normalize: Normalize = "none"
    site: str | None = None
    model: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    memo: dict[str, SparseAutoencoder] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        require_word("activation", self.activation, get_args(Activation))
        require_word("normalize", self.normalize, get_args(Normalize))
        as_flag(self.centred, "centred")
        self._check_shapes()
        if self.activation == "topk" and not 1 <= (whole(self.k) or 0) <= self.n_features:
            refuse("k", self.k, f"a number of features from 1 to {self.n_features}", "pass for example k=32")
        if (self.activation == "jumprelu") != (self.threshold is not None):
            wanted = "one threshold a feature" if self.threshold is None else "None, as it is no 'jumprelu'"
            refuse("threshold", self.threshold, wanted, "pass activation='jumprelu' with a threshold")
        check_site(self.site)

    def _check_shapes(self) -> None:
        if not isinstance(self.encoder, Tensor) or self.encoder.ndim != 2:
            refuse("encoder", self.encoder, "weights [d_model, feature]", "pass a tensor")
        d_model, n = self.encoder.shape
        wanted = {"decoder": (n, d_model), "encoder_bias": (n,), "decoder_bias": (d_model,), "threshold": (n,)}
        for name, shape in wanted.items():
            value = getattr(self, name)
            if value is None and name == "threshold":
                continue
            if not isinstance(value, Tensor) or tuple(value.shape) != shape:
                came = tuple(value.shape) if isinstance(value, Tensor) else quoted(value)
                raise ValueError(
                    f"{name} has shape {came}; expected {shape}, as the encoder is [{d_model}, {n}]; "
                    f"transpose it, or check that the weights belong together"
                )

    @property
    def d_model(self) -> int:
        """Width of the vectors."""
        return self.encoder.shape[0]

    @property
    def n_features(self) -> int:
        """How many features there are."""
        return self.encoder.shape[1]

    @property
    def point(self) -> str | None:
        """The hook point of its site, by its short form."""
        return None if self.site is None else parse_point(self.site).point

    @property
    def layer(self) -> int | None:
        """The layer of its site."""
        return None if self.site is None else parse_point(self.site).layer

    def encode(self, x: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows feature"]:
        """The features of vectors, in the type of the weights.

        Raises:
            ValueError: vectors of another width.
        """
        own = self.on(x.device)
        h = own._inputs(x)
        h = (h - own.decoder_bias if own.centred else h) @ own.encoder + own.encoder_bias
        if own.activation == "topk":
            top = h.topk(own.k or 1, dim=-1)
            return torch.zeros_like(h).scatter_(-1, top.indices, top.values.relu())
        return h.relu() if own.threshold is None else torch.where(h > own.threshold, h.relu(), 0)

    def decode(
        self, features: Float[Tensor, "*rows feature"], of: Float[Tensor, "*rows d_model"] | None = None
    ) -> Float[Tensor, "*rows d_model"]:
        """The vectors that features make.

        Args:
            features: from `encode`, changed or not.
            of: the vectors that they are of; needed where `normalize` is not "none", whose scale is theirs.

        Raises:
            ValueError: such an autoencoder without `of`.
        """
        own = self.on(features.device)
        x = features.to(own.decoder.dtype) @ own.decoder + own.decoder_bias
        if own.normalize == "none":
            return x
        if of is None:
            refuse("of", of, f"the vectors that were encoded, as normalize={own.normalize!r}", "pass decode(f, of=x)")
        mean, scale = own._statistics(of.to(own.decoder.dtype))
        return x * scale + mean

    def reconstruct(self, x: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        """What is left of vectors once they were encoded and decoded."""
        return self.decode(self.encode(x), x)

    def explained_variance(self, rows: Float[Tensor, "row d_model"]) -> float:
        """1 - sum |x - x'|^2 / sum |x - mean of x|^2 over rows, in float64 (DLM-Scope, arXiv 2602.05859).

        Examples:
            >>> import dlens
            >>> rows = dlens.activation_rows("trio/diffusion", ["Once upon a time there was a girl"], tokens="all")
            >>> 0 < dlens.load_sae("trio/diffusion").explained_variance(rows) < 1
            True
        """
        x = as_rows(rows, self.d_model).to(self.encoder.device, self.encoder.dtype)
        error = torch.cat([(part - self.reconstruct(part)).double() for part in x.split(8192)])
        return 1 - float(error.square().sum() / (x.double() - x.double().mean(0)).square().sum())

    def direction(self, feature: int) -> Float[Tensor, " d_model"]:
        """What a feature adds to a vector, per unit of it: its row of the decoder.

        Raises:
            IndexError: no such feature.
        """
        number = whole(feature)
        if number is None or not 0 <= number < self.n_features:
            raise IndexError(
                f"feature {quoted(feature)} of an autoencoder; expected 0 to {self.n_features - 1}; give a number of it"
            )
        return self.decoder[number].clone()

    def on(self, device: torch.device) -> SparseAutoencoder:
        """The same with its weights on a device."""
        if self.encoder.device == device:
            return self
        if str(device) not in self.memo:
            held = {name: getattr(self, name) for name in (each.name for each in fields(self))}
            moved = {name: value.to(device) for name, value in held.items() if isinstance(value, Tensor)}
            self.memo[str(device)] = replace(self, **moved, memo={})
        return self.memo[str(device)]

    def save(self, folder: Any) -> None:
        """Write it as SAELens does: cfg.json and sae_weights.safetensors, for `load_sae` and `SAE.load_from_disk`.

        Raises:
            OSError: it cannot be written.

        Examples:
            >>> import dlens, tempfile
            >>> folder = tempfile.mkdtemp()
            >>> dlens.load_sae("trio/diffusion").save(folder)
            >>> dlens.load_sae(folder).n_features
            1024
        """
        from dlens.features.saelens import write_saelens

        write_saelens(self, folder)

    def _inputs(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.d_model:
            raise ValueError(
                f"vectors of width {x.shape[-1]}; expected {self.d_model}, as this autoencoder was trained on; "
                f"pass values of {self.site or 'the hook point that it was trained on'}"
            )
        x = x.to(self.encoder.dtype)
        if self.normalize == "none":
            return x
        mean, scale = self._statistics(x)
        return (x - mean) / (scale + _EPS if self.normalize == "layer_norm" else scale)

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What a normalized vector is shifted and scaled by, to be the vector again."""
        if self.normalize == "layer_norm":
            return x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
        return torch.zeros_like(x[..., :1]), x.norm(dim=-1, keepdim=True) / self.d_model**0.5

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"memo": {}}

    def __repr__(self) -> str:
        what = f"{self.activation} {self.k}" if self.k else self.activation
        where = "" if self.site is None else f" of {self.site}"
        return f"SparseAutoencoder({self.n_features} features, {what}{where})"


def check_site(site: Any) -> None:
    """Refuse what is no full name of a hook point of a block; None is no site.

    Raises:
        ValueError: says what came.
    """
    if site is not None and parse_point(site).layer is None:
        refuse("site", site, "the full name of a hook point of a block", "write for example 'blocks.8.hook_resid_post'")


def as_rows(rows: Any, d_model: int | None = None) -> Float[Tensor, "row d_model"]:
    """Vectors as rows of floating-point numbers.

    Raises:
        ValueError: anything else, no rows, or rows of another width.
    """
    if not isinstance(rows, Tensor) or rows.ndim != 2 or not rows.is_floating_point() or not len(rows):
        came = f"{rows.dtype} {list(rows.shape)}" if isinstance(rows, Tensor) else quoted(rows)
        raise ValueError(f"rows={came}; expected numbers [row, d_model]; pass for example dlens.activation_rows(model)")
    if d_model is not None and rows.shape[1] != d_model:
        raise ValueError(f"rows of width {rows.shape[1]}; expected {d_model}; pass values of the same hook point")
    return rows
