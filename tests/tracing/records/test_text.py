"""Text, ends of rows and the order of commits."""

from __future__ import annotations

import torch

import dlens
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
