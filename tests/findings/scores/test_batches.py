from dataclasses import replace

import pytest
import torch

import dlens
from dlens.findings.scores.batches import batched, length_batches, mask_share, masked_rows, rng, token_rows


@pytest.mark.parametrize(("share", "masks"), [(0.0, 0), (0.25, 2), (0.5, 5), (1.0, 10)])
def test_masks_exactly_a_share(share: float, masks: int) -> None:
    ids = list(range(10, 20))
    masked = mask_share(ids, share, 1, rng(0))
    assert sum(token == 1 for token in masked) == masks
    assert all(token in (1, old) for token, old in zip(masked, ids, strict=True))


def test_rows_are_masked_at_one_rate_after_the_other() -> None:
    rows, generator = [list(range(10, 18)), list(range(20, 24))], rng(3)
    expected = [mask_share(row, rate, 1, generator) for rate in (0.0, 0.5) for row in rows]
    assert masked_rows(rows, (0.0, 0.5), 1, rng(3)) == expected
    assert [row.count(1) for row in expected] == [0, 0, 4, 2]


def test_texts_become_rows_without_padding(ar: dlens.Model) -> None:
    texts = ["Once", "Once upon a time"]
    assert token_rows(ar, texts) == [ar.tokenizer(text)["input_ids"] for text in texts]
    assert token_rows(ar, torch.tensor([5, 6])) == [[5, 6]]


def test_batches_hold_everything_in_order() -> None:
    assert [list(part) for part in batched(range(5), 2)] == [[0, 1], [2, 3], [4]]
    with pytest.raises(ValueError, match="batch_size=0; expected at least 1"):
        batched([1], 0)


def test_rows_of_similar_length_run_together(ar: dlens.Model) -> None:
    rows = [[5] * length for length in (2, 4, 2, 3, 4, 4)]
    assert length_batches(ar, rows, 4) == [[1, 4, 5, 3], [0, 2]]
    assert length_batches(replace(ar, honours_padding=False), rows, 2) == [[1, 4], [5], [3], [0, 2]]
