"""Documents and training data small enough for a test."""

import json
import random
from pathlib import Path

import pytest

from recipes.trio.documents import SOURCES
from recipes.trio.prepare import prepare

WORDS = "the a red blue small big dog cat bird tree house ran sat saw and then it was happy with her his".split()
BENCHMARK = "how much does a quart of fresh lemon juice cost at the little market on the corner today"


def _text(rng: random.Random) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(60)).capitalize() + "."


@pytest.fixture(scope="session")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty documents of every set, one of which quotes a benchmark."""
    rng = random.Random(0)
    entries = [{"text": _text(rng), "set": name} for name in SOURCES for _ in range(60)]
    entries.append({"text": f"{_text(rng)} {BENCHMARK}.", "set": "prose_novels"})
    path = tmp_path_factory.mktemp("documents") / "documents.jsonl"
    path.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    (path.parent / "benchmark.jsonl").write_text(json.dumps({"question": f"Tell me: {BENCHMARK.upper()}?"}) + "\n")
    return path


@pytest.fixture(scope="session")
def data(documents: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training data made of them."""
    out = tmp_path_factory.mktemp("data")
    prepare((documents,), benchmarks=(documents.parent / "benchmark.jsonl",), out=out, math=40, code=40, vocab_size=400)
    return out
