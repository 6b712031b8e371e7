from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import dlens
from dlens.findings.scores.loss import text_loss
from dlens.measures import CKA
from tests.models.conftest import build

TEXTS = ["Once upon a time there was a fox", "Question: 3 + 4?\nAnswer:", "def f(x):\n    return"]
PROMPTS = [[5, 6, 7, 8, 9, 10], [11, 12, 13], [14, 15, 16, 17]]


def hand_made(cosines: Sequence[float], **measures: xr.Dataset) -> dlens.Profile:
    cosine = xr.Dataset(
        {"cosine": (("step", "state", "layer"), [[cosines]]), "n": (("step", "state", "layer"), [[[7] * len(cosines)]])}
    )
    return dlens.Profile(
        model="by hand",
        family="autoregressive",
        objective="autoregressive",
        n_layers=len(cosines),
        d_model=4,
        inputs="clean",
        n_prompts=1,
        n_tokens=7,
        seed=0,
        plan=(),
        measures={"cosine": cosine, **measures},
        notes=(),
    )


# Above 0.95: 1 (.99), 2 (.985), 4 (.98), 5 (.97), 6 (.975), 8 (.96).
PAPER = hand_made([0.1, 0.99, 0.985, 0.94, 0.98, 0.97, 0.975, 0.95, 0.96, 0.9])


@pytest.mark.parametrize(("n", "layers"), [(1, (1,)), (2, (1, 4)), (3, (1, 4, 6)), (4, (1, 4, 6, 8))])
def test_the_papers_selection_by_hand(n: int, layers: tuple[int, ...]) -> None:
    plan = dlens.plan_skip(PAPER, n)
    assert (plan.layers, plan.rule, plan.model) == (layers, "cosine", "by hand")
    assert plan.scores == pytest.approx(PAPER.pooled("cosine", "cosine").values)
    assert set(plan.order) == set(layers) and plan.order[0] == 1


def test_a_plan_is_shorter_with_a_warning_where_no_more_are_found() -> None:
    with pytest.warns(
        UserWarning, match="rule='cosine' found 4 blocks of by hand to skip; 5 were asked for, but no mor"
    ):
        assert dlens.plan_skip(PAPER, 5).layers == (1, 4, 6, 8)
    with pytest.warns(UserWarning, match="found 0 blocks"):
        assert dlens.plan_skip(PAPER, 2, threshold=0.999).layers == ()


def test_ends_are_kept_and_the_threshold_moves() -> None:
    assert dlens.plan_skip(PAPER, 3, keep_first=2).layers == (2, 4, 6)
    assert dlens.plan_skip(PAPER, 2, keep_last=5).layers == (1, 4)
    assert dlens.plan_skip(PAPER, 5, threshold=0.0, keep_first=1).layers == (1, 3, 5, 7, 9)


def test_block_influence_allows_neighbours() -> None:
    plan = dlens.plan_skip(PAPER, 3, "block-influence")
    assert (plan.layers, plan.order) == ((1, 2, 4), (1, 2, 4))
    assert plan.scores[1] == pytest.approx(0.01)


def cka_of(similar: Sequence[float]) -> xr.Dataset:
    """HSIC terms at two noise levels whose average, by n, has these CKAs of consecutive layers, and an empty level."""
    norms = np.arange(1.0, len(similar) + 2)
    hsic = np.diag(norms**2)
    for layer, value in enumerate(similar):
        hsic[layer, layer + 1] = hsic[layer + 1, layer] = value * norms[layer] * norms[layer + 1]
    terms = np.stack([hsic * 0.5, hsic * 1.5, hsic * np.nan])
    return xr.Dataset({"hsic_all": (("noise", "layer", "layer_b"), terms), "n_all": ("noise", [3, 3, 0])})


def test_cka_compares_what_leaves_each_block_with_what_left_the_one_before() -> None:
    data = hand_made([0.5] * 5, cka=cka_of([0.7, 0.9, 0.95, 0.8]))
    plan = dlens.plan_skip(data, 1, "cka")
    assert np.isnan(plan.scores[0]) and plan.scores[1:] == pytest.approx([0.7, 0.9, 0.95, 0.8])
    assert plan.layers == (3,)
    assert dlens.plan_skip(data, 2, "cka").layers == (1, 3)
    with pytest.warns(UserWarning, match="rule='cka' found 1 blocks"):
        assert dlens.plan_skip(data, 2, "cka", threshold=0.8001).layers == (3,)


@pytest.mark.parametrize("n", [1, 3])
def test_angular_reads_the_last_token_of_an_autoregressive_model(ar: dlens.Model, n: int) -> None:
    distances = []
    for text in TEXTS:
        record = dlens.trace(ar).capture("resid_pre", "resid_post").forward(text)
        stream = torch.cat([record["resid_pre"][:, 0, -1], record["resid_post"][-1:, 0, -1]]).double().numpy()
        unit = stream / np.linalg.norm(stream, axis=-1, keepdims=True)
        distances.append(np.arccos((unit[:-n] * unit[n:]).sum(-1)) / np.pi)
    expected = np.mean(distances, axis=0)
    plan = dlens.plan_skip(ar, n, "angular", prompts=TEXTS, batch_size=2)
    np.testing.assert_allclose(plan.scores[: len(expected)], expected, atol=1e-5)
    assert np.isnan(plan.scores[len(expected) :]).all() and len(plan.scores) == ar.n_layers
    start = int(expected.argmin())
    assert plan.layers == tuple(range(start, start + n))
    kept = dlens.plan_skip(ar, n, "angular", prompts=TEXTS, keep_first=start + 1)
    assert kept.layers[0] == start + 1 + int(expected[start + 1 :].argmin())


