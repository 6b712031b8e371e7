"""Make the training data: `python -m recipes.trio.prepare DOCUMENTS ... --benchmarks FILES ... --out FOLDER`.

Writes train.npy (rows of token ids), valid.jsonl (held-out documents), tokenizer/ and data.json
(what is in it, for the model cards).
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from tqdm.auto import tqdm

from dlens.tasks import get
from recipes.trio.documents import SOURCES, Document, benchmark_ngrams, is_validation, overlaps, read_documents
from recipes.trio.tokens import encode, encode_problems, pack, train_tokenizer

__all__ = ["prepare"]

_PART = 20_000


def prepare(
    documents: tuple[Path, ...],
    /,
    benchmarks: tuple[Path, ...],
    out: Path = Path("data"),
    math: int = 1_400_000,
    code: int = 500_000,
    vocab_size: int = 4096,
    workers: int = 2,
    seed: int = 0,
) -> None:
    """Make the training data of the trio.

    Args:
        documents: JSON lines with "text" and "set" (a key of SOURCES), plain or gzipped.
        benchmarks: JSON lines of benchmark problems; documents that share 13 words in a row are dropped.
        out: folder to write to.
        math: problems of trio-math, from its training split.
        code: problems of trio-code, likewise.
        vocab_size: tokens of the tokenizer.
        workers: processes.
        seed: of the problems and of the order.
    """
    out.mkdir(parents=True, exist_ok=True)
    ngrams = benchmark_ngrams(benchmarks)
    found = read_documents(documents)
    clean = [document for document in tqdm(found, "decontaminate") if not overlaps(document.text, ngrams)]
    held = [document for document in clean if is_validation(document.text)]
    kept = [document for document in clean if not is_validation(document.text)]
    tokenizer = train_tokenizer(_tokenizer_texts(kept, seed), vocab_size)
    tokenizer.save_pretrained(out / "tokenizer")
    rows, counts = _document_rows(tokenizer, kept, seed)
    problems = {"trio-math": math, "trio-code": code}
    with ProcessPoolExecutor(workers) as pool:
        for task, n in problems.items():
            made = list(tqdm(pool.map(partial(_problem_rows, out / "tokenizer", task), *_parts(n, seed)), desc=task))
            rows.append(np.concatenate(made))
            counts[task] = rows[-1].size
    np.save(out / "train.npy", np.concatenate(rows))
    _write_valid(out / "valid.jsonl", held)
    summary = {
        "rows": sum(map(len, rows)),
        "tokens": counts,
        "documents": len(kept),
        "validation_documents": len(held),
        "dropped_for_overlap": len(found) - len(clean),
        "problems": problems,
        "seed": seed,
    }
    (out / "data.json").write_text(json.dumps(summary, indent=1) + "\n")


def _tokenizer_texts(documents: Sequence[Document], seed: int) -> Iterator[str]:
    """A tenth as many problems as documents, so that their words become tokens too."""
    yield from (document.text for document in documents)
    for task in ("trio-math", "trio-code"):
        for problem in get(task).problems(max(4, len(documents) // 10), seed, "train"):
            yield problem.prompt + problem.answer


def _document_rows(tokenizer: Any, documents: Sequence[Document], seed: int) -> tuple[list[np.ndarray], dict[str, int]]:
    """Rows of each set as often as its source says, every time in another order."""
    rng = random.Random(seed)
    rows: list[np.ndarray] = []
    counts: dict[str, int] = {}
    for name, source in SOURCES.items():
        ids = encode(tokenizer, [document.text for document in documents if document.set == name]) if documents else []
        for _ in range(source.repeats):
            rng.shuffle(ids)
            rows.append(pack(ids, keep_tails=True))
            counts[name] = counts.get(name, 0) + rows[-1].size
    return rows, counts


def _parts(n: int, seed: int) -> tuple[list[int], list[int]]:
    """Numbers of problems and the seed of each part; parts differ by their seed."""
    sizes = [min(_PART, n - start) for start in range(0, n, _PART)]
    return sizes, [1000 * seed + part for part in range(len(sizes))]


def _problem_rows(folder: Path, task: str, n: int, seed: int) -> np.ndarray:
    from transformers import AutoTokenizer

    problems = list(get(task).problems(n, seed, "train"))
    random.Random(seed).shuffle(problems)
    return pack(encode_problems(AutoTokenizer.from_pretrained(folder), problems), keep_tails=False)


def _write_valid(path: Path, documents: Sequence[Document]) -> None:
    lines = (json.dumps({"text": held.text, "domain": SOURCES[held.set].domain}) for held in documents)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(prepare)
