"""How a model reads and writes text has a name of its own."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
from tokenizers import decoders

import dlens
from dlens.models.reading import reading


def decoder_of_another_kind(tokenizer: Any) -> None:
    tokenizer.backend_tokenizer.decoder = decoders.Fuse()


def another_template(tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ messages[0].content }}"


def another_decode(tokenizer: Any) -> None:
    tokenizer.decode = lambda ids, **_: "the same"


def another_end(tokenizer: Any) -> None:
    tokenizer.eos_token = "the"


@pytest.mark.parametrize("edit", [decoder_of_another_kind, another_template, another_decode, another_end])
def test_a_changed_tokenizer_is_another(edit: Any, ar: dlens.Model) -> None:
    tokenizer = copy.deepcopy(ar.tokenizer)
    model = replace(ar, tokenizer=tokenizer)
    assert reading(model) == reading(ar)
    edit(tokenizer)
    assert reading(model) != reading(ar)


def test_rules_of_the_family_and_of_padding_count(diffusion: dlens.Model) -> None:
    changed = (
        *(replace(diffusion.family, **{name: value}) for name, value in FAMILY.items()),
        replace(diffusion.family, inputs=lambda ids, mask: {"input_ids": ids}),
    )
    models = [diffusion, *(replace(diffusion, family=family) for family in changed)]
    models += [replace(diffusion, honours_padding=False), replace(diffusion, tokenizer=None)]
    assert len(set(map(reading, models))) == len(models)


FAMILY: dict[str, Any] = {"mask_token_id": 5, "shift": 1, "end_token_ids": (7,), "name": "mine"}
