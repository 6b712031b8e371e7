"""Disruption is the cosine of two forwards on the same canvas, at a point of the clean run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import dlens
from dlens.findings.effects.disruption import Point, points_of
from dlens.samplers import LLaDA

PROMPTS = ["Once upon a time there was a fox", "def f(x):", "Question"]


def cosines(model: dlens.Model, ids: torch.Tensor, layers: list[int]) -> torch.Tensor:
    """[layer, position] of one row, by two forwards of its own."""
    streams = []
    for trace in (dlens.trace(model), dlens.trace(model).skip(layers)):
        streams.append(trace.capture("resid_post").forward([ids.tolist()])["resid_post"][:, 0].double())
    return torch.cosine_similarity(*streams, dim=-1)


def test_an_autoregressive_model_reads_its_text_so_far(ar: dlens.Model) -> None:
    found = dlens.disruption(ar, [4], PROMPTS, (0, 0.5), max_new_tokens=6)
    expected = {"all": [], "deciding": [], "decoded": []}
    for prompt in PROMPTS:
        record = dlens.trace(ar).generate(prompt, 6, progress=False)
        width = int(record.is_prompt.sum())
        own = cosines(ar, record.tokens[0, : width + 3], [4])
        expected["all"].append(own.mean(-1))
        expected["deciding"].append(own[:, -1])
        expected["decoded"].append(own[:, width:].mean(-1))
    for positions, values in expected.items():
        got = found.data["cosine"].sel(fraction=0.5, positions=positions)
        np.testing.assert_allclose(got, torch.stack(values).mean(0), atol=1e-6)
    assert found.data["cosine"].sel(fraction=0, positions="decoded").isnull().all()


@pytest.mark.parametrize("name", ["diffusion", "ar_init"])
def test_a_diffusion_model_reads_its_canvas(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    found = dlens.disruption(model, [4], PROMPTS[:2], (0.5,), max_new_tokens=6)
    expected = []
    for prompt in PROMPTS[:2]:
        record = dlens.trace(model).generate(prompt, 6, progress=False)
        assert record.canvas is not None
        canvas = record.canvas[3, 0]
        masks = (canvas == model.family.mask_token_id).nonzero().flatten()
        assert len(masks) == 3
        expected.append(cosines(model, canvas, [4])[:, masks - model.family.shift].mean(-1))
    got = found.data["cosine"].sel(fraction=0.5, positions="deciding")
    np.testing.assert_allclose(got, torch.stack(expected).mean(0), atol=1e-6)


def test_nothing_moves_before_the_skip_and_all_after(diffusion: dlens.Model) -> None:
    cosine = dlens.disruption(diffusion, [7], PROMPTS, (0.5,), max_new_tokens=4).data["cosine"]
    np.testing.assert_allclose(cosine.sel(layer=range(7)), 1, atol=1e-12)
    assert float(cosine.sel(layer=range(7, 16)).max()) < 1 - 1e-4


def test_intervals_hold_the_mean_and_narrow_with_prompts(ar: dlens.Model) -> None:
    few, many = (dlens.disruption(ar, [4], PROMPTS * k, (0,), max_new_tokens=1).data for k in (1, 8))
    width = [(data["high"] - data["low"]).sel(positions="all", layer=15).item() for data in (few, many)]
    assert width[1] < 0.6 * width[0]
    for data in (few, many):
        inner = data.sel(positions="all", layer=range(4, 16))
        assert ((inner["low"] <= inner["cosine"]) & (inner["cosine"] <= inner["high"])).all()
    assert dlens.disruption(ar, [4], PROMPTS, (0,), max_new_tokens=1).data.identical(few)


def test_one_prompt_of_one_token_has_no_interval(ar: dlens.Model, diffusion: dlens.Model) -> None:
    for model in (ar, diffusion):
        found = dlens.disruption(model, [4], [[5]], (0,), max_new_tokens=2)
        values = found.data.sel(positions="all", fraction=0)
        assert values["cosine"].notnull().all() and values["low"].isnull().all()
        assert len(found.table()) == 4 * 16 and found.table()[0]["layer"] == 0


@pytest.mark.parametrize("share", [0, 0.3, 0.5, 0.9, 0.99])
def test_points_have_at_least_that_share_and_something_left(share: float, diffusion: dlens.Model) -> None:
    trace = dlens.trace(diffusion)
    sampler = LLaDA(steps=4, block_length=10)
    record = trace.generate([[5, 6], [7, 8, 9]], 10, sampler=sampler, progress=False)
    for row, point in enumerate(points_of(trace, record, [[5, 6], [7, 8, 9]], share)):
        left = int(point.masked.sum())
        assert point.prompt == 2 + row and len(point.ids) == 12 + row
        # 10 tokens in 4 steps: 3, 3, 2 and 2.
        assert left == next((kept for kept in (10, 7, 4, 2) if 10 - kept >= share * 10), 2)


def test_what_follows_an_end_is_not_measured() -> None:
    flags = {"masked": [0, 0, 0, 1, 0], "deciding": [0, 0, 0, 1, 0], "ended": [0, 0, 0, 1, 1]}
    point = Point([5, 6, 0, 1, 8], 1, **{name: torch.tensor(own, dtype=torch.bool) for name, own in flags.items()})
    assert point.groups().int().tolist() == [[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]]


def test_activations_that_are_not_finite_are_an_error(ar: dlens.Model) -> None:
    broken = dlens.trace(ar).hook("blocks.5.hook_resid_post", lambda value, hook: value * float("nan"))
    with pytest.raises(ValueError, match="activations of trio/ar after layer 5 hold NaN"):
        dlens.disruption(broken, None, PROMPTS, (0,), max_new_tokens=1)


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("fractions=.*; expected shares of the tokens that are decided, from 0 to below 1", {"fractions": (0, 1)}),
        ("fractions=.*; expected shares", {"fractions": ()}),
        ("without a plan and without operations", {"plan": None}),
        ("max_new_tokens=0; expected at least 1", {"max_new_tokens": 0}),
        ("batch_size=0; expected at least 1", {"batch_size": 0}),
    ],
)
def test_it_is_refused_before_anything_is_computed(message: str, options: dict[str, Any], ar: dlens.Model) -> None:
    calls: list[int] = []
    handle = ar.module.register_forward_pre_hook(lambda *_: calls.append(1))
    with pytest.raises(ValueError, match=message):
        dlens.disruption(ar, **{"plan": [3], "prompts": PROMPTS} | options)
    with pytest.raises(ValueError, match="at steps early' in disruption; expected operations that act at every step"):
        dlens.disruption(dlens.trace(ar).skip([3], steps="early"), None, PROMPTS)
    handle.remove()
    assert not calls
