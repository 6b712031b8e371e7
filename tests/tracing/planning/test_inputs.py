"""What users may pass as input."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import dlens
from dlens import trace
from dlens.samplers import LLaDA
from dlens.tracing.planning.inputs import as_batch
from tests.reference import fresh
from tests.refusing import STORY, Action, refused
from tests.unchecked import unchecked


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


def adding(model: dlens.Model, template: str) -> Any:
    """The model's tokenizer, with special tokens put around every text."""
    from tokenizers.processors import TemplateProcessing

    backend = copy.deepcopy(model.tokenizer.backend_tokenizer)
    marks = [(mark, backend.token_to_id(mark)) for mark in ("<|endoftext|>", "<|mask|>") if mark in template]
    backend.post_processor = TemplateProcessing(single=template, special_tokens=marks)
    return type(model.tokenizer)(tokenizer_object=backend)


def test_a_text_gets_the_special_tokens_that_it_lacks(ar: dlens.Model) -> None:
    plain, end = ar.tokenizer("Once upon")["input_ids"], ar.tokenizer("<|endoftext|>")["input_ids"]
    model = replace(ar, tokenizer=adding(ar, "<|endoftext|> $A"))
    for text in ("Once upon", "<|endoftext|>Once upon"):
        assert as_batch(model, text).ids.tolist() == [[*end, *plain]]
    assert as_batch(model, ["<|endoftext|>"]).ids.tolist() == [end]
    assert as_batch(model, "Once<|endoftext|>").ids[0, [0, -1]].tolist() == end * 2
    both = replace(ar, tokenizer=adding(ar, "<|endoftext|> $A <|endoftext|>"))
    for text in (
        "Once upon",
        "<|endoftext|>Once upon",
        "Once upon<|endoftext|>",
        "<|endoftext|>Once upon<|endoftext|>",
    ):
        assert as_batch(both, text).ids.tolist() == [[*end, *plain, *end]]


def test_text_that_utf_8_cannot_hold_is_refused(ar: dlens.Model) -> None:
    with refused(ar, ValueError, r"the lone surrogate '\ud800' at 4"):
        trace(ar).forward("Once\ud800")


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


REFUSED: dict[str, tuple[str, Action]] = {
    "too long": ("509 are to come", lambda m: trace(m).generate(STORY, 509)),
    "too long for a forward": ("has 513 tokens", lambda m: trace(m).forward([7] * 513)),
    "no prompts": ("no prompts", lambda m: trace(m).generate([], 8)),
    "an empty prompt": ("prompt 1 holds no tokens", lambda m: trace(m).generate([[7], []], 8)),
    "an empty string": ("prompt 0 holds no tokens", lambda m: trace(m).forward("")),
    "an id beyond": ("token id 4096", lambda m: trace(m).forward([1, 4096])),
    "a negative id": ("token id -1", lambda m: trace(m).forward([1, -1])),
    "a number": ("got int", lambda m: trace(m).forward(7)),
    "a list of floats": ("token id 0.5", lambda m: trace(m).forward([0.5])),
    "messages": ("no chat template", lambda m: trace(m).forward([{"role": "user", "content": "hi"}])),
}


AR_REFUSED: dict[str, tuple[str, Action]] = {
    "too long": ("509 are to come", lambda m: trace(m).generate(STORY, 509)),
}


def test_a_mask_token_in_the_prompt(diffusion: dlens.Model) -> None:
    mask = diffusion.family.mask_token_id
    with refused(diffusion, ValueError, f"prompt 1 holds the mask token ({mask}) 2 times"):
        trace(diffusion).ablate_outlier().generate([[5, 6], [5, mask, mask]], 8)
    assert trace(diffusion).forward([5, mask]).n_steps == 1


def test_a_missing_tokenizer(diffusion: dlens.Model) -> None:
    model = dlens.load(fresh(diffusion.module))
    message = {"role": "user", "content": "hi"}
    for inputs, what in ((STORY, "text"), ([STORY], "text"), ([message], "chat messages")):
        with refused(model, ValueError, f"no tokenizer and got {what}"):
            trace(model).forward(inputs)
        with refused(model, ValueError, f"no tokenizer and got {what}"):
            trace(model).generate(inputs, 4)
    for chain, needed in (
        (trace(model).ablate_outlier(), "the outlier channel is found on text; load with tokenizer=, or name"),
        (trace(model).ablate(3, value="mean"), "value='mean' is measured on text; load with tokenizer=, or give"),
        (trace(model).ablate_outlier(5, value="mean"), "value='mean' is measured on text"),
    ):
        with refused(model, ValueError, "no tokenizer to read the calibration text"):
            try:
                chain.forward([5, 6])
            except ValueError as error:
                assert f"; expected one, as {needed}" in str(error)
                raise
    with refused(model, ValueError, "eos_inf=True"):
        bare = dataclasses.replace(model, module=model.module)
        bare.config.eos_token_id = None
        trace(bare).generate([5, 6], 4, sampler=LLaDA(eos_inf=True))


@pytest.mark.parametrize("case", REFUSED)
def test_input_that_no_model_can_read(diffusion: dlens.Model, case: str) -> None:
    came, action = REFUSED[case]
    with unchecked(), refused(diffusion, ValueError, came):
        action(diffusion)


@pytest.mark.parametrize("case", AR_REFUSED)
def test_input_that_no_decoder_can_go_on_from(ar: dlens.Model, case: str) -> None:
    came, action = AR_REFUSED[case]
    with unchecked(), refused(ar, ValueError, came):
        action(ar)


def test_a_batch_that_was_read_is_taken_as_it_is(ar: dlens.Model) -> None:
    batch = as_batch(ar, [[5, 6, 7], [8], [9, 10]])
    assert as_batch(ar, batch) is batch is batch.to(torch.device("cpu"))
    part = batch.of([2, 1])
    assert part.ids.tolist() == [[9, 10], [0, 8]] and part.real.tolist() == [[True, True], [False, True]]
    assert part.lengths == [2, 1] and batch.lengths == [3, 1, 2]
    away = batch.to(torch.device("meta"))
    assert away.ids.device.type == away.real.device.type == "meta"
