"""A run refuses what a sampler may not do: another canvas, no step, tokens that are none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import pytest
import torch

import dlens
from dlens.samplers.sampler import Denoiser
from dlens.tracing.denoising_run import uniform_draws
from tests.refusing import STORY, refused


@final
@dataclass(frozen=True)
class Lengthening(Denoiser):
    """Appends a mask, as samplers of growing canvases do."""

    def planned_steps(self, new_tokens: int, held: int = 0) -> int:
        return 2

    def decode(self, forward: Any, canvas: Any, generated: Any, new_tokens: int, tokens: Any, draw: Any) -> Any:
        forward(canvas)
        forward(torch.cat([canvas, canvas[:, -1:]], dim=-1))
        return canvas


def test_a_sampler_that_lengthens_the_canvas_is_refused(diffusion: dlens.Model) -> None:
    with pytest.raises(ValueError, match=r"Lengthening asked .* \[1, 9\]; expected \[1, 8\], .*; write tokens"):
        dlens.trace(diffusion).skip([2]).generate("Once upon a time", 4, sampler=Lengthening())


@final
@dataclass(frozen=True)
class Returning(Denoiser):
    """Returns what a function makes of the canvas."""

    made: Any

    def planned_steps(self, new_tokens: int, held: int = 0) -> int:
        return 1

    def decode(self, forward: Any, canvas: Any, generated: Any, new_tokens: int, tokens: Any, draw: Any) -> Any:
        forward(canvas)
        return self.made(canvas)


RETURNED: dict[str, Any] = {
    "NoneType": lambda canvas: None,
    r"a canvas \[1, 7\] of torch.int64": lambda canvas: canvas[:, 1:],
    r"a canvas \[1, 8\] of torch.int32": lambda canvas: canvas.int(),
    r"a canvas \[1, 8\] of torch.float32": lambda canvas: canvas.float(),
    "token ids from -1 to 4": lambda canvas: canvas.clamp(max=4).index_fill(1, torch.tensor([7]), -1),
    "token ids from 4 to 4096": lambda canvas: canvas.clamp(4, 4).index_fill(1, torch.tensor([7]), 4096),
    "a canvas with other tokens in its prompts": lambda canvas: canvas.clamp(max=4),
    "a canvas on meta": lambda canvas: canvas.to("meta"),
    # In place, which the sampler may not do, and which leaves nothing to compare with but a copy.
    "a canvas with other tokens in its .?prompts": lambda canvas: canvas.fill_(4),
}


@pytest.mark.parametrize("came", RETURNED)
def test_what_is_no_filled_canvas_is_refused(came: str, diffusion: dlens.Model) -> None:
    message = rf"Returning.decode returned {came}; expected the canvas \[1, 8\] of torch.int64 that it got, .*; fill"
    with pytest.raises(ValueError, match=message):
        dlens.trace(diffusion).generate("Once upon a time", 4, sampler=Returning(RETURNED[came]))


@final
@dataclass(frozen=True)
class Idle(Denoiser):
    """Takes no step."""

    def planned_steps(self, new_tokens: int, held: int = 0) -> int:
        return 1

    def decode(self, forward: Any, canvas: Any, generated: Any, new_tokens: int, tokens: Any, draw: Any) -> Any:
        return canvas


def test_a_sampler_that_takes_no_step_is_refused(diffusion: dlens.Model) -> None:
    with refused(diffusion, ValueError, "Idle took no step"):
        dlens.trace(diffusion).skip([3]).generate(STORY, 4, sampler=Idle())


def test_draws_are_those_of_one_generator() -> None:
    generator, draw = torch.Generator().manual_seed(5), uniform_draws(5, torch.device("cpu"))
    for shape in ((2, 3), (4,)):
        assert torch.equal(draw(shape), torch.rand(shape, generator=generator, dtype=torch.float64))
