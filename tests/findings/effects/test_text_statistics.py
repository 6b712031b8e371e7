"""Statistics of texts that can be counted by hand."""

from __future__ import annotations

from collections.abc import Callable
from math import log2
from typing import Any

import numpy as np
import pytest
import torch

import dlens
from dlens.findings.effects.text_statistics import text_statistics
from tests.reference import shallow
from tests.refusing import refused
from tests.unchecked import unchecked


def by_length(texts: list[str]) -> np.ndarray:
    """[characters, 1]: texts of the like length point one way."""
    return np.array([[len(text.strip(".!? ")), 1.0] for text in texts])


def cosine(a: float, b: float) -> float:
    return (a * b + 1) / ((a * a + 1) * (b * b + 1)) ** 0.5


def test_entropy_is_that_of_the_words_of_a_text() -> None:
    texts = {"one": ["a a a a"], "two": ["a b a b", "a b c d, e", "a b"]}
    data = text_statistics(texts, n=[1, 2])
    assert data["entropy"].sel(texts="one").values.tolist() == [0.0, 0.0]
    ones, pairs = [1.0, log2(6), 1.0], [-(2 * log2(2 / 3) + log2(1 / 3)) / 3, log2(5), 0.0]
    assert np.allclose(data["entropy"].sel(texts="two"), [np.mean(ones), np.mean(pairs)])
    assert data["words"].sel(texts="two") == np.mean([4, 6, 2]) and data["n_texts"].values.tolist() == [1, 3]
    assert np.isnan(data["entropy_low"].sel(texts="one")).all()
    low, high = (data[f"entropy_{end}"].sel(texts="two", n=1) for end in ("low", "high"))
    assert low < np.mean(ones) < high
    assert np.isnan(text_statistics(["a"], n=2)["entropy"]).all()


def test_coherence_and_diversity_are_those_of_the_embedding() -> None:
    texts = ["aaa. a. aa.", "aaaa! aa?", "a"]
    data = text_statistics({"x": texts}, embed=by_length)
    each = [(cosine(3, 1) + cosine(1, 2)) / 2, cosine(4, 2)]
    assert np.isclose(data["coherence"][0], np.mean(each))
    lengths = [len(text.strip(".!? ")) for text in texts]
    pairs = [cosine(lengths[i], lengths[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert np.isclose(data["diversity"][0], 1 - np.mean(pairs))
    assert data["diversity_low"][0] <= data["diversity"][0] <= data["diversity_high"][0]
    assert data.attrs["embedding"] == "by_length"
    alone = text_statistics(["a a"], embed=by_length)
    assert np.isnan(alone["coherence"][0]) and np.isnan(alone["diversity"][0])


def test_records_of_both_kinds_and_a_model_that_embeds(ar: dlens.Model, diffusion: dlens.Model) -> None:
    small = shallow(ar, 3)
    records = {
        "ar": dlens.trace(small).generate(["Once upon", "The dog"], 6),
        "diffusion": dlens.trace(shallow(diffusion, 2)).generate(["Once upon", "The dog"], 6),
    }
    data = text_statistics(records, n=1, embed=small, layer=1, batch_size=1)
    assert data["texts"].values.tolist() == ["ar", "diffusion"] and data["n_texts"].values.tolist() == [2, 2]
    for name, record in records.items():
        vectors = [dlens.trace(small).capture("resid_post", layers=1).forward(text) for text in record.text]
        a, b = (own["resid_post"][0, 0].double().mean(0) for own in vectors)
        expected = 1 - torch.nn.functional.cosine_similarity(a, b, 0)
        assert abs(float(data["diversity"].sel(texts=name)) - float(expected)) < 1e-6
    assert text_statistics(records["ar"])["texts"].values.tolist() == [small.name]


REFUSED: dict[str, tuple[str, Callable[[], Any]]] = {
    "nothing": (r"texts of 'texts': \[\]; expected at least one text", lambda: text_statistics([])),
    "no sets": ("got no texts; expected a record or a list of texts", lambda: text_statistics({})),
    "one text": ("texts of 'texts': 'abc'; expected at least one text", lambda: text_statistics("abc")),
    "numbers": (r"texts of 'x': \[3\]; expected at least one text", lambda: text_statistics({"x": [3]})),
    "n": ("n=0; expected at least 1", lambda: text_statistics(["a"], n=0)),
    "embed": (
        r"embed returned numbers of shape \(1,\) for 1 texts",
        lambda: text_statistics(["a b"], embed=lambda t: [1]),
    ),
    "no n": (r"n=\[\]; expected one number of words at least", lambda: text_statistics(["a"], n=[])),
    "words for n": ("n 'x'; expected a whole number", lambda: text_statistics(["a"], n="x")),
    "batch": ("batch_size=0; expected at least 1", lambda: text_statistics(["a"], batch_size=0)),
    "ragged": (
        r"embed returned \[\[1\], \[1, 2\]\] for 2 texts; expected a finite vector",
        lambda: text_statistics(["a", "b"], embed=lambda t: [[1], [1, 2]][: len(t)]),
    ),
    "endless": (
        r"embed returned numbers of shape \(1, 1\) for 1 texts; expected a finite",
        lambda: text_statistics(["a"], embed=lambda t: torch.tensor([[torch.inf]], dtype=torch.bfloat16)),
    ),
    "layer of nothing": ("layer=3; expected None, as no model", lambda: text_statistics(["a"], layer=3)),
    "layer of a function": (
        "layer=3; expected None, as no model",
        lambda: text_statistics(["a"], embed=by_length, layer=3),
    ),
    "layer": ("layer 'x'; expected a whole number", lambda: text_statistics(["a"], embed="trio/ar", layer="x")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input(case: str) -> None:
    message, action = REFUSED[case]
    with unchecked(), pytest.raises(ValueError, match=message):
        action()


def test_what_a_model_cannot_embed_is_refused_before_it_reads_anything(ar: dlens.Model) -> None:
    model, long = shallow(ar, 2), "the dog ran. " * 300
    with refused(model, ValueError, "the longest prompt has"):
        text_statistics({"short": ["The dog ran. It was cold."], "long": ["The dog ran.", long]}, embed=model)
    with unchecked(), refused(model, IndexError, "layer 7"):
        text_statistics(["The dog ran."], embed=model, layer=7)
    with unchecked(), refused(model, ValueError, "texts of 'b'"):
        text_statistics({"a": ["The dog ran."], "b": [3]}, embed=model)
