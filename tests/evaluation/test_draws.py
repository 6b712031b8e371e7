"""LLaDA's draws, against its published code written out: the same counts and the same masks from the same seed."""

from __future__ import annotations

import pytest
import torch

from dlens.evaluation.draws import draw_counts, draw_masks, own_seed


def published(target_len: int, b: int) -> torch.Tensor:
    """`_forward_process` of LLaDA's eval_llada.py, of the continuation alone, from torch's own source of numbers."""
    k = torch.randint(1, target_len + 1, ())
    x = torch.round(torch.linspace(float(k), k + (b - 1) * (target_len / b), steps=b)).long()
    x = ((x - 1) % target_len) + 1
    indices = torch.arange(target_len).repeat(b, 1)
    is_mask = indices < x.unsqueeze(1)
    for i in range(b):
        is_mask[i] = is_mask[i][torch.randperm(target_len)]
    return is_mask


@pytest.mark.parametrize("length", [1, 2, 7, 40, 129])
@pytest.mark.parametrize("draws", [1, 2, 32, 128])
def test_masks_are_those_of_the_published_code(length: int, draws: int) -> None:
    for seed in range(3):
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            expected = published(length, draws)
        assert draw_masks(length, draws, seed).equal(expected)


def test_counts_are_spread_evenly() -> None:
    for first in (1, 3, 8):
        assert sorted(draw_counts(first, 8, 8).tolist()) == list(range(1, 9))
        assert sorted(draw_counts(first, 8, 32).bincount(minlength=9).tolist())[0] == 0  # none masks nothing
        assert draw_counts(first, 8, 32).bincount(minlength=9)[1:].tolist() == pytest.approx([4] * 8, abs=1)
    assert draw_counts(3, 4, 1).tolist() == [3]


def test_the_weighted_share_of_masks_is_one() -> None:
    """Each token is masked in count / length of the draws, which weigh length / count."""
    masks = torch.cat([draw_masks(5, 5, seed) for seed in range(400)])
    weights = 5 / masks.sum(-1, keepdim=True)
    assert torch.allclose((masks * weights).mean(0), torch.ones(5), atol=0.15)


def test_a_seed_is_of_the_content_alone() -> None:
    assert own_seed(0, [5, 6], [7]) == own_seed(0, (5, 6), (7,))
    assert (
        len({own_seed(0, [5, 6], [7]), own_seed(1, [5, 6], [7]), own_seed(0, [5], [6, 7]), own_seed(0, [5, 6], [8])})
        == 4
    )
