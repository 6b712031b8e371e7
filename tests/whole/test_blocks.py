"""Block diffusion on stand-ins of public code, against loops written by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import dlens
from dlens.models.families.registry import families
from dlens.samplers import Ancestral, BlockDiffusion, FirstHitting
from tests.standins import save_blocks

MASK, NEW = 59, 9
Logits = Callable[[list[int]], Tensor]


def load(tmp_path: Path, kind: str, block: int) -> dlens.Model:
    name = {"llada2_moe": "llada2", "Fast_dLLM_Qwen": "fast-dllm-v2"}.get(kind, kind)
    family = next(family for family in families() if family.name == name)
    own = {"block_size": block} if kind == "bd3lm" else {}
    folder = save_blocks(tmp_path / str(block), kind, **own)
    return dlens.load(folder, trust_remote_code=True, family=replace(family, block_length=block, mask_token_id=MASK))


def prompt(length: int) -> list[int]:
    return torch.randint(0, 56, (length,), generator=torch.Generator().manual_seed(length)).tolist()


def by_hand(model: dlens.Model, block: int) -> Logits:
    """The logits of one row of whole blocks, by arguments written out here."""
    module: Any = model.module
    kind = model.family.name

    def logits(row: list[int]) -> Tensor:
        ids, place = torch.tensor([row]), torch.arange(len(row))
        told = {
            "fast-dllm-v2": {"block_size": block},
            "bd3lm": {"sample_mode": True, "timesteps": torch.zeros(1)},
        }.get(kind, {"attention_mask": (place[:, None] // block >= place // block)[None, None]})
        with torch.no_grad():
            found = module(input_ids=ids, **told).logits[0].double()
        return torch.cat([found[:1], found[:-1]]) if model.family.shift else found

    return logits


def by_confidence(logits: Logits, ids: list[int], block: int, threshold: float, first_alone: bool) -> list[int]:
    """One block after the other: all masks above the threshold, at least the surest one."""
    x = [*ids, *[MASK] * NEW]
    x += [MASK] * (-len(x) % block)
    while MASK in x:
        first = x.index(MASK) // block * block
        scores = logits(x)
        scores[:, MASK] = -torch.inf
        sure, tokens = scores.softmax(-1).max(-1)
        masked = [place for place in range(first, first + block) if x[place] == MASK]
        if first_alone and x[first] == MASK:
            masked = [first]
        surest = max(masked, key=lambda place: (float(sure[place]), -place))
        for place in [place for place in masked if sure[place] > threshold or place == surest]:
            x[place] = int(tokens[place])
    return x[: len(ids) + NEW]


@pytest.mark.parametrize("kind", ["llada2_moe", "sdar", "Fast_dLLM_Qwen", "bd3lm"])
@pytest.mark.parametrize("block", [4, 8])
def test_a_run_is_a_loop_by_hand_and_a_batch_is_each_prompt_alone(kind: str, block: int, tmp_path: Path) -> None:
    model = load(tmp_path, kind, block)
    alone = bool(model.family.shift)
    sampler = BlockDiffusion(block, steps=None, threshold=0.5, first_alone=alone, stop="never")
    prompts = [prompt(length) for length in (5, 8, 11)]
    logits = by_hand(model, block)
    expected = [by_confidence(logits, ids, block, 0.5, alone) for ids in prompts]
    for cache in ("off", "auto"):
        record = dlens.trace(model).generate(prompts, NEW, sampler=sampler, cache=cache)
        for row, ids in enumerate(prompts):
            assert record.tokens[row, 11 - len(ids) :].tolist() == expected[row]
    assert record.canvas is not None and record.canvas.shape[1:] == record.tokens.shape == (3, 11 + NEW)


def test_what_is_read_and_written_stays_within_what_was_asked_for(tmp_path: Path) -> None:
    model = load(tmp_path, "sdar", 4)
    trace = dlens.trace(model).capture("resid_post", layers=[0, 2]).measure(dlens.Cosine())
    record = trace.skip([1]).generate([prompt(5), prompt(3)], NEW, cache="off")
    steps, width = record.n_steps, 5 + NEW
    assert record["resid_post"].shape == (steps, 2, 2, width, 32) and record.committed_at.shape == (2, width)
    assert not record["resid_post"][:, :, 1, :2].any() and record["resid_post"][:, :, 1, 2:].isfinite().all()
    # 5 and 9 tokens fill up to 16, 3 and 9 already make 12; what no row decodes is measured in none.
    assert int(record.measures["cosine"]["n"].isel(step=0, layer=0).sum()) == (5 + NEW + 2) + (3 + NEW)
    with torch.no_grad():
        pre, layers = [], model.module.model.layers
        handles = [layers[i].register_forward_hook(lambda _m, _a, out: pre.append(out[0])) for i in (0, 2)]
        handles += [layers[1].register_forward_hook(lambda _m, args, _o: (args[0],))]
        ids = torch.tensor([[*prompt(5), *[MASK] * 11]])
        model.module(**model.family.inputs(ids, None))
        for handle in handles:
            handle.remove()
    for found, expected in zip(record["resid_post"][0, :, 0], pre, strict=True):
        torch.testing.assert_close(found, expected[0, :width])


def test_first_hitting_draws_what_the_published_loop_does(tmp_path: Path) -> None:
    model, ids = load(tmp_path, "bd3lm", 4), prompt(5)
    logits, generator = by_hand(model, 4), torch.Generator().manual_seed(3)
    x = [*ids, *[MASK] * 11]
    while MASK in x:
        first = x.index(MASK) // 4 * 4
        masked = [place for place in range(first, first + 4) if x[place] == MASK]
        scores = logits(x)
        scores[:, MASK] = -torch.inf
        noise = torch.rand((1, 4, 60), generator=generator, dtype=torch.float64)[0]
        place = masked[int(torch.rand((1,), generator=generator, dtype=torch.float64) * len(masked))]
        x[place] = int((scores[place].softmax(-1) / -noise[place - first].log()).argmax())
    record = dlens.trace(model).generate([ids], NEW, sampler=FirstHitting(4, stop="never"), seed=3)
    assert record.tokens[0].tolist() == x[: 5 + NEW] and record.n_steps == 11


def test_ancestral_sampling_on_a_model_that_is_told_the_noise(tmp_path: Path) -> None:
    folder = save_blocks(tmp_path, "mdlm", time_conditioning=True)
    model, ids = dlens.load(folder, trust_remote_code=True), prompt(5)
    generator, x, ran = torch.Generator().manual_seed(3), [*ids, *[MASK] * NEW], 0

    def scores() -> Tensor:
        sigma = -torch.log(1 - 0.999 * torch.tensor([x.count(MASK) / len(x)]))
        with torch.no_grad():
            found = model.module(input_ids=torch.tensor([x]), timesteps=sigma).logits[0, 5:].double()
        found[:, MASK] = -torch.inf
        return found

    times = torch.linspace(1, 1e-5, 4, dtype=torch.float64).tolist()
    for t, s in zip(times, times[1:], strict=False):
        ran += 1
        rates = scores().softmax(-1) * (t - s)
        rates[:, MASK] = s
        drawn = (rates / -torch.rand((1, NEW, 60), generator=generator, dtype=torch.float64)[0].log()).argmax(-1)
        before = list(x)
        x = [*ids, *(int(new) if old == MASK else old for old, new in zip(x[5:], drawn, strict=True))]
        assert x != before  # else its logits would be carried over
    if MASK in x:
        ran += 1
        likeliest = scores().argmax(-1)
        x = [*ids, *(int(new) if old == MASK else old for old, new in zip(x[5:], likeliest, strict=True))]
    record = dlens.trace(model).generate([ids], NEW, sampler=Ancestral(3), seed=3)
    assert record.tokens[0].tolist() == x and record.n_steps == ran


def test_edits_are_committed_when_they_change_last(tmp_path: Path) -> None:
    model = load(tmp_path, "llada2_moe", 4)
    sampler = BlockDiffusion(4, steps=None, threshold=0.1, edit_threshold=0.05, stop="never")
    record = dlens.trace(model).generate([prompt(6)], 10, sampler=sampler)
    assert record.canvas is not None
    canvases = torch.cat([record.canvas[:, 0], record.tokens])
    changes = canvases[1:] != canvases[:-1]
    assert ((canvases[:-1] != MASK) & changes).any()
    last = [max(changes[:, place].nonzero().squeeze(1).tolist()) for place in range(6, 16)]
    assert record.committed_at[0].tolist() == [-1] * 6 + last


def test_another_block_length_than_the_attention_has_is_refused(tmp_path: Path) -> None:
    model = load(tmp_path, "sdar", 4)
    for sampler in (BlockDiffusion(8), FirstHitting(8)):
        with pytest.raises(
            ValueError, match=r"block_length=8\) for .* blocks of 4; expected the same; give block_length=4"
        ):
            dlens.trace(model).generate([prompt(5)], 4, sampler=sampler)


def test_on_full_attention_the_last_block_ends_with_the_canvas(diffusion: dlens.Model) -> None:
    sampler = BlockDiffusion(4, steps=None, threshold=None, stop="never")
    record = dlens.trace(diffusion).generate("Once upon a time", 6, sampler=sampler)
    assert record.n_steps == 6 and record.tokens.shape[1] == record.is_prompt.sum() + 6
