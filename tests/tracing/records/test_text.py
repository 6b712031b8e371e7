"""Text, ends of rows and the order of commits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

import dlens
from dlens.tracing.records.text import MASK_SIGN, after_end, committed_at, continuations, drafts, end_ids, pieces
from tests.reference import fresh
from tests.tracing.plain import NEW, PROMPTS


def test_committed_at_and_states(model: dlens.Model) -> None:
    record = dlens.trace(model).generate(PROMPTS, NEW)
    assert record.canvas is not None
    final = torch.cat([record.canvas[1:], record.tokens[None]])
    for row in range(3):
        for column in range(record.tokens.shape[1]):
            changes = (final[:, row, column] != record.canvas[:, row, column]).nonzero().flatten().tolist()
            assert record.committed_at[row, column] == (changes[-1] if changes else -1)
    assert (record.committed_at[:, :-NEW] == -1).all()


def test_text_of_infilled_rows_is_the_same_alone_and_in_a_batch(diffusion: dlens.Model) -> None:
    ids = diffusion.tokenizer("Once upon a time there was a little girl named Lily.")["input_ids"]
    mask, end = diffusion.family.mask_token_id, diffusion.eos_token_id
    short, long = [*ids[:3], mask], [*ids[:2], end, *ids[2:6], mask]
    together = dlens.trace(diffusion).generate([short, long], 8, infill=True)
    alone = dlens.trace(diffusion).generate([short], 8, infill=True)
    assert alone.text[0].startswith("Once upon a") and len(alone.text[0]) > 15
    assert together.text[0].startswith("Once upon a") and len(together.text[0]) > 15
    assert together.text[1].startswith("Once upon a")


def test_ends_are_those_of_tokenizer_generation_config_and_family(ar: dlens.Model, diffusion: dlens.Model) -> None:
    assert end_ids(ar) == (0,)
    model = replace(ar, module=fresh(ar.module), family=replace(ar.family, end_token_ids=(9,)))
    module: Any = model.module
    module.generation_config.eos_token_id = [3, 0]
    assert end_ids(model) == (0, 3, 9)


def test_only_an_end_that_was_generated_ends_a_row() -> None:
    tokens = torch.tensor([[9, 5, 9, 6, 9, 7]])
    generated = torch.tensor([[False, False, True, True, True, True]])
    assert after_end(tokens, generated, (9,)).long().tolist() == [[0, 0, 0, 1, 1, 1]]
    assert not after_end(tokens, generated, (8,)).any()


def test_text_ends_at_its_end_and_needs_a_tokenizer(ar: dlens.Model) -> None:
    ids = torch.tensor([[*ar.tokenizer("Once upon a time")["input_ids"], 0, 70]])
    everything = torch.ones_like(ids, dtype=torch.bool)
    assert continuations(ar, ids, everything, everything) == ["Once upon a time"]
    bare = replace(ar, tokenizer=None)
    assert continuations(bare, ids, everything, everything) == [] == drafts(bare, ids, 0)
    assert pieces(bare, ids) == {}


def test_drafts_show_a_sign_for_every_mask(diffusion: dlens.Model) -> None:
    mask = diffusion.family.mask_token_id
    once, upon = diffusion.tokenizer("Once upon")["input_ids"]
    ids = torch.tensor([[upon, once, mask, mask, upon], [mask] * 5])
    assert drafts(diffusion, ids, 1) == [f"Once{MASK_SIGN * 2} upon", MASK_SIGN * 4]


def test_pieces_are_read_once_for_each_token_and_not_for_none(diffusion: dlens.Model) -> None:
    once, upon = diffusion.tokenizer("Once upon")["input_ids"]
    assert pieces(diffusion, torch.tensor([[upon, -1], [once, upon]])) == {once: "Once", upon: " upon"}


def test_the_step_of_the_last_change() -> None:
    canvas = torch.tensor([[[1, 1, 5, 1]], [[7, 1, 5, 1]], [[8, 1, 5, 2]]])
    assert committed_at(canvas, torch.tensor([[8, 3, 5, 2]])).tolist() == [[1, 2, -1, 1]]
