"""Read labels of one's own off the stream, by layer and step, beside labels that were shuffled."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from dlens.checks import as_flag
from dlens.findings.features.samples import Samples, samples_of
from dlens.findings.layers.linear import fitted
from dlens.findings.scores.intervals import jackknife_interval
from dlens.ops.base.given import as_index, as_seed

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["probe"]

# What each probe learns from and is tried on, by the places of samples.
_Split = Sequence[tuple[NDArray[Any], NDArray[Any]]]


def probe(
    source: Any,
    labels: Any,
    *,
    at: str = "resid_post",
    tokens: Any = "all",
    groups: Any = None,
    numbers: bool = False,
    folds: int = 5,
    seed: int = 0,
) -> xr.Dataset:
    """How well linear probes read labels of one's own, at each layer and step, beside a control.

    Classes are read by a ridge classifier and scored by balanced accuracy, numbers by ridge regression and scored by
    R2, channels standardised, the penalty chosen on the training part (scikit-learn's `RidgeClassifierCV`, `RidgeCV`).
    Folds never share a prompt, or what `groups` says, and hold the classes, or the quarters of the numbers, in like
    shares (scikit-learn's `StratifiedGroupKFold`, where a class has a sample for each fold); scores are of the guesses
    of all folds together, and their 95 % intervals are over prompts, by the jackknife. The control reads the same
    labels shuffled: between prompts, where every prompt has one label, else between samples; it should hold `chance`
    within its interval.

    Args:
        source: a record that captured `at`, a stream of it (`load_activations`, narrowed by `select`), or vectors
            [row, d_model] or [layer, row, d_model].
        labels: of a record [batch], one a prompt, which reads the mean over the positions named, or [batch, position],
            one a position of `record.tokens`; of a stream [prompt], which reads the mean over its rows; of vectors
            [row]. Text, whole numbers or flags; None is no label.
        at: a hook point of the stream.
        tokens: which positions of a record: "all", "prompt", "generated", "masked" or "decoded" (when a step starts),
            "last", or a bool tensor [batch, position].
        groups: what each prompt of a record or stream came from, [prompt], such as its template or author, or each
            vector, [row], such as its prompt: folds do not share it, intervals are over it. Each its own by default.
        numbers: labels are numbers to be read, not classes.
        folds: of the cross-validation.
        seed: of the shuffled labels.

    Returns:
        Over step (where the record has steps) and layer: "score", "low", "high", "control", "control_low" and
        "control_high", and "n", the samples. NaN where there are too few samples of two kinds. Its attribute "chance"
        is the score of a blind guess.

    Raises:
        ValueError: labels that do not fit, or fewer prompts than folds.
        KeyError: the hook point was not captured.

    Examples:
        >>> import dlens
        >>> texts = ["She was happy", "He was glad", "They were happy", "She was sad", "He cried", "They were sad"]
        >>> record = dlens.trace("trio/diffusion").capture("resid_post", layers=[3, 8]).forward(texts)
        >>> data = dlens.probe(record, ["happy"] * 3 + ["sad"] * 3, folds=3)
        >>> data["score"].dims, data["score"].shape, data.attrs["chance"]
        (('layer',), (2,), 0.5)
    """
    import xarray as xr

    samples = samples_of(source, labels, at, tokens, groups, as_flag(numbers, "numbers"))
    count = len(np.unique(samples.group))
    if not 2 <= as_index(folds, "folds") <= count:
        raise ValueError(
            f"folds={folds} with {count} prompts; expected 2 folds at least and a prompt for each, as folds share "
            f"none; give more prompts, or fewer folds"
        )
    shuffled = _shuffled(samples, as_seed(seed))
    names = ("score", "low", "high", "control", "control_low", "control_high")
    found = np.full((len(names), len(samples.steps), len(samples.layers)), np.nan)
    for step in range(len(samples.steps)):
        there = samples.there[step].numpy()
        for first, target in ((0, samples.labels[there]), (3, shuffled[there])):
            split = _split(target, samples.group[there], folds, samples.classes is not None)
            for layer in range(len(samples.layers)):
                vectors, _, group = samples.at(step, layer)
                found[first : first + 3, step, layer] = _scored(vectors, target, group, split, samples.classes)
    dims, drop = ("step", "layer"), slice(None) if samples.has_steps else 0
    return xr.Dataset(
        {
            name: (dims if samples.has_steps else dims[1:], values[drop])
            for name, values in zip(names, found, strict=True)
        }
        | {"n": ("step" if samples.has_steps else (), samples.there.sum(1).numpy()[drop])},
        {"layer": list(samples.layers)} | ({"step": list(samples.steps)} if samples.has_steps else {}),
        _attributes(samples, at, tokens, seed),
    )


def _attributes(samples: Samples, at: str, tokens: Any, seed: int) -> dict[str, Any]:
    numbers = samples.classes is None
    return {
        "estimator": "ridge regression, R2" if numbers else "ridge classifier, balanced accuracy",
        "pooling": "guesses of all folds together; folds share no prompt; channels standardised, penalty chosen on the "
        "training part",
        "positions": tokens if isinstance(tokens, str) else "chosen",
        "control": "labels shuffled between prompts, or between samples where prompts have several",
        "interval": "95 %, jackknife over prompts",
        "point": at,
        "classes": [] if samples.classes is None else [str(each) for each in samples.classes],
        "chance": 0.0 if samples.classes is None else 1 / len(samples.classes),
        "channels_left_out": [],
        "seed": seed,
        "n": len(samples.labels),
    }


def _shuffled(samples: Samples, seed: int) -> NDArray[Any]:
    """Labels in another order: between prompts where each has one, else between samples."""
    rng, labels = np.random.default_rng(seed), samples.labels
    known, first, place = np.unique(samples.group, return_index=True, return_inverse=True)
    if (labels == labels[first][place]).all():
        return rng.permutation(labels[first])[place]
    return rng.permutation(labels)


def _split(labels: NDArray[Any], group: NDArray[Any], folds: int, classes: bool) -> _Split:
    """Folds that share no prompt; none where there are fewer prompts than folds."""
    from sklearn.model_selection import StratifiedGroupKFold

    if len(np.unique(group)) < folds:
        return ()
    kinds = labels if classes else np.digitize(labels, np.quantile(labels, (0.25, 0.5, 0.75)))
    if np.bincount(kinds).max() < folds:
        # No kind has a sample for each fold, so that folds are of like size alone.
        kinds = np.zeros_like(kinds)
    with warnings.catch_warnings():
        # Of a rarer kind some folds have none, which a score of all folds together can bear.
        warnings.simplefilter("ignore", UserWarning)
        split = StratifiedGroupKFold(folds).split(kinds, kinds, group)
        # Prompts of very unlike size may leave a fold empty.
        return [(train, test) for train, test in split if len(test)]


def _scored(
    vectors: NDArray[Any], labels: NDArray[Any], group: NDArray[Any], split: _Split, classes: NDArray[Any] | None
) -> tuple[float, float, float]:
    """A score with its interval; NaN where nothing can be learned."""
    guessed = _guessed(vectors, labels, split, classes is not None)
    if guessed is None:
        return np.nan, np.nan, np.nan
    by_prompt = _by_prompt(labels.astype(float), guessed, group, classes)
    statistic = _r2 if classes is None else _balanced
    return statistic(by_prompt), *jackknife_interval([by_prompt], statistic)


def _guessed(vectors: NDArray[Any], labels: NDArray[Any], split: _Split, classes: bool) -> NDArray[Any] | None:
    """What is read of each sample by a probe that saw none of its prompt; None where that cannot be."""
    if not split or not np.isfinite(vectors).all():
        return None
    guessed = np.full(len(labels), np.nan)
    for train, test in split:
        if len(np.unique(labels[train])) < 2:
            return None
        guessed[test] = fitted(vectors[train], labels[train], classes).predict(vectors[test])
    return guessed


def _by_prompt(
    labels: NDArray[Any], guessed: NDArray[Any], group: NDArray[Any], classes: NDArray[Any] | None
) -> Float[np.ndarray, "prompt kind number"]:
    """What each prompt adds to a score: right answers and samples by class, or sums of squares."""
    place = np.unique(group, return_inverse=True)[1]
    if classes is None:
        each = np.stack([(labels - guessed) ** 2, np.ones_like(labels), labels, labels**2], -1)[:, :, None]
    else:
        one = labels[:, None] == np.arange(len(classes))
        each = np.stack([one & (guessed == labels)[:, None], one], 1).astype(float)
    sums = np.zeros((place.max() + 1, *each.shape[1:]))
    np.add.at(sums, place, each)
    return sums


def _balanced(sums: Float[np.ndarray, "prompt kind number"]) -> float:
    right, n = sums.sum(0)
    return float(np.mean(right[n > 0] / n[n > 0]))


def _r2(sums: Float[np.ndarray, "prompt kind number"]) -> float:
    error, n, total, square = sums.sum(0)[:, 0]
    return float(1 - error / (square - total**2 / n))
