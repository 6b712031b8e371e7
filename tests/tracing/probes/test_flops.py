"""Counted FLOPs against arithmetic: a position costs blocks x (P + 2 n d) + d V multiplications, two FLOPs each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, final

import pytest
import torch

import dlens
from dlens.models.identity import structure
from dlens.tracing.prepare import target_of
from dlens.tracing.probes.flops import StepCost, count_steps
from tests.models.conftest import build


def weights(module: torch.nn.Module) -> int:
    """Multiplications that a position costs in the matrices of a module."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.ndim == 2)


def block_flops(model: dlens.Model, query: int, keys: int) -> int:
    """FLOPs of one block: its matrices, and scores and values over `keys` positions for all query heads."""
    return 2 * query * (weights(model.blocks[0]) + 2 * keys * model.d_model)


def step_flops(model: dlens.Model, query: int, keys: int, logits: int | None = None) -> int:
    """FLOPs of one forward of one row, with logits of all its positions or of some."""
    head = 2 * (query if logits is None else logits) * model.d_model * model.vocab_size
    return model.n_layers * block_flops(model, query, keys) + head


def ids(model: dlens.Model, rows: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rows * width)
    return torch.randint(8, model.vocab_size, (rows, width), generator=generator)


def generated(trace: dlens.Trace, prompt: torch.Tensor, new_tokens: int, **settings: Any) -> dlens.Record:
    return trace.generate(prompt, new_tokens, progress=False, **settings)


