"""What the two papers report of their own models in numbers, and what they claim that dlens does not test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from dlens.findings.study.claims import COLLAPSE, SKIPPING
from dlens.findings.study.results import ModelKind

__all__ = ["ADDRESSES", "PUBLISHED", "UNTESTED", "Published"]

ADDRESSES: Mapping[str, str] = {paper: f"https://arxiv.org/abs/{paper.split()[1]}" for paper in (SKIPPING, COLLAPSE)}


@final
@dataclass(frozen=True)
class Published:
    """A number of a paper.

    Args:
        value: as the effect counts it, such as 0.918 for 91.8 % kept.
        words: of which model, on what.
    """

    value: float
    words: str


# As others who wrote of the papers give them; the cells of a report have all of what is reported.
PUBLISHED: Mapping[str, Mapping[ModelKind, Published]] = {
    "Skipping 18.75 % of the blocks, no two neighbours": {
        "diffusion": Published(0.918, "LLaDA-8B, 6 of 32, GSM8K"),
        "ar": Published(0.349, "Qwen2.5-7B, 2 of 28, GSM8K"),
        "ar-init": Published(-0.245, "Dream-7B less LLaDA-8B, 2 blocks, GSM8K"),
    },
    "Skipping 18.75 % of the blocks, consecutive and early": {
        "diffusion": Published(0.753, "LLaDA-8B, 6 of 32, GSM8K"),
        "ar-init": Published(0.141, "Dream-7B, 2 of 28, GSM8K"),
    },
    "Without that channel the model breaks": {
        "diffusion": Published(0.17, "LLaDA-8B, GSM8K: −83 %, read as relative"),
        "ar": Published(0.96, "AR, GSM8K: −4 %, read as relative"),
    },
    "3 bits are enough": {
        "diffusion": Published(0.982, "LLaDA-8B, GSM8K: −1.8 %, read as relative"),
        "ar": Published(0.353, "Llama-3.1-8B, GSM8K: −64.7 %, read as relative"),
    },
    "The best allocation of sparsity reverses": {
        "diffusion": Published(0.084, "LLaDA, read as a difference"),
        "ar": Published(-0.084, "Llama, read as a difference"),
    },
}

# Pairs of a paper and of what it says.
UNTESTED: tuple[tuple[str, str], ...] = (
    (SKIPPING, "which blocks its own algorithm skips, with its bar of 0.95: their numbers are not published"),
    (SKIPPING, "skipping of 2, 4 and 8 blocks, and HumanEval and MATH-500 beside one task"),
    (SKIPPING, "time that skipping saves; dlens counts FLOPs"),
    (COLLAPSE, "that the channel's place lasts over a long range of tokens, or all of them: its two texts differ"),
    (COLLAPSE, "that output without the channel is loops of random tokens: examples of answers are in the tables"),
    (
        COLLAPSE,
        "that the collapse comes of overtraining, to which it is ascribed, and a controlled pair of models of 160 M",
    ),
    (COLLAPSE, "other means of sparsity than one half, and benchmarks of base models by likelihood"),
)
