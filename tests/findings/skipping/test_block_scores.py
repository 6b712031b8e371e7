"""The numbers by which rules rank blocks equal what captures and measures give."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest
import torch
import xarray as xr

import dlens
from dlens.findings.layers.profile import MASK_RATES
from dlens.findings.scores.batches import masked_rows, rng, token_rows
from dlens.findings.skipping.block_scores import angle, angular_distances, block_similarity, consecutive
from dlens.measures import CKA

TEXTS = ["Once upon a time there was a fox", "Question: 3 + 4?\nAnswer:", "def f(x):\n    return"]


def test_cka_of_an_autoregressive_model_equals_the_measure(ar: dlens.Model) -> None:
    record = dlens.trace(ar).measure(CKA()).forward(TEXTS)
    pairs = record.measures["cka"]["cka_all"].values
    plan = dlens.plan_skip(ar, 2, "cka", prompts=TEXTS)
    np.testing.assert_allclose(plan.scores[1:], np.diag(pairs, 1), atol=1e-6)


def test_similarity_is_read_from_a_profile_or_measured(ar: dlens.Model) -> None:
    data = dlens.profile(ar, TEXTS, measures=[dlens.Cosine(), CKA()])
    assert block_similarity(data, "cosine", None, 8, 0) == data.pooled("cosine", "cosine").values.tolist()
    for rule in ("cosine", "cka"):
        own, measured = (block_similarity(source, rule, TEXTS, 8, 0) for source in (data, dlens.trace(ar)))
        assert own == pytest.approx(measured, nan_ok=True)
    with pytest.raises(ValueError, match="rule='cka' with a profile that holds cosine; expected 'cka' in it"):
        block_similarity(dlens.profile(ar, TEXTS, measures=[dlens.Cosine()]), "cka", None, 8, 0)


def test_consecutive_layers_by_hand() -> None:
    hsic = np.array([[4.0, 3.0, 0.0], [3.0, 9.0, 6.0], [0.0, 6.0, 16.0]])
    terms = np.stack([hsic * 0.5, hsic * 1.5, hsic * np.nan])
    data = xr.Dataset({"hsic_all": (("noise", "layer", "layer_b"), terms), "n_all": ("noise", [3, 3, 0])})
    first, *others = consecutive(data)
    assert isnan(first) and others == pytest.approx([3 / (2 * 3), 6 / (3 * 4)])
    dead = hsic * np.array([[1, 0, 1], [0, 0, 0], [1, 0, 1]])
    assert all(map(isnan, consecutive(data.assign(hsic_all=(("layer", "layer_b"), dead), n_all=((), 3)))))


def test_angles_are_in_units_of_pi() -> None:
    a, b = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]), torch.tensor([[3.0, 0.0], [1.0, 1.0], [-2.0, 0.0]])
    assert angle(a, b).tolist() == pytest.approx([0, 0.25, 1], abs=1e-9)


def test_every_position_of_a_masked_text_counts(diffusion: dlens.Model) -> None:
    [row] = token_rows(diffusion, TEXTS[0])
    mask = diffusion.family.mask_token_id
    assert mask is not None
    angles = []
    for ids in masked_rows([row], MASK_RATES, mask, rng(3)):
        record = dlens.trace(diffusion).capture("resid_pre", "resid_post").forward(ids)
        stream = torch.cat([record["resid_pre"], record["resid_post"][-1:]])[:, 0].double()
        unit = torch.nn.functional.normalize(stream, dim=-1)
        angles.append((unit[:-2] * unit[2:]).sum(-1).clamp(-1, 1).arccos() / torch.pi)
    expected = torch.cat(angles, 1).mean(1)
    found = angular_distances(dlens.trace(diffusion), 2, TEXTS[0], seed=3)
    assert found == pytest.approx(expected.tolist(), abs=1e-6) and len(found) == 15
