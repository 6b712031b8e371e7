"""Turn what users write (text, messages, token ids) into a left-padded batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlens.axes import TokenIds, TokenMask
from dlens.devices import sent
from dlens.models.model import Model
from dlens.ops.base.given import as_index

__all__ = ["Batch", "as_batch", "refuse_masks", "refuse_too_long"]


@dataclass(frozen=True)
class Batch:
    """Prompts as one left-padded tensor.

    Args:
        ids: [batch, position], on the model's device where a run has it.
        real: [batch, position], what is not padding.
    """

    ids: TokenIds
    real: TokenMask

    @cached_property
    def lengths(self) -> list[int]:
        """Real tokens per row."""
        return self.real.sum(-1).tolist()

    @property
    def padded(self) -> bool:
        """Whether any row is padded."""
        return not bool(self.real.all())

    def of(self, rows: Sequence[int]) -> Batch:
        """Some prompts, without the columns in which all of them are padded."""
        width = max(self.lengths[row] for row in rows)
        return Batch(self.ids[list(rows), -width:], self.real[list(rows), -width:])

    def to(self, device: torch.device) -> Batch:
        """The same on another device, which is not waited for; itself where it is there."""
        return self if self.ids.device == device else Batch(sent(self.ids, device), sent(self.real, device))


def as_batch(model: Model, inputs: Any) -> Batch:
    """Read prompts of any accepted form.

    Args:
        model: whose tokenizer and device are used.
        inputs: text, a list of token ids, a 1-d tensor or array, or a list of chat messages
            (`{"role", "content"}`): one row; or a list of any of these, a 2-d tensor, or what a tokenizer
            returns (`input_ids`, and `attention_mask` that says what is padding, on either side). Text gets the
            special tokens that its tokenizer adds, but those that it begins or ends with itself. A batch that was
            read before is taken as it is.

    Raises:
        ValueError: nothing to run, an empty row, ids outside the vocabulary, or text without a tokenizer.
    """
    if isinstance(inputs, Batch):
        return inputs.to(model.device)
    rows = _rows(inputs)
    if not rows:
        raise ValueError("got no prompts; expected at least one; pass a string or a list of strings")
    return _pad(model, [_row_ids(model, row) for row in rows])


def _rows(inputs: Any) -> list[Any]:
    """The prompts, one by one."""
    if isinstance(inputs, Mapping):
        return _encoded_rows(inputs)
    if isinstance(inputs, (Tensor, np.ndarray)):
        if inputs.ndim not in (1, 2):
            raise ValueError(
                f"got a tensor of shape {tuple(inputs.shape)} as input; expected token ids [position] or "
                f"[batch, position]; reshape it"
            )
        return [inputs] if inputs.ndim == 1 else list(inputs)
    if isinstance(inputs, (bytes, bytearray)) or not isinstance(inputs, Sequence):
        raise ValueError(
            f"got {type(inputs).__name__} as input; expected text, token ids, chat messages, or a list of these; "
            f"pass for example a string"
        )
    return [inputs] if isinstance(inputs, str) or (inputs and not _is_prompt(inputs[0])) else list(inputs)


def _is_prompt(entry: Any) -> bool:
    """Whether an entry of a list is a prompt by itself, and not a token or a message."""
    return isinstance(entry, Sequence) or (isinstance(entry, (Tensor, np.ndarray)) and entry.ndim > 0)


def _encoded_rows(encoded: Mapping[str, Any]) -> list[Any]:
    """The rows that a tokenizer returned, without their padding."""
    if "input_ids" not in encoded:
        raise ValueError(
            f"got a mapping of {', '.join(map(str, encoded))} as input; expected input_ids in it; pass what a "
            f"tokenizer returned, or put a chat message into a list"
        )
    rows = [_row_ids(None, row) for row in _rows(encoded["input_ids"])]
    mask = encoded.get("attention_mask")
    if mask is None:
        return rows
    kept = [torch.as_tensor(row).bool().tolist() for row in _rows(mask)]
    if list(map(len, rows)) != list(map(len, kept)):
        raise ValueError(
            f"got an attention_mask for rows of {list(map(len, kept))} tokens; expected {list(map(len, rows))}, as "
            f"input_ids has; pass both as the tokenizer returned them"
        )
    return [[token for token, keep in zip(*pair, strict=True) if keep] for pair in zip(rows, kept, strict=True)]


def _row_ids(model: Model | None, row: Any) -> list[int]:
    # The usual case, and in a stream of many prompts most of what reading them takes.
    if type(row) is list and _are_ids(row):
        return row
    if isinstance(row, str) and model is not None:
        return _text_ids(_tokenizer(model, "text"), row)
    if isinstance(row, Sequence) and row and isinstance(row[0], Mapping) and model is not None:
        return _chat_ids(model, row)
    came = f"got a prompt of type {type(row).__name__}"
    if isinstance(row, (str, bytes, bytearray)) or not isinstance(row, (Sequence, Tensor, np.ndarray)):
        raise ValueError(f"{came}; expected text, token ids or chat messages; pass for example a string")
    entries = row.tolist() if isinstance(row, (Tensor, np.ndarray)) else row
    if _are_ids(entries):
        return list(entries)
    fix = "token ids are whole numbers: pass ints, or text"
    return [as_index(entry, f"{came} with token id", fix) for entry in entries]


def _are_ids(entries: Sequence[Any]) -> bool:
    return set(map(type, entries)) <= {int}


def _text_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids with the special tokens that the tokenizer puts around a text, but those that the text has itself.

    A chat template that is not tokenised writes them into the text.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"got text with the lone surrogate {text[error.start]!a} at {error.start}; expected text that UTF-8 can "
            f"hold; read its file as UTF-8, or drop such characters"
        ) from None
    around, inside = list(tokenizer(text)["input_ids"]), list(tokenizer(text, add_special_tokens=False)["input_ids"])
    added = len(around) - len(inside)
    front = next((n for n in range(added, -1, -1) if around[n : n + len(inside)] == inside), 0)
    before, after = around[:front], around[front + len(inside) :]
    starts = bool(inside) and inside[: len(before)] == before
    ends = bool(inside) and inside[len(inside) - len(after) :] == after
    return [*(() if starts else before), *inside, *(() if ends else after)]


def _tokenizer(model: Model, what: str) -> Any:
    if model.tokenizer is None:
        raise ValueError(
            f"{model.name} has no tokenizer and got {what}; expected token ids; "
            f"pass ids, or load with dlens.load(..., tokenizer=...)"
        )
    return model.tokenizer


def _chat_ids(model: Model, messages: Sequence[Any]) -> list[int]:
    tokenizer = _tokenizer(model, "chat messages")
    if not tokenizer.chat_template:
        raise ValueError(
            f"{model.name} has no chat template and got messages; expected plain text; "
            f"pass a string, which is never templated"
        )
    return list(tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=False))


def _pad(model: Model, rows: list[list[int]]) -> Batch:
    vocab = model.vocab_size
    for number, row in enumerate(rows):
        if not row:
            raise ValueError(f"prompt {number} holds no tokens; expected at least one; drop it or write something")
        if min(row) < 0 or max(row) >= vocab:
            raise ValueError(
                f"prompt {number} holds token id {max(row) if max(row) >= vocab else min(row)}; "
                f"expected 0 to {vocab - 1}; use the tokenizer of {model.name}"
            )
    lengths = torch.tensor([len(row) for row in rows])
    width = int(lengths.max())
    real = torch.arange(width) >= width - lengths[:, None]
    ids = torch.full(real.shape, model.pad_token_id)
    # Of many prompts torch itself would take ten times as long to read the numbers.
    ids[real] = torch.from_numpy(np.fromiter(chain.from_iterable(rows), np.int64))
    return Batch(ids.to(model.device), real.to(model.device))


def refuse_too_long(model: Model, batch: Batch, new_tokens: int) -> None:
    """Refuse a run that would not fit into the context.

    Raises:
        ValueError: prompt and new tokens are more than the model has positions.
    """
    longest = max(batch.lengths) + new_tokens
    if model.n_positions is not None and longest > model.n_positions:
        raise ValueError(
            f"the longest prompt has {max(batch.lengths)} tokens and {new_tokens} are to come, {longest} in all; "
            f"expected at most {model.n_positions}, the context of {model.name}; shorten the prompt or ask for fewer"
        )


def refuse_masks(model: Model, batch: Batch) -> None:
    """Refuse a prompt that holds the mask token, which a sampler would fill.

    Raises:
        ValueError: names the first such prompt.
    """
    masks = (batch.ids == model.family.mask_token_id) & batch.real
    if masks.any():
        row = int(masks.any(-1).nonzero()[0])
        raise ValueError(
            f"prompt {row} holds the mask token ({model.family.mask_token_id}) {int(masks[row].sum())} times; "
            f"expected none, as a sampler would fill it; pass infill=True if that is what you want"
        )
