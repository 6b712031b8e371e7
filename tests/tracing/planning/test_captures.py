"""How large captures will be, and where that is refused."""

from __future__ import annotations

import pytest

import dlens
from dlens import trace
from tests.refusing import STORY, WIDTH, Action, refused
from tests.unchecked import unchecked

TOO_LARGE: dict[str, tuple[str, Action]] = {
    "forward memory": ("captures need", lambda m: trace(m).capture("logits").forward(STORY, capture_limit=65535)),
    "memory": ("captures need", lambda m: trace(m).capture("resid_post").generate(STORY, 8, capture_limit=10**6)),
}


def test_the_limit_of_captures_is_exact(diffusion: dlens.Model) -> None:
    needed = 8 * 16 * 1 * (WIDTH + 8) * 192 * 4
    chain = trace(diffusion).capture("resid_post")
    with pytest.raises(MemoryError, match=f"pass capture_limit={needed}$"):
        chain.generate(STORY, 8, capture_limit=needed - 1)
    assert chain.generate(STORY, 8, capture_limit=needed)["resid_post"].nbytes == needed


@pytest.mark.parametrize("case", TOO_LARGE)
def test_captures_above_the_limit(diffusion: dlens.Model, case: str) -> None:
    came, action = TOO_LARGE[case]
    with unchecked(), refused(diffusion, MemoryError, came):
        action(diffusion)
