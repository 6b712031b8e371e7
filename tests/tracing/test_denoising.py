"""Denoising runs equal plain ones, and fill the masks of prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import pytest
import torch
from torch import Tensor

import dlens
from dlens.samplers import Dream, LLaDA, Threshold
from dlens.samplers.sampler import Denoiser
from tests.refusing import STORY, Action, refused
from tests.tracing.plain import NEW, PROMPTS, plain_run
from tests.unchecked import unchecked

SAMPLERS = [
    LLaDA(steps=6, block_length=6),
    LLaDA(temperature=0.7, remasking="random"),
    LLaDA(guidance=1.0, steps=6),
    Dream(steps=5, algorithm="entropy"),
    Dream(steps=6, algorithm="origin"),
    Dream(algorithm="maskgit_plus", temperature=0.5, top_p=0.9, alg_temp=0.3),
    Threshold(threshold=0.6, block_length=6),
]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_run_without_operations_is_the_plain_run(model: dlens.Model, plain: Any, sampler: Any) -> None:
    expected = plain_run(model, plain, sampler, PROMPTS[:2], seed=3)
    for trace in (dlens.trace(model), dlens.trace(model).capture("resid_post", layers=[2])):
        record = trace.generate(PROMPTS[:2], NEW, sampler=sampler, seed=3)
        assert torch.equal(record.tokens, expected.tokens)
        assert record.canvas is not None
        assert torch.equal(record.canvas, torch.stack(expected.canvases))


def test_infilling_fills_the_masks_of_a_prompt(diffusion: dlens.Model) -> None:
    ids = diffusion.tokenizer("Once upon a time there was a little girl named Lily.")["input_ids"]
    gap = list(ids)
    gap[4:7] = [diffusion.family.mask_token_id] * 3
    record = dlens.trace(diffusion).generate([gap, ids[:5]], 4, infill=True, sampler=LLaDA())
    assert record.canvas is not None
    assert not (record.tokens == diffusion.family.mask_token_id).any()
    assert (record.committed_at[0, 4:7] >= 0).all() and (record.committed_at[0, :4] == -1).all()
    only = dlens.trace(diffusion).generate([gap], 0, infill=True)
    assert only.n_steps == 3 and only.tokens.shape == (1, len(ids))


REFUSED: dict[str, tuple[str, Action]] = {
    "nothing to fill": ("no mask", lambda m: dlens.trace(m).generate(STORY, 0, infill=True)),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_run_with_nothing_to_do(diffusion: dlens.Model, case: str) -> None:
    came, action = REFUSED[case]
    with unchecked(), refused(diffusion, ValueError, came):
        action(diffusion)


@final
@dataclass(frozen=True)
class Unplanned(Denoiser):
    """Runs other steps than it planned, and leaves the last masks of each row."""

    planned: Any = 2
    ran: int = 2
    left: int = 0

    def planned_steps(self, new_tokens: int, held: int = 0) -> int:
        return self.planned

    def decode(self, forward: Any, canvas: Any, generated: Any, new_tokens: int, tokens: Any, draw: Any) -> Any:
        for _ in range(self.ran):
            forward(canvas)
        columns = torch.arange(canvas.shape[1]) < canvas.shape[1] - self.left
        return canvas.where(~(generated & columns), 70)


NOTED: dict[str, tuple[Unplanned, tuple[str, ...]]] = {
    "as planned": (Unplanned(), ()),
    "masks": (Unplanned(left=2), ("Unplanned left 4 masks in 2 of 2 rows; the text shows each as ░",)),
    "fewer": (
        Unplanned(ran=1),
        ("Unplanned took fewer steps than it planned; `steps=` and thirds count the planned ones",),
    ),
    "more": (
        Unplanned(ran=3),
        ("Unplanned took 3 steps and had planned 2; operations, captures and measures act at the planned ones alone",),
    ),
}


@pytest.mark.parametrize("case", NOTED)
def test_a_sampler_that_does_not_do_what_it_planned_is_noted(diffusion: dlens.Model, case: str) -> None:
    sampler, notes = NOTED[case]
    chain = dlens.trace(diffusion).skip([3]).capture("resid_post", layers=[0]).measure(dlens.Cosine())
    record = chain.generate(["Once upon a time", "Tom"], 4, sampler=sampler)
    assert record.notes == notes and record.n_steps == sampler.ran
    acted = min(sampler.ran, sampler.planned)
    assert list(record.coords("resid_post")["step"]) == list(range(acted))
    measured = record.measures["cosine"]["n"].sum(["state", "noise"])
    assert (measured > 0).any("layer").values.tolist() == [True] * acted + [False] * (sampler.planned - acted)
    assert [text.count("░") for text in record.text] == [sampler.left] * 2


@final
@dataclass(frozen=True, eq=False)
class Given(Denoiser):
    """Fills the canvas with given tokens at its one step."""

    filled: Tensor

    def planned_steps(self, new_tokens: int, held: int = 0) -> int:
        return 1

    def decode(self, forward: Any, canvas: Any, generated: Any, new_tokens: int, tokens: Any, draw: Any) -> Any:
        forward(canvas)
        return self.filled


def test_a_mask_that_is_left_stands_in_the_text(diffusion: dlens.Model) -> None:
    ids = diffusion.tokenizer(" a little girl")["input_ids"]
    mask, prompt = diffusion.family.mask_token_id, torch.tensor(diffusion.tokenizer("Once upon a time")["input_ids"])
    filled = torch.cat([prompt, torch.tensor([ids[0], mask, *ids[1:]])])[None]
    record = dlens.trace(diffusion).generate(prompt[None], len(ids) + 1, sampler=Given(filled))
    first, rest = (diffusion.tokenizer.decode(part) for part in (ids[:1], ids[1:]))
    assert record.text == [f"{first}░{rest}"]
