"""Turn what users write (text, messages, token ids) into a left-padded batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dlens.axes import TokenIds, TokenMask
from dlens.models.model import Model

__all__ = ["Batch", "as_batch", "refuse_masks", "refuse_too_long"]


@dataclass(frozen=True)
class Batch:
    """Prompts as one left-padded tensor.

    Args:
        ids: [batch, position], on the model's device.
        real: [batch, position], what is not padding.
    """

    ids: TokenIds
    real: TokenMask

    @property
    def lengths(self) -> list[int]:
        """Real tokens per row."""
        return self.real.sum(-1).tolist()

    @property
    def padded(self) -> bool:
        """Whether any row is padded."""
        return not bool(self.real.all())


def as_batch(model: Model, inputs: Any) -> Batch:
    """Read prompts of any accepted form.

    Args:
        model: whose tokenizer and device are used.
        inputs: text, a list of token ids, a 1-d tensor, or a list of chat messages
            (`{"role", "content"}`): one row; or a list of any of these, or a 2-d tensor.

    Raises:
        ValueError: nothing to run, an empty row, ids outside the vocabulary, or text without a tokenizer.
    """
    rows = [inputs] if _is_row(inputs) else list(inputs)
    if not rows:
        raise ValueError("got no prompts; expected at least one; pass a string or a list of strings")
    return _pad(model, [_row_ids(model, row) for row in rows])


def _is_row(inputs: Any) -> bool:
    if isinstance(inputs, str):
        return True
    if isinstance(inputs, Tensor):
        return inputs.ndim == 1
    if not isinstance(inputs, Sequence):
        raise ValueError(
            f"got {type(inputs).__name__} as input; expected text, token ids, chat messages, or a list of these; "
            f"pass for example a string"
        )
    return len(inputs) > 0 and isinstance(inputs[0], (int, dict))


def _row_ids(model: Model, row: Any) -> list[int]:
    if isinstance(row, Tensor):
        return [int(i) for i in row.tolist()]
    if isinstance(row, str):
        return list(_tokenizer(model, "text")(row)["input_ids"])
    if isinstance(row, Sequence) and row and isinstance(row[0], dict):
        return _chat_ids(model, row)
    if isinstance(row, Sequence) and all(isinstance(i, int) for i in row):
        return list(row)
    raise ValueError(
        f"got a prompt of type {type(row).__name__}; expected text, token ids or chat messages; "
        f"pass for example a string"
    )


def _tokenizer(model: Model, what: str) -> Any:
    if model.tokenizer is None:
        raise ValueError(
            f"{model.name} has no tokenizer and got {what}; expected token ids; "
            f"pass ids, or load with dlens.load(..., tokenizer=...)"
        )
    return model.tokenizer


def _chat_ids(model: Model, messages: Sequence[dict[str, Any]]) -> list[int]:
    tokenizer = _tokenizer(model, "chat messages")
    if not tokenizer.chat_template:
        raise ValueError(
            f"{model.name} has no chat template and got messages; expected plain text; "
            f"pass a string, which is never templated"
        )
    return list(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))


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
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), model.pad_token_id)
    real = torch.zeros(len(rows), width, dtype=torch.bool)
    for number, row in enumerate(rows):
        ids[number, width - len(row) :] = torch.tensor(row)
        real[number, width - len(row) :] = True
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
