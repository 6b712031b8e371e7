"""What users may pass as input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import dlens
from dlens.tracing.planning.inputs import as_batch


def test_all_forms_of_one_prompt_are_the_same(ar: dlens.Model) -> None:
    ids = ar.tokenizer("Once upon a time")["input_ids"]
    for form in ("Once upon a time", ids, torch.tensor(ids), ["Once upon a time"], [ids], torch.tensor([ids])):
        batch = as_batch(ar, form)
        assert batch.ids.tolist() == [ids] and not batch.padded


def test_rows_are_padded_on_the_left(ar: dlens.Model) -> None:
    batch = as_batch(ar, [[5, 6, 7], torch.tensor([8]), [9, 10]])
    assert batch.ids.tolist() == [[5, 6, 7], [0, 0, 8], [0, 9, 10]]
    assert batch.lengths == [3, 1, 2] and batch.padded


def test_arrays_and_lists_of_single_numbers_are_token_ids(ar: dlens.Model) -> None:
    for form in (np.array([5, 6]), np.array([[5, 6]]), [np.int64(5), 6], [torch.tensor(5), torch.tensor(6)], (5, 6)):
        assert as_batch(ar, form).ids.tolist() == [[5, 6]]
    assert as_batch(ar, (torch.tensor([5]), "Once")).lengths[0] == 1


@pytest.mark.parametrize("side", ["left", "right"])
def test_what_a_tokenizer_returns_is_read_with_its_padding(ar: dlens.Model, side: str) -> None:
    tokenizer = type(ar.tokenizer)(tokenizer_object=ar.tokenizer.backend_tokenizer, padding_side=side)
    tokenizer.pad_token = ar.tokenizer.pad_token
    texts = ["Once upon a time", "Once"]
    for kind in ("pt", "np", None):
        encoded = tokenizer(texts, return_tensors=kind, padding=True)
        batch, plain = as_batch(ar, encoded), as_batch(ar, texts)
        assert torch.equal(batch.ids, plain.ids) and torch.equal(batch.real, plain.real)
    assert as_batch(ar, tokenizer(texts[0])).ids.tolist() == [tokenizer(texts[0])["input_ids"]]


def test_only_messages_are_templated(ar: dlens.Model) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    with pytest.raises(ValueError, match="has no chat template"):
        as_batch(ar, messages)
    tokenizer = type(ar.tokenizer)(tokenizer_object=ar.tokenizer.backend_tokenizer)
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    chat = replace(ar, tokenizer=tokenizer)
    rows = as_batch(chat, [messages, messages + [{"role": "assistant", "content": "Hi"}]])
    assert tokenizer.decode(rows.ids[0][rows.real[0]].tolist()) == "<user>Hello<assistant>"
    assert tokenizer.decode(rows.ids[1].tolist()) == "<user>Hello<assistant>Hi<assistant>"
    assert tokenizer.decode(as_batch(chat, "Hello").ids[0].tolist()) == "Hello"


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "got no prompts"),
        ([[]], "prompt 0 holds no tokens"),
        (["Once", ""], "prompt 1 holds no tokens"),
        ([[5, 4096]], "holds token id 4096; expected 0 to 4095"),
        ([[-1]], "holds token id -1"),
        (7, "got int as input"),
        ([["a"]], "got a prompt of type list with token id 'a'"),
        (torch.tensor([1.9, 2.2]), "with token id 1.89"),
        ([True, False], "token id True"),
        (torch.ones(3) > 0, "token id True"),
        (b"abc", "got bytes as input"),
        ([b"abc"], "got a prompt of type bytes"),
        (torch.tensor(3), r"got a tensor of shape \(\) as input"),
        (torch.ones(1, 2, 3).long(), r"got a tensor of shape \(1, 2, 3\) as input"),
        ({"role": "user", "content": "x"}, "got a mapping of role, content as input; expected input_ids"),
        ({"input_ids": [[5, 6]], "attention_mask": [[1]]}, r"attention_mask for rows of \[1\] tokens; expected \[2\]"),
    ],
)
def test_bad_input_is_refused(ar: dlens.Model, inputs: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dlens.trace(ar).forward(inputs)


def test_text_without_a_tokenizer_is_refused(ar: dlens.Model) -> None:
    with pytest.raises(ValueError, match="has no tokenizer and got text; expected token ids"):
        dlens.trace(replace(ar, tokenizer=None)).forward("Once")
