"""What halves add is kept: computed whole they are a run without a cache; the same canvas gives the same again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

import dlens
from dlens.caches.cache import Cache, Halves

PROMPT = "Once upon a time"


@dataclass(frozen=True)
class Given(Cache):
    """The same halves at every step but the first."""

    now: Halves

    def halves(self, step: int) -> Halves:
        return self.now if step else Halves(True, True, 1.0)

    def columns(self, view: Any) -> None:
        return None


def test_halves_computed_whole_are_a_run_without_a_cache(diffusion: dlens.Model) -> None:
    trace = dlens.trace(diffusion).skip([3]).capture("resid_post", layers=[0, 8])
    plain = trace.generate(PROMPT, 6)
    kept = trace.generate(PROMPT, 6, cache=Given(Halves(True, True, 1.0)))
    assert torch.equal(plain.tokens, kept.tokens) and torch.equal(plain["resid_post"], kept["resid_post"])


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_an_unchanged_canvas_gives_what_it_gave(share: float, diffusion: dlens.Model) -> None:
    @dataclass(frozen=True)
    class Twice(dlens.samplers.Denoiser):
        """Looks at one canvas twice."""

        def planned_steps(self, max_new_tokens: int, infill: int = 0) -> int:
            return 2

        def decode(
            self, forward: Any, canvas: Any, generated: Any, new_tokens: int, tokens: Any, draw: Any
        ) -> torch.Tensor:
            first, second = forward(canvas), forward(canvas)
            assert torch.allclose(first, second, atol=1e-4)
            return canvas.where(~generated, second.argmax(-1))

    record = dlens.trace(diffusion).generate(PROMPT, 6, sampler=Twice(), cache=Given(Halves(False, False, share)))
    assert record.n_steps == 2 and record.flops < 2 * dlens.trace(diffusion).generate(PROMPT, 6, sampler=Twice()).flops
