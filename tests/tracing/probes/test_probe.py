"""Small runs of dlens's own: what they compute, and that nothing of them stays."""

from __future__ import annotations

from typing import Any

import torch

import dlens
from tests.reference import fresh
from tests.untouched import untouched


def test_a_probe_runs_rows_without_padding_once_for_each_model(diffusion: dlens.Model) -> None:
    model = dlens.load(fresh(diffusion.module), tokenizer=diffusion.tokenizer)
    calls: list[tuple[int, ...]] = []

    def note(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        assert kwargs.get("attention_mask") is None
        assert not bool((kwargs["input_ids"] == model.family.mask_token_id).any())
        calls.append(tuple(kwargs["input_ids"].shape))

    note.__module__ = "dlens"  # for somebody's own hook nothing would be remembered
    chain = dlens.trace(model).ablate_outlier()
    with untouched(model):
        handle = model.module.register_forward_pre_hook(note, with_kwargs=True)
        chain.forward([5, 6, 7])
        assert len(calls) == 13 and {rows for rows, _ in calls} == {1} and calls[-1] == (1, 3)
        assert max(width for _, width in calls) <= 64
        calls.clear()
        chain.forward([5, 6, 7])
        handle.remove()
    assert calls == [(1, 3)]


def test_a_probe_counts_flops_beside_the_run_when_they_are_asked_for(diffusion: dlens.Model) -> None:
    model = dlens.load(fresh(diffusion.module))
    shapes: list[tuple[int, ...]] = []
    handle = model.module.register_forward_pre_hook(
        lambda _m, _a, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    record = dlens.trace(model).skip([3]).forward(torch.full((2, 5), 7))
    assert shapes == [(2, 5)]
    assert record.flops > 0 and record.saved_flops > 0
    handle.remove()
    assert shapes == [(2, 5)] * 3
