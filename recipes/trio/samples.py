"""Stories that a model tells: `python -m recipes.trio.samples trio/ar`."""

from __future__ import annotations

import tyro

from dlens import load, trace
from dlens.samplers import Autoregressive, LLaDA, Sampler

__all__ = ["samples"]

PROMPT = "Once upon a time, there was a little girl named Lily."
TOKENS = 60
SEEDS = (0, 1, 2)
_TEMPERATURE = 0.5


def samples(name: str) -> list[str]:
    """Continuations of a story, of 60 tokens, with seeds 0, 1 and 2.

    Args:
        name: anything `dlens.load` takes.
    """
    model = load(name)
    sampler: Sampler = Autoregressive(temperature=_TEMPERATURE)
    if model.family.objective == "diffusion":
        sampler = LLaDA(temperature=_TEMPERATURE, block_length=TOKENS // 5)
    runs = (trace(model).generate(PROMPT, TOKENS, sampler=sampler, seed=seed, progress=False) for seed in SEEDS)
    return [record.text[0] for record in runs]


if __name__ == "__main__":
    for number, text in enumerate(samples(tyro.cli(str, prog="samples"))):
        print(f"[{number}] {PROMPT}{text}")
