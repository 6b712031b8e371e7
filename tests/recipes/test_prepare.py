"""The training data holds what it should, and nothing that is measured later."""

import json
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer

from dlens.tasks import get, names
from recipes.trio.documents import Document, is_validation, read_documents
from recipes.trio.tokens import QUESTION, ROW, encode_problems, pack
from tests.recipes.conftest import BENCHMARK


def _texts(data: Path) -> str:
    tokenizer = AutoTokenizer.from_pretrained(data / "tokenizer")
    return tokenizer.decode((np.load(data / "train.npy") & (QUESTION - 1)).flatten().tolist())


def test_rows_are_whole_and_start_with_a_document(data: Path) -> None:
    rows = np.load(data / "train.npy")
    about = json.loads((data / "data.json").read_text())
    assert rows.shape == (about["rows"], ROW) and rows.size == sum(about["tokens"].values())
    assert (rows[:, 0] & (QUESTION - 1)).min() > 0


def test_what_overlaps_a_benchmark_or_is_held_out_is_not_trained_on(documents: Path, data: Path) -> None:
    text = _texts(data)
    found = read_documents([documents])
    held = [document.text for document in found if is_validation(document.text)]
    written = [json.loads(line)["text"] for line in (data / "valid.jsonl").read_text().splitlines()]
    assert held and written == held and not any(document in text for document in held)
    assert BENCHMARK not in text
    assert json.loads((data / "data.json").read_text())["dropped_for_overlap"] == 1


def test_no_test_problem_is_trained_on(data: Path) -> None:
    text = _texts(data)
    trained = [problem.prompt for task in names() for problem in get(task).problems(40, 0, "train")]
    tested = [problem.prompt for task in names() for problem in get(task).problems(100)]
    # Rows cut the last problem, so not every one is whole.
    assert sum(prompt in text for prompt in trained) > 60
    assert not any(prompt in text for prompt in tested)


def test_a_text_counts_once(documents: Path) -> None:
    once, twice = read_documents([documents]), read_documents([documents, documents])
    assert once == twice and isinstance(once[0], Document)


def test_questions_are_marked(data: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(data / "tokenizer")
    problem = get("trio-math").problems(3)[2]
    (ids,) = encode_problems(tokenizer, [problem])
    marked = ids >= QUESTION
    assert tokenizer.decode((ids[marked] - QUESTION).tolist()) == problem.prompt
    assert tokenizer.decode(ids[~marked].tolist()) == problem.answer + "<|endoftext|>"


def test_packing_by_hand() -> None:
    long, short = np.arange(1, 301, dtype=np.uint16), np.arange(1, 101, dtype=np.uint16)
    kept = pack([short, long, short, short], keep_tails=True)
    assert kept.tolist() == [[*short, *long[:156]], [*long[156:], *short, *short[:12]]]
    cut = pack([short, short, short, short, short, short], keep_tails=False)
    assert cut.tolist() == 2 * [[*short, *short, *short[:56]]]


def test_every_reader_of_the_tokenizer_splits_alike(data: Path) -> None:
    import dlens.models.source as source

    text = "Rose has 14 stars.\n    return ((x + 30) * 2)\nIt's 5!"
    plain = AutoTokenizer.from_pretrained(data / "tokenizer")
    ours = source.read_tokenizer(str(data / "tokenizer"), False, {})
    assert plain(text)["input_ids"] == ours(text)["input_ids"] and ours.mask_token_id == 1
    assert plain.decode(plain(text)["input_ids"]) == text
