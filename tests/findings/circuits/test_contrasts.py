from __future__ import annotations

from typing import Any

import pytest

import dlens
from dlens.findings.circuits.contrasts import Contrast, contrast_of, masked_draws
from tests.refusing import assert_three_parts
from tests.unchecked import unchecked

PAIRS = Contrast(((5, 6, 7, 8, 9), (5, 6, 7)), ((5, 6, 7, 8, 20), (5, 30, 7)))


def test_one_text_and_several_are_read(model: dlens.Model) -> None:
    assert contrast_of(model, [5, 6], [5, 7]) == Contrast(((5, 6),), ((5, 7),))
    pairs = contrast_of(model, [[5, 6, 7], [8, 9]], [[5, 6, 8], [9, 9]])
    assert len(pairs) == 2 and pairs.width == 3


@pytest.mark.parametrize(
    ("clean", "corrupted", "came"),
    [
        ([[5, 6], [7, 8]], [[5, 7]], "got 2 clean texts and 1 corrupted"),
        ([[5, 6], [7, 8]], [[5, 7], [7, 8, 9]], "pair 1 has 2 clean tokens and 3 corrupted"),
        ([[5, 6]], [[5, 6]], "pair 0 is the same text twice"),
    ],
)
def test_texts_that_do_not_correspond_are_refused(model: dlens.Model, clean: Any, corrupted: Any, came: str) -> None:
    with pytest.raises(ValueError, match=came) as caught:
        contrast_of(model, clean, corrupted)
    assert_three_parts(str(caught.value), came)


def test_both_texts_share_their_masks(masked: dlens.Model) -> None:
    draws = masked_draws(masked, PAIRS, 0.5, 3)
    assert len(set(draws)) > 1
    for draw in draws:
        for text, rows in ((PAIRS.clean, draw.clean), (PAIRS.corrupted, draw.corrupted)):
            assert [row.count(1) for row in rows] == [2, 1]
            assert all(
                new in (1, old) for row, own in zip(rows, text, strict=True) for new, old in zip(row, own, strict=True)
            )
        where = [[[token == 1 for token in row] for row in rows] for rows in (draw.clean, draw.corrupted)]
        assert where[0] == where[1]
    assert masked_draws(masked, PAIRS, 0.5, 3) == draws and masked_draws(masked, PAIRS, None, 1) == [PAIRS]
    assert masked_draws(masked, PAIRS, 0.4, 3)[0].clean[0].count(1) == 2


@pytest.mark.parametrize(
    ("noise", "seeds", "came"),
    [
        (1.0, 1, "noise=1.0"),
        ("half", 1, "noise='half'"),
        (None, 3, "seeds=3 with noise=None"),
        (0.5, 0, "seeds=0"),
    ],
)
def test_draws_that_make_no_sense_are_refused(masked: dlens.Model, noise: Any, seeds: int, came: str) -> None:
    with unchecked(), pytest.raises(ValueError, match=came) as caught:
        masked_draws(masked, PAIRS, noise, seeds)
    assert_three_parts(str(caught.value), came)


def test_autoregressive_models_have_no_masks(model: dlens.Model) -> None:
    with pytest.raises(ValueError, match="expected a diffusion model") as caught:
        masked_draws(model, PAIRS, 0.5, 1)
    assert_three_parts(str(caught.value), "noise=0.5 on Qwen2ForCausalLM")


def test_a_draw_that_hides_every_difference_is_refused(masked: dlens.Model) -> None:
    seen, hidden = Contrast(((5, 6),), ((5, 7),)), Contrast(((5, 6),), ((7, 6),))
    assert masked_draws(masked, seen, 0.5, 1) == [Contrast(((1, 6),), ((1, 7),))]
    with pytest.raises(ValueError, match="expected one that is seen") as caught:
        masked_draws(masked, hidden, 0.5, 1)
    assert_three_parts(str(caught.value), "noise=0.5 with 1 seeds masks every token")
