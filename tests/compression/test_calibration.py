"""Rows of tokens, clean or masked."""

import pytest
import torch

import dlens
from dlens.compression.calibration import calibration_rows
from dlens.compression.recipe import Recipe


def recipe(**settings: object) -> Recipe:
    return Recipe(method="wanda", sparsity=0.5, **settings)


def test_texts_are_put_end_to_end_and_cut(ar: dlens.Model) -> None:
    rows = calibration_rows(ar, recipe(length=4), [[5, 6, 7], [8, 9, 10, 11, 12, 13]])
    assert rows.tolist() == [[5, 6, 7, 8], [9, 10, 11, 12]]
    drawn = [calibration_rows(ar, recipe(length=1 + 1, rows=2, seed=seed), [list(range(2, 12))]) for seed in range(9)]
    assert {tuple(row) for rows in drawn for row in rows.tolist()} == {(n, n + 1) for n in range(2, 12, 2)}
    assert all(len(rows) == 2 and rows[0, 0] < rows[1, 0] for rows in drawn)
    # Rows of the length asked for stay as they are; text shorter than a row is one.
    assert calibration_rows(ar, recipe(length=3), [[5, 6, 7], [8, 9, 10]]).tolist() == [[5, 6, 7], [8, 9, 10]]
    assert calibration_rows(ar, recipe(), [[5, 6, 7]]).tolist() == [[5, 6, 7]]


def test_the_shipped_text_is_read_by_default(ar: dlens.Model) -> None:
    assert calibration_rows(ar, recipe()).shape == (17, 128)


def test_masked_rows_have_rates_spread_over_repeats(diffusion: dlens.Model) -> None:
    mask = diffusion.family.mask_token_id
    clean = calibration_rows(diffusion, recipe(calibration="clean", length=200))
    rows = calibration_rows(diffusion, recipe(length=200, repeats=4))
    assert rows.shape == (4 * len(clean), 200)
    rates = (rows == mask).float().mean(1).reshape(4, -1)
    for repeat, own in enumerate(rates):
        assert bool(((own > repeat / 4 - 0.12) & (own < (repeat + 1) / 4 + 0.12)).all())
    assert bool(((rows == mask) | (rows == clean.repeat(4, 1))).all())
    assert torch.equal(rows, calibration_rows(diffusion, recipe(length=200, repeats=4)))
    assert not torch.equal(rows, calibration_rows(diffusion, recipe(length=200, repeats=4, seed=1)))


def test_too_little_text_is_refused(ar: dlens.Model) -> None:
    with pytest.raises(ValueError, match=r"calibration text of 1 token; expected at least 2.*give longer texts"):
        calibration_rows(ar, recipe(), [[5]])
