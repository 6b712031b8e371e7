"""Keys and values of a canvas: what a forward of some columns gives, against one of all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Qwen2Config

import dlens
from dlens.models.families.decoder import MASKED
from dlens.tracing.step.canvas import CanvasKeys
from dlens.tracing.step.window import window_of
from tests.caches.views import row
from tests.reference import fresh
from tests.standins import build_remote, save_dream, save_llada
from tests.whole.architectures import SIZE, build

IDS = torch.tensor([[3, 14, 15, 9, 26, 5, 35, 8], [98, 98, 18, 28, 18, 28, 45, 90]])
REAL = torch.cat([row("xxxxxxxx"), row("..xxxxxx")])
# Four columns, as libraries sum the last rows of a product in another order where there are fewer.
WINDOWS = {"together": torch.cat([row("...xxxx.")] * 2), "apart": torch.cat([row("x..x.xx."), row("..xxx...")])}


@pytest.fixture(scope="module", params=["native", "llada", "dream"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[dlens.Model, Any]:
    """A model, and a plain module of its weights."""
    if request.param == "native":
        module = build(Qwen2Config(**SIZE, num_key_value_heads=2, is_causal=False)).double()
        return dlens.load(module, family=replace(MASKED, mask_token_id=99)), fresh(module).double()
    save = {"llada": save_llada, "dream": save_dream}[request.param]
    folder = save(tmp_path_factory.mktemp("remote"))
    return dlens.load(folder, trust_remote_code=True, dtype="float64"), build_remote(folder).double()


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", WINDOWS)
@torch.no_grad()
def test_refilling_on_an_unchanged_canvas_gives_the_logits_of_a_full_forward(
    pair: tuple[dlens.Model, Any], name: str, padded: bool
) -> None:
    model, plain = pair
    real, window = (REAL if padded else None), window_of(WINDOWS[name])
    whole = plain(**model.family.inputs(IDS, real)).logits
    keys = CanvasKeys(model, IDS.shape[1])
    assert torch.equal(keys.logits(IDS, real, None), whole)
    again = keys.logits(IDS, real, window)
    shown = REAL if padded else torch.ones_like(REAL)
    assert torch.equal(again[window.take(shown)], window.take(whole)[window.take(shown)])


@torch.no_grad()
def test_columns_that_are_not_computed_keep_their_keys(pair: tuple[dlens.Model, Any]) -> None:
    model, _ = pair
    keys, window = CanvasKeys(model, IDS.shape[1]), window_of(WINDOWS["together"])
    keys.logits(IDS, None, None)
    before = {block: tuple(value.clone() for value in held) for block, held in keys.held.items()}
    changed: Tensor = IDS.roll(1, 0)
    keys.logits(changed, None, window)
    assert len(before) == model.n_layers
    for block, held in keys.held.items():
        for old, new in zip(before[block], held, strict=True):
            moved = (old != new).any(-1).any(1)
            assert torch.equal(moved, WINDOWS["together"])


@torch.no_grad()
def test_the_model_is_left_as_it_was(pair: tuple[dlens.Model, Any]) -> None:
    model, plain = pair
    CanvasKeys(model, IDS.shape[1]).logits(IDS, REAL, window_of(WINDOWS["apart"]))
    assert not any(part._forward_pre_hooks or part._forward_hooks for part in model.module.modules())
    inputs = model.family.inputs(IDS, None)
    assert torch.equal(model.module(**inputs).logits, plain(**inputs).logits)