@pytest.mark.parametrize("name", ["ar", "diffusion", "ar_init", "smol"])
def test_a_forward_costs_what_the_arithmetic_says(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    record = dlens.trace(model).forward(ids(model, 2, 24))
    assert record.flops == pytest.approx(2 * step_flops(model, 24, 24), rel=0.01)
    assert record.saved_flops == 0


@pytest.mark.parametrize("guidance", [0.0, 1.5])
def test_a_denoising_run_costs_a_forward_a_step_and_guidance_doubles_it(
    diffusion: dlens.Model, guidance: float
) -> None:
    sampler = dlens.samplers.LLaDA(steps=4, block_length=8, guidance=guidance)
    record = generated(dlens.trace(diffusion), ids(diffusion, 2, 16), 8, sampler=sampler)
    halves = 2 if guidance else 1
    assert record.flops == pytest.approx(4 * 2 * halves * step_flops(diffusion, 24, 24), rel=0.01)


def test_decoding_with_a_cache_computes_every_position_once(ar: dlens.Model) -> None:
    record = generated(dlens.trace(ar), ids(ar, 1, 16), 12)
    n_new = record.n_steps
    expected = step_flops(ar, 16, 16, 1) + sum(step_flops(ar, 1, 16 + step) for step in range(1, n_new))
    assert record.flops == pytest.approx(expected, rel=0.01)


def test_decoding_without_a_cache_computes_every_position_again(ar: dlens.Model) -> None:
    record = generated(dlens.trace(ar), ids(ar, 1, 16), 8, cache="off")
    expected = sum(step_flops(ar, 16 + step, 16 + step, 1) for step in range(record.n_steps))
    assert record.flops == pytest.approx(expected, rel=0.01)


def test_logits_that_are_read_are_counted_as_computed(ar: dlens.Model) -> None:
    prompt = ids(ar, 1, 16)
    plain, read = (generated(trace, prompt, 4) for trace in (dlens.trace(ar), dlens.trace(ar).capture("logits")))
    head = 2 * 15 * ar.d_model * ar.vocab_size
    assert read.flops - plain.flops == head and read.saved_flops == -head


@pytest.mark.parametrize("name", ["ar", "diffusion", "smol"])
def test_skipped_blocks_save_their_share_exactly(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    record = dlens.trace(model).skip([0, 3, 7]).forward(ids(model, 2, 24))
    assert record.saved_flops == 3 * 2 * block_flops(model, 24, 24)


def test_blocks_skipped_at_some_steps_save_at_those(diffusion: dlens.Model) -> None:
    sampler = dlens.samplers.LLaDA(steps=4, block_length=8)
    trace = dlens.trace(diffusion).skip([0, 5], steps=[1, 3]).skip([9], steps=[3])
    record = generated(trace, ids(diffusion, 1, 16), 8, sampler=sampler)
    assert record.saved_flops == (2 + 3) * block_flops(diffusion, 24, 24)


def test_blocks_skipped_while_decoding_save_at_every_cache_length(ar: dlens.Model) -> None:
    record = generated(dlens.trace(ar).skip([0, 5]), ids(ar, 1, 16), 12)
    keys = range(17, 16 + record.n_steps)
    assert record.saved_flops == 2 * (block_flops(ar, 16, 16) + sum(block_flops(ar, 1, n) for n in keys))


def test_halves_of_a_block_save_what_they_hold(diffusion: dlens.Model) -> None:
    prompt = ids(diffusion, 1, 24)
    attn = dlens.trace(diffusion).skip([2], part="attn").forward(prompt).saved_flops
    mlp = dlens.trace(diffusion).skip([2], part="mlp").forward(prompt).saved_flops
    assert mlp == 2 * 24 * weights(diffusion.blocks[2].get_submodule("mlp"))
    assert attn + mlp == block_flops(diffusion, 24, 24)


def test_a_swap_saves_nothing_and_a_repeat_costs_a_block(diffusion: dlens.Model) -> None:
    prompt = ids(diffusion, 1, 24)
    assert dlens.trace(diffusion).swap(2, 9).forward(prompt).saved_flops == 0
    repeated = dlens.trace(diffusion).repeat(4, 3).forward(prompt)
    assert repeated.saved_flops == -2 * block_flops(diffusion, 24, 24)


def test_rows_that_disagree_save_nothing(diffusion: dlens.Model) -> None:
    prompt = ids(diffusion, 2, 24)
    prompt[0] = diffusion.family.mask_token_id
    trace = dlens.trace(diffusion)
    assert trace.skip([3], noise=(0.5, 1.0)).forward(prompt).saved_flops == 0
    assert trace.skip([3], noise=(0.0, 1.0)).forward(prompt).saved_flops == 2 * block_flops(diffusion, 24, 24)


@pytest.mark.parametrize("skipped", [[], [0, 4]])
def test_lengths_read_off_a_line_equal_those_counted_one_by_one(ar: dlens.Model, skipped: list[int]) -> None:
    trace = dlens.trace(ar).skip(skipped) if skipped else dlens.trace(ar)
    acting = tuple((index, None) for index in range(len(trace.ops)))
    steps = [StepCost(1, 1, cached=length, structural=acting) for length in range(9, 16)]
    target = target_of(ar)
    one_by_one = sum(count_steps(ar, target, trace.ops, [step]) for step in steps)
    ar.memo.clear()
    assert count_steps(ar, target, trace.ops, steps) == one_by_one
    assert len(ar.kept("flops", structure(ar.module))) == 3


def test_a_count_is_kept_with_the_model(diffusion: dlens.Model) -> None:
    cost = StepCost(1, 10)
    target = target_of(diffusion)
    first = count_steps(diffusion, target, (), [cost])
    before = dict(diffusion.kept("flops", structure(diffusion.module)))
    assert count_steps(diffusion, target, (), [cost, replace(cost)]) == 2 * first
    assert diffusion.kept("flops", structure(diffusion.module)) == before


def test_a_count_follows_the_module() -> None:
    module = build("qwen2")
    trace = dlens.trace(module)
    wide = trace.forward(ids(trace.model, 1, 16)).flops
    for block in module.model.layers:
        for name, shape in (("gate_proj", (8, 32)), ("up_proj", (8, 32)), ("down_proj", (32, 8))):
            getattr(block.mlp, name).weight = torch.nn.Parameter(torch.ones(shape))
    assert wide - trace.forward(ids(trace.model, 1, 16)).flops == 4 * 2 * 16 * 3 * 32 * (48 - 8)


@final
@dataclass(frozen=True)
class EveryNth(dlens.Op):
    """Skips every n-th block, and says the same of itself whatever n is."""

    n: int = 2

    def words(self) -> str:
        return "skip some"

    def structure(self, target: Any) -> dlens.Structure:
        return dlens.Structure(skips=dict.fromkeys(range(0, target.n_layers, self.n), "block"))


def test_operations_that_say_the_same_are_counted_by_what_they_do() -> None:
    model = dlens.load(build("qwen2"))
    saved = [dlens.trace(model).apply(EveryNth(n)).forward(ids(model, 1, 8)).saved_flops for n in (1, 2, 4)]
    assert saved == [count * block_flops(model, 8, 8) for count in (4, 2, 1)]