def test_angular_reads_all_positions_of_a_diffusion_model(diffusion: dlens.Model) -> None:
    one, many = (
        dlens.plan_skip(diffusion, 2, "angular", prompts=TEXTS, batch_size=size, seed=3).scores for size in (1, 16)
    )
    np.testing.assert_allclose(one, many, atol=1e-5)
    clean = dlens.plan_skip(diffusion, 2, "angular", prompts=[TEXTS[0]], seed=3)
    assert clean.scores != one


def test_greedy_loss_equals_a_search_by_text_loss() -> None:
    model = dlens.load(build("qwen2"))
    chain = dlens.trace(model)
    losses = {layer: text_loss(chain.skip([layer]), PROMPTS).value for layer in range(1, 4)}
    first = min(losses, key=losses.__getitem__)
    pairs = {layer: text_loss(chain.skip([first, layer]), PROMPTS).value for layer in range(1, 4) if layer != first}
    second = min(pairs, key=pairs.__getitem__)
    whole = text_loss(chain, PROMPTS).value
    plan = dlens.plan_skip(model, 2, "greedy-loss", prompts=PROMPTS, keep_first=1)
    assert plan.order == (first, second)
    assert plan.losses == (whole, losses[first], pairs[second])
    assert plan.scores[1:] == tuple(losses[layer] - whole for layer in range(1, 4)) and np.isnan(plan.scores[0])
    assert plan.notes == ("next-token cross-entropy",)


@pytest.mark.parametrize("rule", ["cosine", "block-influence", "cka"])
def test_a_model_is_profiled_first(diffusion: dlens.Model, rule: str) -> None:
    data = dlens.profile(diffusion, TEXTS, measures=[dlens.Cosine(), CKA()])
    assert dlens.plan_skip(diffusion, 2, rule, prompts=TEXTS) == dlens.plan_skip(data, 2, rule)


def test_a_plan_goes_straight_into_skip(ar: dlens.Model) -> None:
    plan = dlens.plan_skip(PAPER, 3)
    plain, planned = (dlens.trace(ar).skip(what).capture("logits").forward("Once") for what in ([1, 4, 6], plan))
    assert torch.equal(plain["logits"], planned["logits"])
    assert planned.plan[0]["layers"] == [1, 4, 6]


RULES = ["cosine", "block-influence", "angular", "cka", "greedy-loss"]


@pytest.mark.parametrize("rule", RULES)
def test_models_of_one_two_and_three_blocks(rule: str) -> None:
    shallow: dict[int, Any] = {n: dlens.load(build("llama", num_hidden_layers=n)) for n in (1, 2, 3)}
    with pytest.raises(ValueError, match="has 1 block; expected at least two, as one must stay"):
        dlens.plan_skip(shallow[1], 1, rule, prompts=PROMPTS)
    lenient = {"threshold": -1.0} if rule == "cosine" else {}
    assert len(dlens.plan_skip(shallow[2], 1, rule, prompts=PROMPTS, **lenient).layers) == 1
    most = 1 if rule == "cka" else 2  # the first block has no CKA, and the other two are neighbours
    assert len(dlens.plan_skip(shallow[3], most, rule, prompts=PROMPTS, **lenient).layers) == most
    with pytest.raises(ValueError, match=r"n=2 of the 2 blocks of .*; expected 1 to 1, as one must stay"):
        dlens.plan_skip(shallow[2], 2, rule, prompts=PROMPTS)


@pytest.mark.parametrize("rule", ["angular", "greedy-loss"])
def test_fewer_blocks_than_asked_where_ends_are_kept(rule: str) -> None:
    model = dlens.load(build("llama"))
    with pytest.warns(UserWarning, match=f"rule='{rule}' found 2 blocks .* no more blocks may be chosen; keep fewer"):
        plan = dlens.plan_skip(model, 3, rule, prompts=PROMPTS, keep_first=1, keep_last=1)
    assert plan.layers == (1, 2)


def test_what_a_rule_cannot_read_is_refused(ar: dlens.Model) -> None:
    with pytest.raises(ValueError, match="rule='random'; expected one of cosine, block-influence, angular, cka"):
        dlens.plan_skip(ar, 2, "random")
    with pytest.raises(ValueError, match="threshold=0.5 with rule='angular'; expected it with 'cosine' or 'cka'"):
        dlens.plan_skip(ar, 2, "angular", threshold=0.5)
    for rule in ("angular", "greedy-loss"):
        with pytest.raises(ValueError, match=f"rule='{rule}' with a profile of by hand; expected a model"):
            dlens.plan_skip(PAPER, 2, rule)
    with pytest.raises(ValueError, match=r"that has operations, the first 'skip layers 3'; expected a model without"):
        dlens.plan_skip(dlens.trace(ar).skip([3]), 2, "greedy-loss")
    with pytest.raises(ValueError, match="rule='cka' with a profile that holds cosine; expected 'cka' in it"):
        dlens.plan_skip(PAPER, 2, "cka")
    for keep in ({"keep_first": 10}, {"keep_first": 5, "keep_last": 5}, {"keep_last": -1}):
        with pytest.raises(ValueError, match="of the 10 blocks of by hand; expected numbers from 0 that leave a block"):
            dlens.plan_skip(PAPER, 2, **keep)


def test_scores_that_are_nan_are_refused(ar: dlens.Model) -> None:
    broken = hand_made([0.99, float("nan"), 0.98])
    with pytest.raises(ValueError, match="no finite score at layers 1; expected one at each layer"):
        dlens.plan_skip(broken, 1)
    assert dlens.plan_skip(broken, 1, keep_first=2).layers == (2,)
    with pytest.raises(ValueError, match="no finite score at layers 3"):
        dlens.plan_skip(dlens.trace(ar).skip([3]), 1, prompts=TEXTS)
