"""One forward over prompts of unequal length."""

from __future__ import annotations

import dlens
from tests.tracing.plain import PROMPTS


def test_forward_of_unequal_prompts_hides_padding(diffusion: dlens.Model) -> None:
    together = dlens.trace(diffusion).capture("resid_post", "logits").forward(PROMPTS[:2])
    assert together.text == [] and together.canvas is None
    for row, text in enumerate(PROMPTS[:2]):
        alone = dlens.trace(diffusion).capture("resid_post", "logits").forward(text)
        real = together.tokens.shape[1] - alone.tokens.shape[1]
        gap = together["resid_post"][:, row, real:] - alone["resid_post"][:, 0]
        assert gap.abs().max() < 1e-3
        assert together["resid_post"][:, row, :real].abs().sum() == 0
