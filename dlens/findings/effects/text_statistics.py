"""What texts are like: how varied their words are, how each hangs together, how unlike each other they are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from math import nan
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float

from dlens.checks import quoted, refuse, several
from dlens.findings.scores.batches import batched
from dlens.findings.scores.intervals import LEVEL, jackknife_interval, mean_interval
from dlens.ops.base.given import as_count, as_ints
from dlens.tracing.chain import Trace, trace
from dlens.tracing.planning.inputs import as_batch, refuse_too_long
from dlens.tracing.records.record import Record

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["text_statistics"]

_WORD = re.compile(r"\w+|[^\w\s]")
_END = re.compile(r"(?<=[.!?])\s+|\n+")
Embed = Callable[[list[str]], Float[np.ndarray, "text width"]]


def text_statistics(
    texts: Any, *, n: int | Sequence[int] = (1, 2, 3), embed: Any = None, layer: int | None = None, batch_size: int = 8
) -> xr.Dataset:
    """Statistics of what models wrote, several sets of texts side by side, with 95 % intervals over texts.

    "entropy": of the n-grams of words of one text, in bits, averaged over texts: 0 where a text repeats one n-gram.
    It grows with the length of texts, so compare texts of one length ("words" is the mean number of them).
    "coherence": cosine of the embeddings of neighbouring sentences, averaged over a text and then over texts (Foltz,
    Kintsch and Landauer, Discourse Processes 25, 1998). Texts of one sentence have none.
    "diversity": 1 minus the cosine of the embeddings of two different texts, averaged over all pairs (Tevet and
    Berant, arXiv 2004.02990).

    Args:
        texts: records, whose continuations are read, or lists of texts: one, or a mapping of names to them.
        n: words of an n-gram.
        embed: a function of a list of texts that gives a vector for each, or a model (anything `dlens.trace` takes),
            whose stream at `layer` is averaged over positions; None leaves coherence and diversity out. Numbers of
            unlike embeddings do not compare.
        layer: of the model, its middle by default.
        batch_size: texts a forward.

    Returns:
        Over `texts` (names) and n: "entropy", and over `texts`: "words", "coherence", "diversity", each with
        "..._low" and "..._high"; "n_texts".

    Raises:
        ValueError: no texts, or records without any; a text that the model that embeds cannot read; a layer without
            such a model.

    Examples:
        >>> import dlens
        >>> texts = {"same": ["the dog and the dog and the dog"], "varied": ["a fox ran home over two old hills"]}
        >>> data = dlens.text_statistics(texts, n=[1])
        >>> data["entropy"].values[:, 0].round(2).tolist(), data["words"].values.tolist()
        ([1.56, 3.0], [8.0, 8.0])
        >>> stories = ["The fox ran home. It was cold.", "Two and two are four. Three is more."]
        >>> data = dlens.text_statistics(stories, embed="trio/ar")
        >>> bool(0 < data["coherence"][0] < 1), bool(0 < data["diversity"][0] < 1)
        (True, True)
    """
    sets = _sets(texts)
    sizes = tuple(as_count(size, "n") for size in as_ints(n, "n"))
    if not sizes:
        refuse("n", n, "one number of words at least", "give for example (1, 2, 3)")
    read = _embedding(embed, layer, as_count(batch_size, "batch_size"), [text for own in sets.values() for text in own])
    found: dict[str, list[Any]] = {}
    for own in sets.values():
        for name, value in _statistics(own, sizes, read).items():
            found.setdefault(name, []).append(value)
    return _labelled(found, list(sets), sizes, embed, layer)


def _sets(texts: Any) -> dict[str, list[str]]:
    """Texts by the name of their set."""
    named = texts if isinstance(texts, Mapping) else {getattr(texts, "model", "texts"): texts}
    found = {str(name): list(own.text) if isinstance(own, Record) else own for name, own in named.items()}
    for name, own in found.items():
        if not several(own) or not len(own) or not all(isinstance(text, str) for text in own):
            raise ValueError(
                f"texts of {name!r}: {quoted(own)}; expected at least one text; pass records of generations of a model "
                f"with a tokenizer, or lists of text"
            )
    if not found:
        raise ValueError("got no texts; expected a record or a list of texts; pass one, or a mapping of names to them")
    return {name: list(own) for name, own in found.items()}


def _embedding(embed: Any, layer: int | None, batch_size: int, texts: list[str]) -> Embed | None:
    """A function of texts that gives a vector for each; refuses texts that a model cannot read."""
    own = embed is None or callable(embed) and not isinstance(embed, torch.nn.Module)
    if own and layer is not None:
        refuse("layer", layer, "None, as no model embeds", "pass embed= a model, or leave layer out")
    if embed is None:
        return None
    if own:
        return lambda texts: _as_vectors(embed(texts), len(texts))
    base = embed if isinstance(embed, Trace) else trace(embed)
    at = base.target.n_layers // 2 if layer is None else base.target.layer(layer)
    chain = base.capture("resid_post", layers=at)
    if filled := [text for text in texts if text.strip()]:
        refuse_too_long(base.model, as_batch(base.model, filled), 0)

    def read(texts: list[str]) -> Float[np.ndarray, "text width"]:
        means = []
        for part in batched(texts, batch_size):
            record = chain.forward(part)
            values, real = record["resid_post"][0].double(), ~record.is_pad
            means.append((values * real[..., None]).sum(1) / real.sum(-1, keepdim=True))
        return torch.cat(means).numpy()

    return read


def _as_vectors(given: Any, count: int) -> Float[np.ndarray, "text width"]:
    came = quoted(given)
    with suppress(TypeError, ValueError):
        found = np.asarray(given.detach().double().cpu() if isinstance(given, torch.Tensor) else given, dtype=float)
        if found.ndim == 2 and len(found) == count and np.isfinite(found).all():
            return found
        came = f"numbers of shape {found.shape}"
    raise ValueError(
        f"embed returned {came} for {count} texts; expected a finite vector for each, [text, width]; return an array "
        f"of them"
    )


def _statistics(texts: list[str], sizes: Sequence[int], read: Embed | None) -> dict[str, Any]:
    words = [_WORD.findall(text) for text in texts]
    entropies = np.array([[_entropy(own, size) for size in sizes] for own in words])
    found = _with_ends("entropy", mean_interval(entropies))
    found |= _with_ends("words", mean_interval(np.array([float(len(own)) for own in words])))
    if read is not None:
        found |= _with_ends("coherence", mean_interval(np.array(_coherences(texts, read))))
        filled = [text for text in texts if text.strip()]
        vectors = _unit(read(filled)) if filled else np.zeros((0, 1))
        low, high = jackknife_interval([vectors], _diversity) if len(vectors) > 2 else (nan, nan)
        found |= _with_ends("diversity", (_diversity(vectors), low, high))
    return found | {"n_texts": len(texts)}


def _with_ends(name: str, values: Any) -> dict[str, Any]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def _entropy(words: Sequence[str], n: int) -> float:
    """Bits of the distribution of n-grams in a text; NaN where there is none."""
    counts = Counter(tuple(words[at : at + n]) for at in range(len(words) - n + 1))
    shares = np.array(list(counts.values())) / max(1, counts.total())
    return float(-(shares * np.log2(shares)).sum()) + 0.0 if len(shares) else nan


def _coherences(texts: list[str], read: Embed) -> list[float]:
    """Of each text the mean cosine of neighbouring sentences; NaN where there is one alone."""
    sentences = [[one for one in _END.split(text) if one.strip()] for text in texts]
    flat = [one for own in sentences for one in own]
    vectors = _unit(read(flat)) if flat else np.zeros((0, 1))
    found, start = [], 0
    for own in sentences:
        these = vectors[start : start + len(own)]
        found.append(float((these[:-1] * these[1:]).sum(-1).mean()) if len(own) > 1 else nan)
        start += len(own)
    return found


def _unit(vectors: Float[np.ndarray, "text width"]) -> Float[np.ndarray, "text width"]:
    """Rows of length 1; zero stays zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), np.finfo(float).tiny)


