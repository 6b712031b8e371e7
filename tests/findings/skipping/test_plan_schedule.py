from __future__ import annotations

from pathlib import Path

import pytest

import dlens
from dlens.findings.scores.canvases import noise_canvases
from dlens.findings.scores.loss import loss_of
from dlens.findings.skipping.plan_schedule import noise_losses
from dlens.findings.skipping.skip_schedule import mean_loss
from tests.standins import save_dream, save_llada

TEXTS = ["Once upon a time there was a fox", "def f(x):\n    return"]
PROMPTS = [[5, 6, 7, 8, 9, 10, 11, 12], [13, 14, 15, 16, 17]]


def greedy(model: dlens.Model, n: int, seed: int = 0) -> dict[int, list[int]]:
    """The greedy choice over pairs of noise level and block, by whole forwards: two levels, n blocks at one of them."""
    chain = dlens.trace(model)
    read = [noise_canvases(model, span, PROMPTS, 1, seed + i) for i, span in enumerate([(0.0, 0.5), (0.5, 1.0)])]
    gone: dict[int, list[int]] = {0: [], 1: []}
    for _ in range(n):
        rises = {}
        for level, canvases in enumerate(read):
            before = loss_of(chain.skip(gone[level]) if gone[level] else chain, canvases).value
            for layer in set(range(model.n_layers)) - set(gone[level]) if len(gone[level]) < model.n_layers - 1 else ():
                rises[level, layer] = loss_of(chain.skip([*gone[level], layer]), canvases).value - before
        level, layer = min(rises, key=rises.__getitem__)
        gone[level].append(layer)
    return gone


@pytest.mark.parametrize("save", [save_llada, save_dream], ids=["llada", "dream"])
def test_it_equals_a_greedy_search_by_whole_forwards(save, tmp_path: Path) -> None:
    model = dlens.load(save(tmp_path), trust_remote_code=True)
    gone = greedy(model, 3)
    schedule = dlens.plan_schedule(model, 3 / 2 / model.n_layers, levels=2, prompts=PROMPTS)
    assert schedule.layers == (tuple(sorted(gone[0])), tuple(sorted(gone[1])))
    assert schedule.share == pytest.approx(3 / 2 / model.n_layers)
    # The losses it states are those of a trace that skips by it, and of one that skips nothing.
    chain = dlens.trace(model)
    assert schedule.losses == noise_losses(schedule.apply(chain), 2, PROMPTS)
    assert schedule.whole_losses == noise_losses(chain, 2, PROMPTS)
    assert schedule.loss == mean_loss((0, 0.5, 1), schedule.losses)


def test_one_level_skips_the_same_blocks_throughout(diffusion: dlens.Model) -> None:
    schedule = dlens.plan_schedule(diffusion, 2 / 16, levels=1, prompts=TEXTS)
    assert len(schedule.layers) == 1 and len(schedule.layers[0]) == 2
    assert schedule.apply(dlens.trace(diffusion)).ops[0].scope.noise is None
    assert schedule.loss == schedule.losses[0] > 0


def test_unequal_levels_fill_the_budget_with_what_fits(tmp_path: Path) -> None:
    model = dlens.load(save_llada(tmp_path), trust_remote_code=True)
    schedule = dlens.plan_schedule(model, 0.75 / model.n_layers, levels=(0, 0.75, 1), prompts=PROMPTS)
    assert schedule.share <= 0.75 / model.n_layers + 1e-9
    assert sum(map(len, schedule.layers)) in (1, 3)


def test_ends_are_kept_and_the_shortfall_is_said(tmp_path: Path) -> None:
    model = dlens.load(save_llada(tmp_path), trust_remote_code=True)
    with pytest.warns(UserWarning, match="skips 0.25 of the blocks' compute; 0.5 was asked for"):
        schedule = dlens.plan_schedule(model, 0.5, 2, prompts=PROMPTS, keep_first=model.n_layers - 2, keep_last=1)
    assert schedule.layers == ((model.n_layers - 2,),) * 2


def test_what_has_no_schedule_is_refused(ar: dlens.Model, diffusion: dlens.Model) -> None:
    with pytest.raises(ValueError, match="for trio/ar, which is autoregressive; expected a diffusion model"):
        dlens.plan_schedule(ar, 0.2)
    with pytest.raises(ValueError, match="for trio/ar, which is autoregressive; expected a diffusion model"):
        noise_losses(dlens.trace(ar))
    with pytest.raises(ValueError, match="plan_schedule with a trace that has operations, the first 'skip layers 3'"):
        dlens.plan_schedule(dlens.trace(diffusion).skip([3]), 0.2)
    with pytest.raises(ValueError, match="budget=nan; expected a finite number"):
        dlens.plan_schedule(diffusion, float("nan"))
    for budget in (0, 0.01, 0.95, 1.5):
        with pytest.raises(
            ValueError, match=r"blocks of trio/diffusion; expected a share of their compute from 0.0156"
        ):
            dlens.plan_schedule(diffusion, budget)
    for levels in (0, [0.5, 1.0], [0, 1, 1], [0.0]):
        with pytest.raises(ValueError, match="expected how many, or edges that rise from 0 to 1"):
            dlens.plan_schedule(diffusion, 0.2, levels)
