"""What the benchmark of streams runs."""

from __future__ import annotations

from pathlib import Path

import torch

import dlens
from benchmarks.streams import _forwards, _padded, _ratios
from tests.reference import shallow


def test_a_ratio_of_each_kind_with_the_budget_of_one_layer(diffusion: dlens.Model, tmp_path: Path) -> None:
    model = shallow(diffusion, 9)
    one, whole = _ratios("9 blocks", (model, model), batches=2, batch=2, rounds=1, budget=1.25)
    assert (one.what, one.model, one.budget) == ("stream of one layer / forwards alone", "9 blocks", 1.25)
    assert (whole.what, whole.budget) == ("stream of all layers / forwards alone", None)
    assert one.value > 0 and whole.value > 0


def test_forwards_are_those_of_the_same_batches(diffusion: dlens.Model) -> None:
    model, seen = shallow(diffusion, 1), []
    handle = model.embed.register_forward_pre_hook(lambda part, args: seen.append(tuple(args[0].shape)))
    _forwards(model, [[5, 6, 7], [8, 9], [10]], 2)
    handle.remove()
    assert seen == [(2, 3), (1, 1)]
    ids, real = _padded([[5, 6], [7]])
    assert torch.equal(ids, torch.tensor([[5, 6], [0, 7]])) and real.tolist() == [[True, True], [False, True]]