def _diversity(vectors: Float[np.ndarray, "text width"]) -> float:
    """1 minus the mean cosine of two rows of length 1, over all pairs."""
    n = len(vectors)
    if n < 2:
        return nan
    return float(1 - ((vectors.sum(0) ** 2).sum() - (vectors**2).sum()) / (n * (n - 1)))


def _labelled(
    found: Mapping[str, list[Any]], names: list[str], sizes: Sequence[int], embed: Any, layer: int | None
) -> xr.Dataset:
    import xarray as xr

    dims = {name: ("texts", "n") if name.startswith("entropy") else ("texts",) for name in found}
    variables = {name: (dims[name], np.array(values)) for name, values in found.items()}
    attrs = {
        "estimator": "entropy of the n-grams of words within a text, in bits; coherence: cosine of neighbouring "
        "sentences; diversity: 1 - mean cosine of two texts",
        "pooling": "mean over texts",
        "positions": "continuations",
        "interval": f"{LEVEL:.0%}: Student's t over texts, corrected for skewness; of diversity by the jackknife",
        "embedding": "none" if embed is None else getattr(embed, "__name__", str(embed)).splitlines()[0],
        "layer": "" if layer is None else layer,
    }
    return xr.Dataset(variables, {"texts": names, "n": list(sizes)}, attrs)
