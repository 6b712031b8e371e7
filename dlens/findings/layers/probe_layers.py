"""What can be read from each layer by a linear probe: noise level, position, tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from dlens.findings.layers.linear import fitted, score
from dlens.findings.layers.profile import MASK_RATES
from dlens.findings.scores.batches import batched, masked_rows, rng, token_rows
from dlens.ops.base.given import as_index, as_seed
from dlens.tracing.chain import Trace, trace
from dlens.tracing.probes.calibration import calibration_texts

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["probe_layers"]

TARGETS = ("noise", "position", "token", "masked_token")


@dataclass(frozen=True)
class _Canvas:
    """The tokens of one text, and what the model reads of them."""

    text: int
    tokens: list[int]
    inputs: list[int]

    def labels(self, position: int) -> dict[str, float]:
        """What is to be read at a position; NaN where it has no such label."""
        token, hidden = self.tokens[position], self.inputs[position] != self.tokens[position]
        return {
            "noise": sum(a != b for a, b in zip(self.inputs, self.tokens, strict=True)) / len(self.tokens),
            "position": position,
            "token": np.nan if hidden else token,
            "masked_token": token if hidden else np.nan,
        }


@dataclass(frozen=True)
class _Sample:
    """Vectors of some positions, and what is to be read from them.

    Args:
        vectors: what leaves each block.
        group: which text each came from.
        labels: target -> label; NaN where it has none.
    """

    vectors: Float[Tensor, "layer n d_model"]
    group: Int[Tensor, " n"]
    labels: dict[str, Float[Tensor, " n"]]


def probe_layers(
    model: Any,
    prompts: Any = None,
    *,
    targets: Sequence[str] | None = None,
    rates: Sequence[float] = MASK_RATES,
    positions: int = 16,
    n_tokens: int = 8,
    folds: int = 5,
    batch_size: int = 8,
    seed: int = 0,
) -> xr.Dataset:
    """How well linear probes read the noise level, the position and the token from resid_post of each layer.

    Every prompt is read at each mask rate (autoregressive models: clean), and some of its positions are
    drawn. The targets, each of single positions:
    "noise": share of masked tokens of the whole prompt (not for autoregressive models);
    "position": tokens before it in the prompt;
    "token": which of the most frequent tokens stands there, where it is visible;
    "masked_token": the same where it is masked, so that the model has to guess it.

    Numbers are read by ridge regression and scored by R2, tokens by a ridge classifier and scored by balanced
    accuracy, after standardising each channel; the penalty is chosen on the training part. Folds never
    share a prompt, at whatever mask rate. The control reads labels that were shuffled: about 0 for
    R2, and `chance` for tokens.

    Args:
        model: anything `dlens.trace` takes, or a trace with operations.
        prompts: anything `Trace.forward` takes; the shipped calibration text by default.
        targets: which of the targets; all that the model has by default.
        rates: shares of masked tokens.
        positions: drawn of each prompt at each rate; memory is layers x prompts x rates x positions x d_model
            numbers of 4 bytes.
        n_tokens: how many tokens are told apart, the most frequent of the drawn ones.
        folds: of the cross-validation.
        batch_size: prompts a forward.
        seed: of masks, drawn positions and shuffled labels.

    Returns:
        Over target, layer and fold: "score" and "control"; over target: "n", the number of positions, "chance",
        the score of a blind guess. NaN where a target has too few positions, or the vectors are not finite.

    Raises:
        ValueError: an unknown target, or fewer prompts than folds.

    Examples:
        >>> import dlens
        >>> texts = ["Once upon a time there was", "The dog ran to the", "Tom has two red apples"]
        >>> data = dlens.probe_layers("trio/ar", texts, folds=3, targets=["position"])
        >>> data["score"].dims, data["fold"].size
        (('target', 'layer', 'fold'), 3)
    """
    base = model if isinstance(model, Trace) else trace(model)
    names = _targets(base, targets)
    as_seed(seed)
    for name, number in {"positions": positions, "n_tokens": n_tokens}.items():
        if as_index(number, name) < 1:
            raise ValueError(f"{name}={number}; expected at least 1; give for example 8")
    rows = token_rows(base.model, calibration_texts() if prompts is None else prompts)
    if not 2 <= as_index(folds, "folds") <= len(rows):
        raise ValueError(
            f"folds={folds} with {len(rows)} prompts; expected 2 folds at least and a prompt for each, as folds share "
            f"none; give more prompts, or fewer folds"
        )
    sample = _sampled(base, rows, rates, positions, batch_size, seed)
    return _scored(base, sample, names, n_tokens, folds, seed)


def _targets(base: Trace, targets: Sequence[str] | None) -> tuple[str, ...]:
    has_noise = base.model.family.objective == "diffusion"
    known = TARGETS if has_noise else ("position", "token")
    if targets is not None and not isinstance(targets, Iterable):
        raise ValueError(f"targets={targets!r}; expected some of {', '.join(known)}; give a list of names")
    named = (targets,) if isinstance(targets, str) else tuple(targets or ())
    for name in named:
        if name not in known:
            raise ValueError(
                f"target {name!r} of {base.model.name}; expected one of {', '.join(known)}; leave it out, or check the "
                f"spelling"
            )
    return named or known


def _canvases(base: Trace, rows: list[list[int]], rates: Sequence[float], generator: torch.Generator) -> list[_Canvas]:
    mask = base.model.family.mask_token_id
    if base.model.family.objective == "autoregressive" or mask is None:
        return [_Canvas(text, row, row) for text, row in enumerate(rows)]
    masked = masked_rows(rows, rates, mask, generator)
    return [_Canvas(i % len(rows), rows[i % len(rows)], inputs) for i, inputs in enumerate(masked)]


def _sampled(
    base: Trace, rows: list[list[int]], rates: Sequence[float], positions: int, batch_size: int, seed: int
) -> _Sample:
    """Read every prompt at every rate, and keep some positions of each."""
    generator = rng(seed)
    chain = base.capture("resid_post")
    vectors, group, labels = [], [], {name: [] for name in TARGETS}
    for part in batched(_canvases(base, rows, rates, generator), batch_size):
        values = chain.forward([canvas.inputs for canvas in part])["resid_post"]
        for number, canvas in enumerate(part):
            drawn = torch.randperm(len(canvas.tokens), generator=generator)[:positions]
            first = values.shape[2] - len(canvas.tokens)
            vectors.append(values[:, number, first + drawn].float())
            group += [canvas.text] * len(drawn)
            for position in drawn.tolist():
                for name, label in canvas.labels(position).items():
                    labels[name].append(label)
    found = {name: torch.tensor(values, dtype=torch.float64) for name, values in labels.items()}
    return _Sample(torch.cat(vectors, 1), torch.tensor(group), found)


def _scored(base: Trace, sample: _Sample, names: Sequence[str], n_tokens: int, folds: int, seed: int) -> xr.Dataset:
    import xarray as xr

    shape = (len(names), base.model.n_layers, folds)
    scores = {key: np.full(shape, np.nan) for key in ("score", "control")}
    counts, chance = np.zeros(len(names), dtype=int), np.zeros(len(names))
    for i, name in enumerate(names):
        tokens = name.endswith("token")
        labels = sample.labels[name].numpy()
        kept = _frequent(labels, n_tokens) if tokens else np.flatnonzero(~np.isnan(labels))
        labels, group = labels[kept], sample.group.numpy()[kept]
        counts[i] = len(kept)
        chance[i] = 1 / max(1, len(np.unique(labels))) if tokens else 0
        shuffled = np.random.default_rng(seed).permutation(labels)
        for layer, vectors in enumerate(sample.vectors[:, kept].numpy()):
            for key, target in (("score", labels), ("control", shuffled)):
                scores[key][i, layer] = _cross_validated(vectors, target, group, folds, tokens)
    return xr.Dataset(
        {key: (("target", "layer", "fold"), values) for key, values in scores.items()}
        | {"n": ("target", counts), "chance": ("target", chance)},
        {"target": list(names), "layer": range(shape[1]), "fold": range(folds)},
        {
            "estimator": "ridge regression, R2, for noise and position; ridge classifier, balanced accuracy, for "
            "tokens; channels standardised, penalty chosen on the training part",
            "pooling": "none: every drawn position is a sample; folds share no prompt",
            "positions": "drawn of each prompt at each mask rate",
            "control": "labels shuffled over samples",
            "point": "resid_post",
            "channels_left_out": [],
            "model": base.model.name,
            "seed": seed,
            "n": int(counts.sum()),
        },
    )


def _frequent(labels: NDArray[Any], n: int) -> NDArray[Any]:
    """Where the `n` most frequent labels stand."""
    values, counts = np.unique(labels[~np.isnan(labels)], return_counts=True)
    return np.flatnonzero(np.isin(labels, values[np.argsort(-counts, kind="stable")[:n]]))


def _cross_validated(
    vectors: NDArray[Any], labels: NDArray[Any], group: NDArray[Any], folds: int, tokens: bool
) -> NDArray[Any]:
    """The score of each fold; NaN where nothing can be learned or scored."""
    from sklearn.model_selection import GroupKFold

    scores = np.full(folds, np.nan)
    if not np.isfinite(vectors).all() or len(np.unique(group)) < folds:
        return scores
    for fold, (train, test) in enumerate(GroupKFold(folds).split(vectors, groups=group)):
        if len(np.unique(labels[train])) > 1 and len(np.unique(labels[test])) > 1:
            guessed = fitted(vectors[train], labels[train], tokens).predict(vectors[test])
            scores[fold] = score(labels[test], guessed, tokens)
    return scores
