"""What the halves of blocks added, on a tiny decoder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from transformers import Qwen2Config

import dlens
from dlens.caches.cache import Cache, Halves
from dlens.models.families.decoder import MASKED
from dlens.tracing.step.canvas import CanvasKeys
from dlens.tracing.step.halves import HalfOutputs
from tests.reference import fresh
from tests.whole.architectures import SIZE, build

PROMPT = "Once upon a time"
IDS = torch.tensor([[3, 14, 15, 9, 26, 5, 35, 8], [98, 98, 18, 28, 18, 28, 45, 90]])


@torch.no_grad()
def test_what_did_not_move_need_not_be_computed() -> None:
    module = build(Qwen2Config(**SIZE, num_key_value_heads=2, is_causal=False)).double()
    plain = fresh(module).double()
    model = dlens.load(module, family=replace(MASKED, mask_token_id=99))
    keys = CanvasKeys(model, 8)
    outputs = HalfOutputs(model, keys, prompt_width=3)
    whole = plain(input_ids=IDS).logits
    for now in (Halves(True, True, 1), Halves(False, False, 0), Halves(True, False, 0.4), Halves(False, True, 0)):
        with outputs.step(now):
            torch.testing.assert_close(keys.logits(IDS, None, None), whole, rtol=0, atol=1e-13)
    changed = IDS.clone()
    changed[:, 0] = 7
    with outputs.step(Halves(False, False, 0)):
        kept = keys.logits(changed, None, None)
    assert not torch.allclose(kept, plain(input_ids=changed).logits)
    with outputs.step(Halves(True, True, 0)):
        torch.testing.assert_close(
            keys.logits(changed, None, None), plain(input_ids=changed).logits, rtol=0, atol=1e-13
        )
    assert not any(part._forward_pre_hooks or part._forward_hooks for part in module.modules())


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
