"""How large captures will be, and where that is refused."""

from __future__ import annotations

from typing import Any

import pytest

import dlens
from dlens import trace
from dlens.ops.base.target import RunShape
from dlens.tracing.planning.captures import capture_bytes
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


@pytest.mark.parametrize(
    ("chain", "kind", "numbers"),
    [
        (lambda t: t.capture("resid_post"), "forward", 16 * 2 * 10 * 192),
        (lambda t: t.capture("resid_post", layers=[0, -1]), "denoising", 8 * 2 * 2 * 10 * 192),
        (lambda t: t.capture("resid_post", layers=[3], steps=range(2)), "denoising", 2 * 2 * 10 * 192),
        (lambda t: t.capture("resid_post", layers=[3], steps=range(2)), "decoding", 2 * 10 * 192),
        (lambda t: t.capture("logits", steps=[-1]), "denoising", 2 * 10 * 4096),
        (lambda t: t.capture("blocks.2.hook_mlp_out", "embed"), "forward", 2 * 2 * 10 * 192),
        (lambda t: t.skip([1]).measure(dlens.Cosine()), "forward", 0),
    ],
)
def test_bytes_are_those_of_the_shape(diffusion: dlens.Model, chain: Any, kind: Any, numbers: int) -> None:
    traced = chain(trace(diffusion))
    shape = RunShape(kind, 1 if kind == "forward" else 8, 2, 10, 4)
    assert capture_bytes(traced.ops, diffusion, traced.target, shape) == 4 * numbers


def test_a_pattern_takes_a_number_for_each_head_and_pair_of_positions(ar: dlens.Model) -> None:
    traced = trace(ar).capture("pattern", layers=[0, 1, 2])
    heads = ar.config.num_attention_heads
    shape = RunShape("forward", 1, 2, 10, 10)
    assert capture_bytes(traced.ops, ar, traced.target, shape) == 4 * 3 * 2 * heads * 10 * 10
    assert traced.forward([[5] * 10] * 2)["pattern"].nbytes == 4 * 3 * 2 * heads * 10 * 10
