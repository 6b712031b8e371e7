"""Rows write to a channel and columns read from it, in every layout; afterwards all is as before."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

import dlens
from dlens.findings.effects.weights import channel_weights, without_weights
from tests.models.conftest import NATIVE, build
from tests.standins import save_dream, save_llada

CHANNEL = 7


@pytest.fixture(params=[*sorted(NATIVE), "llada", "dream"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> dlens.Model:
    """Each layout in turn."""
    if request.param in NATIVE:
        return dlens.load(build(request.param))
    save = save_llada if request.param == "llada" else save_dream
    return dlens.load(save(tmp_path), trust_remote_code=True)


def test_without_rows_nothing_writes_to_the_channel(model: dlens.Model) -> None:
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    trace = dlens.trace(model).capture("resid_pre", "resid_post")
    with without_weights(model, CHANNEL, "rows"):
        record = trace.forward([[5, 6, 9]])
    pre, post = record["resid_pre"][..., CHANNEL], record["resid_post"][..., CHANNEL]
    assert torch.equal(pre, post) and not torch.equal(record["resid_pre"], record["resid_post"])
    assert all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items())


def test_without_columns_nothing_reads_the_channel(model: dlens.Model) -> None:
    with without_weights(model, CHANNEL, "columns"), torch.no_grad():
        for path in model.layout.reads:
            module = model.blocks[0].get_submodule(path)
            x = torch.randn(1, 3, model.d_model)
            moved = x.clone()
            moved[..., CHANNEL] += 100
            assert torch.equal(module(x), module(moved))
            moved[..., CHANNEL + 1] += 100
            assert not torch.equal(module(x), module(moved))


def test_reads_and_writes_are_all_linear_modules_of_a_block(model: dlens.Model) -> None:
    matrices = [name for name, value in model.blocks[0].named_parameters() if value.ndim == 2]
    assert sorted(name.removesuffix(".weight") for name in matrices) == sorted(model.layout.reads + model.layout.writes)


def test_weights_come_back_after_an_error(ar: dlens.Model) -> None:
    before = ar.fingerprint()
    with pytest.raises(RuntimeError, match="inside"), without_weights(ar, CHANNEL, "columns"):
        assert ar.fingerprint() != before
        raise RuntimeError("inside")
    assert ar.fingerprint() == before


def test_weights_that_cannot_be_written_are_refused(ar: dlens.Model) -> None:
    other: Any = copy.deepcopy(ar)
    other.blocks[3].mlp.down_proj = torch.nn.Identity()
    with pytest.raises(ValueError, match="mlp.down_proj is Identity; expected linear modules"):
        channel_weights(other, CHANNEL, "rows")
    other.blocks[3].mlp.gate_proj.to("meta")
    with pytest.raises(ValueError, match="mlp.gate_proj is offloaded, or on the meta device; expected"):
        channel_weights(other, CHANNEL, "columns")
