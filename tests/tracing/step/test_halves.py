"""What the halves of blocks added, on a tiny decoder."""

from __future__ import annotations

from dataclasses import replace

import torch
from transformers import Qwen2Config

import dlens
from dlens.caches.cache import Halves
from dlens.models.families.decoder import MASKED
from dlens.tracing.step.canvas import CanvasKeys
from dlens.tracing.step.halves import HalfOutputs
from tests.reference import fresh
from tests.whole.architectures import SIZE, build

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
