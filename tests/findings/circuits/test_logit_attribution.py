from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import dlens
from dlens.errors import VerificationError
from tests.whole.architectures import CONFIGS, build

ROWS = [[3, 14, 15, 9, 26], [5, 6, 7]]
RIGHT, WRONG = [8, 9], 11


def difference(model: dlens.Model, position: int = -1) -> Tensor:
    logits = dlens.trace(model).capture("logits").forward(ROWS)["logits"][:, position]
    return logits[[0, 1], RIGHT] - logits[:, WRONG]


@pytest.mark.parametrize("name", ["gpt2", "qwen2", "pythia", "llama", "gemma2"])
def test_parts_add_up_to_the_difference_of_logits(name: str) -> None:
    model = dlens.load(build(copy.deepcopy(CONFIGS[name][0])))
    found = dlens.logit_attribution(model, ROWS, RIGHT, WRONG, batch_size=1)
    parts = found["embed"] + found["attn"].sum("layer") + found["mlp"].sum("layer") + found["bias"]
    np.testing.assert_allclose(parts, difference(model), atol=2e-4 if name == "gemma2" else 1e-5)
    assert abs(found["total"]).min() > 0.05
    if name == "gemma2":
        assert "heads" not in found and "attn_bias" not in found and found.attrs["heads"].startswith("none: what all")
    else:
        np.testing.assert_allclose(found["heads"].sum("head") + found["attn_bias"], found["attn"], atol=1e-6)
        assert found["heads"].dims == ("prompt", "layer", "head") and found.attrs["heads"] == "each by itself"
        assert bool((abs(found["attn_bias"]).max() > 1e-3) == (name in ("gpt2", "pythia")))


def test_a_head_is_what_its_columns_write() -> None:
    """By hand from the weights of a GPT-2, whose norm centres."""
    module: Any = build(copy.deepcopy(CONFIGS["gpt2"][0]))
    z: list[Tensor] = []
    last: list[Tensor] = []
    handles = [
        module.transformer.h[1].attn.c_proj.register_forward_pre_hook(lambda _m, args: z.append(args[0])),
        module.transformer.ln_f.register_forward_pre_hook(lambda _m, args: last.append(args[0])),
    ]
    with torch.no_grad():
        module(torch.tensor([ROWS[0]]), use_cache=False)
    for handle in handles:
        handle.remove()
    norm, weights = module.transformer.ln_f, module.lm_head.weight
    added = z[0][0, -1, 8:16] @ module.transformer.h[1].attn.c_proj.weight[8:16]
    scale = (last[0][0, -1].var(unbiased=False) + norm.eps).sqrt()
    expected = ((added - added.mean()) * norm.weight / scale) @ (weights[8] - weights[11])
    found = dlens.logit_attribution(module, [ROWS[0]], 8, 11)
    assert float(found["heads"].sel(prompt=0, layer=1, head=1)) == pytest.approx(expected.item(), abs=1e-6)
    assert abs(expected.item()) > 1e-3


@pytest.mark.parametrize("shift", [0, 1])
def test_positions_of_diffusion_models_are_read_where_they_are_predicted(masked: dlens.Model, shift: int) -> None:
    model = dlens.load(masked.module, family="masked-shifted" if shift else "masked")
    rows = [[3, 14, 1, 9, 1], [1, 6, 7]]
    found = dlens.logit_attribution(model, rows, 8, 11, tokens="masked")
    metric = dlens.metrics.logit_difference(8, 11, tokens="masked")
    expected = dlens.trace(model).gradient("embed", of=metric).forward(rows).metric
    np.testing.assert_allclose(found["total"], expected, atol=1e-5)


def test_operations_count_and_what_breaks_the_sum_is_told(model: dlens.Model) -> None:
    trace = dlens.trace(model)
    found = dlens.logit_attribution(trace.ablate(1, at="z", heads=[2]), ROWS, RIGHT, WRONG)
    assert (found["heads"].sel(layer=1, head=2) == 0).all() and (found["heads"].sel(layer=1, head=1) != 0).all()
    with pytest.raises(VerificationError, match=r"add up to a difference of logits that is .*% of their sizes away"):
        dlens.logit_attribution(trace.steer(torch.ones(32), layers=2, scale=5), ROWS, RIGHT, WRONG)


def test_token_ids_and_sizes_are_checked(model: dlens.Model) -> None:
    with pytest.raises(ValueError, match="right='a'; expected token ids"):
        dlens.logit_attribution(model, ROWS, "a", WRONG)
    with pytest.raises(ValueError, match="right holds 3 token ids for 2 prompts; expected one, or one for each"):
        dlens.logit_attribution(model, ROWS, [1, 2, 3], WRONG)
    with pytest.raises(ValueError, match="batch_size=0; expected at least 1"):
        dlens.logit_attribution(model, ROWS, RIGHT, WRONG, batch_size=0)


@pytest.mark.parametrize("name", ["gpt2", "qwen2", "gemma2"])
def test_the_lens_of_parts_adds_up_to_the_logits(name: str) -> None:
    model = dlens.load(build(copy.deepcopy(CONFIGS[name][0])))
    every = model.vocab_size
    found = dlens.part_lens(model, ROWS, k=every, batch_size=1)

    def by_token(part: str) -> Any:
        order = np.argsort(found[part].values, axis=-1)
        return np.take_along_axis(found[f"{part}_logit"].values, order, axis=-1)

    if name == "gemma2":
        assert "heads" not in found
        return
    share = dlens.logit_attribution(model, ROWS, RIGHT, WRONG)
    for part, dims in (("embed", ()), ("mlp", ("layer",)), ("heads", ("layer", "head"))):
        logits = by_token(part)
        difference = np.stack([logits[row, ..., RIGHT[row]] - logits[row, ..., WRONG] for row in (0, 1)])
        np.testing.assert_allclose(difference, share[part].transpose("prompt", *dims), atol=1e-6)
    assert (np.diff(found["mlp_logit"].values, axis=-1) <= 0).all()


def test_the_lens_refuses_more_tokens_than_there_are() -> None:
    model = dlens.load(build(copy.deepcopy(CONFIGS["qwen2"][0])))
    with pytest.raises(ValueError, match="k=101 tokens; expected 1 to 100"):
        dlens.part_lens(model, ROWS, k=101)
