"""Text as rows of token ids: the tokenizer, and how documents fill rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from dlens.tasks import Problem

__all__ = ["END", "MASK", "QUESTION", "ROW", "encode", "encode_problems", "pack", "train_tokenizer"]

END, MASK = "<|endoftext|>", "<|mask|>"
ROW = 256
# Set in a token id that belongs to the question of a problem; the vocabulary leaves this bit free.
QUESTION = 1 << 15
_LONGEST_PROMPT = 512


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """Byte-level BPE with the splitting rule of Qwen2, so that every reader of Qwen2 models splits alike.

    The rule takes digits one by one. Token 0 ends a document and pads, token 1 is the mask.
    """
    from transformers import Qwen2Tokenizer

    plain = Qwen2Tokenizer(pad_token=END)
    trained = plain.train_new_from_iterator(texts, vocab_size, new_special_tokens=[MASK], show_progress=False)
    trained.mask_token = MASK
    trained.model_max_length = _LONGEST_PROMPT
    trained.padding_side = "left"
    assert trained.convert_tokens_to_ids([END, MASK]) == [0, 1]
    return trained


def encode(tokenizer: Any, texts: Sequence[str]) -> list[np.ndarray]:
    """Each text as token ids with the end token after it."""
    # The tokenizer's own call would warn of every document that is longer than a row.
    encoded = tokenizer.backend_tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    return [np.array([*row.ids, 0], dtype=np.uint16) for row in encoded]


def encode_problems(tokenizer: Any, problems: Sequence[Problem]) -> list[np.ndarray]:
    """Each problem with its answer as token ids, those of the question marked, with the end token after it."""
    questions = encode(tokenizer, [problem.prompt for problem in problems])
    answers = encode(tokenizer, [problem.answer for problem in problems])
    return [
        np.concatenate([question[:-1] | QUESTION, answer]) for question, answer in zip(questions, answers, strict=True)
    ]


def pack(documents: Iterable[np.ndarray], keep_tails: bool) -> np.ndarray:
    """Fill rows of 256 tokens with documents, each row from the start of one.

    Args:
        documents: token ids, marks and the end token included.
        keep_tails: whether what does not fit into a row begins the next one (for documents that are
            longer than a row) or is dropped (for generated problems, of which there are enough).

    Returns:
        Rows [n, 256]; the last row is dropped where it is not full.
    """
    rows: list[np.ndarray] = []
    parts: list[np.ndarray] = []
    room = ROW
    for document in documents:
        rest = document
        while len(rest):
            parts.append(rest[:room])
            rest = rest[room:]
            room -= len(parts[-1])
            if room == 0:
                rows.append(np.concatenate(parts))
                parts, room = [], ROW
                # An end token alone would begin a row with nothing.
                if not keep_tails or len(rest) == 1:
                    break
    return np.stack(rows) if rows else np.zeros((0, ROW), dtype=np.uint16)
