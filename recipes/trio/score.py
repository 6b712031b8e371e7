"""How many test problems a model solves: `python -m recipes.trio.score trio/diffusion --tokens-per-step 2`."""

from __future__ import annotations

import torch
import tyro

from dlens import Model, load, trace
from dlens.findings.scores.intervals import share_interval
from dlens.samplers import LLaDA, Sampler
from dlens.tasks import get, names
from recipes.trio.numbers import accuracy

__all__ = ["load_exact", "sampler_of", "score"]

BLOCK = 8


def score(model: str, /, problems: int = 500, tokens_per_step: int = 1, block: int = BLOCK, seed: int = 0) -> None:
    """Print the accuracy on both tasks, decoded greedily, with its 95 % interval (Wilson).

    Args:
        model: anything `dlens.load` takes.
        problems: of each task, with equal shares of one to four steps.
        tokens_per_step: of LLaDA's sampler (a diffusion model).
        block: length of its blocks.
        seed: of the problems.
    """
    loaded = load_exact(model)
    for task in names():
        sampler = sampler_of(loaded, task, tokens_per_step, block)
        solved = accuracy(trace(loaded), task, problems, seed, sampler)
        right, (low, high) = sum(solved), share_interval(solved)
        print(f"{model} {task}: {right / problems:.3f} ({low:.3f} to {high:.3f}), {right} of {problems}")


def load_exact(checkpoint: str) -> Model:
    """A checkpoint in float32, on the GPU where there is one."""
    return load(checkpoint, dtype="float32", device_map="cuda" if torch.cuda.is_available() else "cpu")


def sampler_of(model: Model, task: str, tokens_per_step: int, block: int) -> Sampler | None:
    """LLaDA's sampler for a task where there are masks."""
    if model.family.objective != "diffusion":
        return None
    return LLaDA(steps=get(task).max_new_tokens // tokens_per_step, block_length=block)


if __name__ == "__main__":
    tyro.cli(score)
