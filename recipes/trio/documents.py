"""Documents to train on: where they come from, which are held out, and which overlap with a benchmark."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

__all__ = ["SOURCES", "Document", "Source", "benchmark_ngrams", "is_validation", "overlaps", "read_documents"]

NGRAM = 13
_LAST_MBPP_TEST = 510
_WORD = re.compile(r"[a-z0-9]+")
# One document in so many is held out for validation.
_VALIDATION_SHARE = 100


@dataclass(frozen=True)
class Source:
    """Where a set of documents comes from.

    Args:
        domain: "stories", "prose", "code" or "math"; the validation loss is told apart by it.
        origin: who published it.
        licence: of the texts.
        repeats: how often it occurs in one pass over the training data.
    """

    domain: str
    origin: str
    licence: str
    repeats: int


SOURCES = MappingProxyType(
    {
        "stories_tinystories": Source("stories", "TinyStories (arXiv 2305.07759)", "CDLA-Sharing-1.0", 6),
        "stories_picturebooks": Source(
            "stories",
            "African Storybook and Pratham Books (global-asp/asp-source, global-asp/pb-source)",
            "CC-BY-4.0 or public domain",
            6,
        ),
        "prose_children": Source("prose", "mlschmitt/classic-books-markdown", "public domain (US)", 3),
        "prose_novels": Source("prose", "mlschmitt/classic-books-markdown", "public domain (US)", 1),
        "math_gsm8k_train": Source("math", "openai/grade-school-math, calculator marks removed", "MIT", 3),
        "code_stdlib": Source("code", "CPython 3.11.7 standard library", "PSF-2.0", 1),
        "code_thealgorithms": Source("code", "TheAlgorithms/Python", "MIT", 2),
        "code_keon": Source("code", "keon/algorithms", "MIT", 2),
        "code_mbpp_train": Source("code", "MBPP, tasks 601 to 974", "CC-BY-4.0", 2),
    }
)


@dataclass(frozen=True)
class Document:
    """One text and the name of its set, a key of `SOURCES`."""

    text: str
    set: str


def read_documents(paths: Sequence[Path]) -> list[Document]:
    """Read documents from JSON lines with "text" and "set", plain or gzipped; a text counts once.

    Raises:
        ValueError: a set that `SOURCES` does not name.
    """
    texts: dict[str, Document] = {}
    for entry in _lines(paths):
        if entry["set"] not in SOURCES:
            raise ValueError(
                f"a document of set {entry['set']!r}; expected one of {', '.join(SOURCES)}; "
                f"add the set with its licence to SOURCES"
            )
        texts.setdefault(entry["text"], Document(entry["text"], entry["set"]))
    return list(texts.values())


def _lines(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    for path in paths:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            yield from (json.loads(line) for line in file if line.strip())


def is_validation(text: str) -> bool:
    """Whether a document is held out, by its SHA-256, so that the same one is on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % _VALIDATION_SHARE == 0


def benchmark_ngrams(paths: Sequence[Path]) -> set[int]:
    """All runs of 13 words in the problems of benchmarks, hashed.

    Args:
        paths: JSON lines, plain or gzipped; every text field of every problem counts. Of MBPP, whose
            one file holds its training tasks too, only the few-shot and test tasks do.
    """
    problems = (entry for entry in _lines(paths) if not _is_mbpp_training(entry))
    fields = (value for entry in problems for value in entry.values() if isinstance(value, str))
    return {ngram for text in fields for ngram in _ngrams(text)}


def _is_mbpp_training(entry: dict[str, Any]) -> bool:
    task = entry.get("task_id")
    return isinstance(task, int) and task > _LAST_MBPP_TEST


def overlaps(text: str, ngrams: set[int]) -> bool:
    """Whether a text shares a run of 13 words with a benchmark."""
    return not ngrams.isdisjoint(_ngrams(text))


def _ngrams(text: str) -> Iterator[int]:
    words = _WORD.findall(text.lower())
    return (hash(tuple(words[i : i + NGRAM])) for i in range(len(words) - NGRAM + 1))
