"""Every operation and a denoising run on remote code with LLaDA's and Dream's contracts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import dlens
from dlens.samplers import LLaDA, Threshold
from tests.standins import build_remote, save_dream, save_llada
from tests.whole.operations import CHECKS, LLADA, LLAMA, Pair


@pytest.fixture(
    scope="module",
    params=[
        (save_llada, LLADA, {"use_cache": False}),
        (save_dream, LLAMA, {"attention_mask": "full", "use_cache": False}),
    ],
    ids=["llada", "dream"],
)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Each of the two, under dlens and plain."""
    save, names, inputs = request.param
    folder = save(tmp_path_factory.mktemp("standin"))
    return Pair(dlens.load(str(folder), trust_remote_code=True), build_remote(folder), names, **inputs)


@pytest.mark.parametrize("check", CHECKS)
def test_every_operation(pair: Pair, check: str) -> None:
    CHECKS[check](pair)


@pytest.mark.parametrize("save", [save_llada, save_dream], ids=["llada", "dream"])
def test_denoising_of_unequal_prompts_equals_each_alone(tmp_path: Path, save: Any) -> None:
    model = dlens.load(str(save(tmp_path)), trust_remote_code=True)
    prompts = [[5, 6, 7, 8, 9, 10], [11, 12], [13, 14, 15, 16]]
    trace = dlens.trace(model).skip([1]).capture("resid_post")
    sampler = LLaDA(steps=4, block_length=4)
    together = trace.generate(prompts, 8, sampler=sampler)
    assert together.text == [] and together.n_steps == 4
    for row, prompt in enumerate(prompts):
        alone = trace.generate(prompt, 8, sampler=sampler)
        assert torch.equal(alone.tokens[0, -8:], together.tokens[row, -8:])
        gap = together["resid_post"][:, :, row, -len(prompt) - 8 :] - alone["resid_post"][:, :, 0]
        assert gap.abs().max() < 1e-4


def test_prompts_of_a_model_that_ignores_padding_run_by_length(tmp_path: Path) -> None:
    model = dlens.load(str(save_llada(tmp_path, hides_padding=False)), trust_remote_code=True)
    assert not model.honours_padding
    prompts = [[5, 6, 7, 8, 9, 10], [11, 12], [13, 14, 15, 16, 17, 18]]
    trace = dlens.trace(model).skip([1], steps=[0, 2]).capture("resid_post").measure(dlens.Cosine())
    together = trace.generate(prompts, 8, sampler=LLaDA(steps=4, block_length=4))
    assert together.canvas is not None and together.canvas.shape == (4, 3, 14)
    forward = dlens.trace(model).capture("logits").forward(prompts)
    for row, prompt in enumerate(prompts):
        alone = trace.generate(prompt, 8, sampler=LLaDA(steps=4, block_length=4))
        own = slice(-len(prompt) - 8, None)
        assert torch.equal(alone.tokens[0], together.tokens[row, own])
        assert torch.equal(alone["resid_post"][:, :, 0], together["resid_post"][:, :, row, own])
        logits = dlens.trace(model).capture("logits").forward(prompt)["logits"]
        assert torch.allclose(logits[0], forward["logits"][row, -len(prompt) :], atol=1e-4)
    n = together.measures["cosine"]["n"].sum().item()
    assert n == (sum(map(len, prompts)) + 3 * 8) * (model.n_layers * 4 - 2)
    assert "2 groups of equal length" in together.notes[0]
    assert together.flops > 0 and together.saved_flops > 0


def test_groups_that_end_early_are_nan_from_there_on(tmp_path: Path) -> None:
    model = dlens.load(str(save_llada(tmp_path, hides_padding=False)), trust_remote_code=True)
    views: list[Any] = []
    trace = dlens.trace(model).capture("resid_post", layers=[1])
    sampler = Threshold(threshold=0.05, block_length=4)
    record = trace.generate([[5, 6, 7, 8, 9], [11, 12]], 8, sampler=sampler, on_step=views.append)
    alone = [trace.generate(prompt, 8, sampler=sampler).n_steps for prompt in ([5, 6, 7, 8, 9], [11, 12])]
    assert record.n_steps == max(alone)
    for row, steps in enumerate(alone):
        real = ~record.is_pad[row]
        nan = record["resid_post"][:, 0, row, real].isnan().all(-1).all(-1)
        assert nan.tolist() == [step >= steps for step in range(record.n_steps)]
    assert {view.rows for view in views} == {(0,), (1,)}
