"""Train a TopK autoencoder on rows of activations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import Any, Protocol, final, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dlens.checks import as_flag, finite, quoted, refuse, whole
from dlens.features.autoencoder import SparseAutoencoder, as_rows, check_site

__all__ = ["train_sae"]

# The share of the steps over which the learning rate falls to 0, where their number is known.
_FALL = 0.3


def train_sae(
    rows: Any,
    n_features: int | None = None,
    *,
    k: int = 32,
    epochs: int = 1,
    batch_size: int = 1024,
    learning_rate: float = 2e-3,
    auxiliary: float = 1 / 32,
    dead_after: int = 8192,
    site: str | None = None,
    model: str | None = None,
    seed: int = 0,
    progress: bool = True,
) -> SparseAutoencoder:
    """Train a TopK autoencoder (Gao et al., arXiv 2406.04093).

    The loss of a batch is sum |x - x'|^2 / sum |x - mean|^2. A feature that was not among the k of any of the last
    `dead_after` rows is dead: dead ones explain together what the others left, which revives them; that loss weighs
    `auxiliary` (section 2.4 there). Rows of the decoder keep length 1. Adam; the learning rate falls to 0 at the end
    where the number of batches is known. Which noise levels and states it is of is in the rows: see
    `dlens.activation_rows` for the policies of DLM-Scope.

    Args:
        rows: [row, d_model], or a stream, `dlens.load_activations(folder).select(layers=8)`, both shuffled anew every
            epoch; or batches of such rows that can be read several times, such as a list.
        n_features: 4 x d_model by default.
        k: features a row.
        epochs: how often all rows are read.
        batch_size: rows a step, of a tensor or stream; batches are taken as they come.
        learning_rate: of Adam, for rows scaled to a mean square of 1.
        auxiliary: weight of the loss that revives dead features; 0 leaves them dead.
        dead_after: rows.
        site: the full name of the hook point that the rows are of.
        model: the model that they are of.
        seed: of the start and of the order.
        progress: show a progress bar when it takes longer than a second.

    Returns:
        The autoencoder, of the rows as they are; `facts` says how many rows it saw and how many features were dead.

    Raises:
        ValueError: no rows, or a setting that makes no sense.

    Examples:
        >>> import dlens, torch
        >>> rows = torch.randn(512, 16, generator=torch.Generator().manual_seed(0))
        >>> sae = dlens.train_sae(rows, 32, k=8, epochs=8, batch_size=64)
        >>> sae.n_features, sae.facts["rows"], sae.explained_variance(rows) > 0.5
        (32, 4096, True)
    """
    _check(n_features, k, epochs, batch_size, dead_after, seed, learning_rate, auxiliary)
    as_flag(progress, "progress")
    check_site(site)
    batches = _batches(rows, batch_size, seed)
    first = as_rows(next(iter(batches.epoch(0)), None)).float()
    n = 4 * first.shape[1] if n_features is None else n_features
    if k > n:
        refuse("k", k, f"at most {n}, the number of features", "give a smaller k")
    mean, scale = first.mean(0), (first - first.mean(0)).square().mean().sqrt().clamp(min=1e-12)
    weights = _start((first - mean) / scale, n, seed)
    state = _State(weights, torch.zeros(n, dtype=torch.long, device=first.device), k, dead_after, auxiliary)
    with torch.enable_grad():
        seen = _run(state, batches, mean, scale, epochs, learning_rate, progress)
    facts = {"rows": seen, "dead": int(state.dead().sum()), "epochs": epochs, "learning_rate": learning_rate}
    facts |= {"auxiliary": auxiliary, "dead_after": dead_after, "seed": seed}
    with torch.no_grad():
        # Features are in the units of the rows, as rows of the decoder have length 1.
        return SparseAutoencoder(
            encoder=weights.encoder.detach(),
            decoder=weights.decoder.detach(),
            encoder_bias=weights.encoder_bias * scale,
            decoder_bias=weights.decoder_bias * scale + mean,
            activation="topk",
            k=k,
            site=site,
            model=model,
            facts=facts,
        )


@runtime_checkable
class _Stream(Protocol):
    """Rows on disk, as `dlens.Activations` reads them."""

    def batches(self, size: int, *, shuffle: int | None = None) -> Iterator[Tensor]: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class _Batches:
    """Batches of rows: those of a tensor or a stream, shuffled, or those that were given."""

    rows: Any
    batch_size: int
    seed: int

    def epoch(self, number: int) -> Iterator[Tensor]:
        if isinstance(self.rows, _Stream):
            yield from self.rows.batches(self.batch_size, shuffle=self.seed + number)
            return
        if not isinstance(self.rows, Tensor):
            yield from self.rows
            return
        generator = torch.Generator().manual_seed(self.seed + number)
        for order in torch.randperm(len(self.rows), generator=generator).split(self.batch_size):
            yield self.rows[order.to(self.rows.device)]

    @property
    def count(self) -> int | None:
        """Batches an epoch, where it is known."""
        if isinstance(self.rows, (Tensor, _Stream)):
            return -(-len(self.rows) // self.batch_size)
        return len(self.rows) if isinstance(self.rows, Sized) else None


def _batches(rows: Any, batch_size: int, seed: int) -> _Batches:
    if isinstance(rows, Tensor):
        as_rows(rows)
    elif isinstance(rows, _Stream):
        return _Batches(rows, batch_size, seed)
    elif not isinstance(rows, Iterable) or isinstance(rows, (str, bytes)):
        as_rows(rows)
    elif isinstance(rows, Iterator):
        raise ValueError(
            f"rows={quoted(rows)} can be read once; expected rows [row, d_model], or batches of them that can be read "
            f"again, as the first sets the scale; pass a list, or the stream itself"
        )
    return _Batches(rows, batch_size, seed)


@final
@dataclass(frozen=True)
class _Weights:
    """What is trained, for rows of mean 0 and mean square 1."""

    encoder: Float[Tensor, "d_model feature"]
    decoder: Float[Tensor, "feature d_model"]
    encoder_bias: Float[Tensor, " feature"]
    decoder_bias: Float[Tensor, " d_model"]


def _start(rows: Float[Tensor, "row d_model"], n_features: int, seed: int) -> _Weights:
    """Directions that point from the mean to rows of the first batch, a little off, so that no two are the same."""
    generator = torch.Generator().manual_seed(seed)
    drawn = rows[torch.randint(len(rows), (n_features,), generator=generator).to(rows.device)]
    noise = torch.randn(drawn.shape, generator=generator).to(drawn)
    decoder = torch.nn.functional.normalize(drawn + noise * drawn.square().mean().sqrt(), dim=-1)
    zeros = torch.zeros(n_features, device=rows.device), torch.zeros(rows.shape[1], device=rows.device)
    return _Weights(*(each.requires_grad_() for each in (decoder.T.clone(), decoder, *zeros)))


@dataclass
class _State:
    """Where training is."""

    weights: _Weights
    idle: Int[Tensor, " feature"]
    k: int
    dead_after: int
    auxiliary: float

    def dead(self) -> Bool[Tensor, " feature"]:
        return self.idle >= self.dead_after

    def loss(self, x: Float[Tensor, "row d_model"]) -> Float[Tensor, ""]:
        """The loss of a batch; takes note of which features were among the k."""
        w = self.weights
        h = (x - w.decoder_bias) @ w.encoder + w.encoder_bias
        top = h.topk(self.k, dim=-1)
        features = torch.zeros_like(h).scatter(-1, top.indices, top.values.relu())
        error = x - features @ w.decoder - w.decoder_bias
        loss = error.square().sum() / (x - x.mean(0)).square().sum().clamp(min=1e-12)
        dead = self.dead()
        self.idle = torch.where((features > 0).any(0), 0, self.idle + len(x))
        return loss + self.auxiliary * _revival_error(w, h, dead, error.detach()) if self.auxiliary else loss


def _revival_error(
    weights: _Weights,
    h: Float[Tensor, "row feature"],
    dead: Bool[Tensor, " feature"],
    error: Float[Tensor, "row d_model"],
) -> Float[Tensor, ""]:
    """The share of the error that dead features leave, at most as many as half the width (appendix A.2)."""
    count = int(dead.sum())
    if count == 0:
        return error.new_zeros(())
    top = h.masked_fill(~dead, -torch.inf).topk(min(count, max(1, error.shape[1] // 2)), dim=-1)
    left = error - torch.zeros_like(h).scatter(-1, top.indices, top.values.relu()) @ weights.decoder
    return left.square().sum() / (error - error.mean(0)).square().sum().clamp(min=1e-12)


def _run(
    state: _State, batches: _Batches, mean: Tensor, scale: Tensor, epochs: int, learning_rate: float, progress: bool
) -> int:
    """Train; returns the number of rows seen."""
    from tqdm import tqdm

    w = state.weights
    optimizer = torch.optim.Adam([w.encoder, w.decoder, w.encoder_bias, w.decoder_bias], lr=learning_rate)
    total = None if batches.count is None else batches.count * epochs
    seen = 0
    steps = (batch for epoch in range(epochs) for batch in batches.epoch(epoch))
    bar = tqdm(steps, "train_sae", total, disable=None if progress else True, delay=1)
    for step, batch in enumerate(bar):
        x = (as_rows(batch, len(mean)).to(mean) - mean) / scale
        if total is not None:
            optimizer.param_groups[0]["lr"] = learning_rate * min(1.0, (total - step) / (_FALL * total))
        optimizer.zero_grad()
        state.loss(x).backward()
        optimizer.step()
        with torch.no_grad():
            w.decoder.copy_(torch.nn.functional.normalize(w.decoder, dim=-1))
        seen += len(x)
    return seen


def _check(
    n_features: Any,
    k: Any,
    epochs: Any,
    batch_size: Any,
    dead_after: Any,
    seed: Any,
    learning_rate: Any,
    auxiliary: Any,
) -> None:
    counts = {"k": k, "epochs": epochs, "batch_size": batch_size, "dead_after": dead_after}
    counts |= {} if n_features is None else {"n_features": n_features}
    for name, value in counts.items():
        if (whole(value) or 0) < 1:
            refuse(name, value, "a whole number, at least 1", f"give for example {name}=32")
    if whole(seed) is None or not 0 <= seed < 2**63:
        refuse("seed", seed, f"0 to {2**63 - 1}", "give for example 0")
    if (finite(learning_rate) or 0) <= 0:
        refuse("learning_rate", learning_rate, "a number above 0", "give for example 2e-3")
    if finite(auxiliary) is None or auxiliary < 0:
        refuse("auxiliary", auxiliary, "a number, at least 0", "give for example 1/32")
