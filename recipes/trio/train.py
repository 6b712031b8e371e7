"""Train one of the trio: `python -m recipes.trio.train diffusion --data data --out runs/diffusion`.

A run that was stopped goes on from where its last state was saved. The folder gets losses.jsonl (every
step), numbers.jsonl (what the model shows along the way), weights/ (a checkpoint at each of those
points) and model/ (the finished checkpoint, in bfloat16).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from tqdm.auto import tqdm

from recipes.trio.batches import Batches, noise_of
from recipes.trio.log import Log
from recipes.trio.numbers import numbers
from recipes.trio.objective import RUNS, build
from recipes.trio.stepping import Stepper
from recipes.trio.tokens import ROW
from recipes.trio.weights import read_weights, write_model

__all__ = ["train"]

# Tokens, in steps of the full-size batch, after which the numbers are taken.
MARKS = (128, 256, 512, 1024, 2048, 4096, 6144, 8192, 12288)
_WARM_UP = 200
_DECAY_SHARE = 0.35
_SAVE_EVERY = 1000


def train(
    name: Literal["ar", "diffusion", "ar-init"],
    /,
    data: Path = Path("data"),
    out: Path | None = None,
    start: Path | None = None,
    seed: int = 0,
    steps: int | None = None,
    stop: int | None = None,
    tokens_per_step: int = 256 * ROW,
    layers: int = 16,
    marks: tuple[int, ...] = MARKS,
    problems: int = 256,
    compile: bool = True,
) -> None:
    """Train one of the three models, or go on with a run that was stopped.

    Args:
        name: which.
        data: the folder that `prepare` wrote.
        out: folder of the run; runs/NAME by default.
        start: the finished checkpoint of the run that it starts from (for ar-init: of ar).
        seed: of the weights, the order of the data and the masks.
        steps: of the whole schedule; the run's own by default.
        stop: step to stop at, before the schedule ends; numbers are taken there too.
        tokens_per_step: a multiple of 256.
        layers: blocks.
        marks: steps at which numbers are taken, besides the last.
        problems: of each task, whenever numbers are taken.
        compile: compile the blocks (on a GPU).
    """
    run = RUNS[name]
    if (start is None) != (run.starts_from is None):
        raise ValueError(f"{name} with start={start}; expected {run.starts_from or 'none'}; see --start")
    steps = steps or run.steps
    out = out or Path("runs") / name
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = _tokenizer(data)
    model = build(run, len(tokenizer), layers, seed).to(device)
    if start is not None:
        read_weights(model, start)
    stepper = Stepper(model, run, compile and device.type == "cuda")
    batches = Batches(data / "train.npy", tokens_per_step, seed, device)
    log = Log(out, tokens_per_step)
    first, last = log.resume(model, stepper.optimizer), min(steps, stop or steps)
    for step in tqdm(range(first, last), name, initial=first, total=last, mininterval=5):
        rate = run.learning_rate * _share_of_rate(step, steps)
        log.loss(stepper(*batches[step], noise_of(seed, step, device), rate))
        done = step + 1
        if done in marks or done == last:
            log.numbers(done, numbers(run, model, tokenizer, data, problems))
            write_model(out / "weights" / str(done), model, tokenizer)
        if done in marks or done == last or done % _SAVE_EVERY == 0:
            log.save(done, model, stepper.optimizer)
    if last == steps:
        write_model(out / "model", model, tokenizer)


def _tokenizer(data: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(data / "tokenizer")


def _share_of_rate(step: int, steps: int) -> float:
    """Warm up, hold, and fall in a line over the last part."""
    warm = min(_WARM_UP, max(1, steps // 10))
    return min((step + 1) / warm, (steps - step) / (_DECAY_SHARE * steps), 1.0)


if __name__ == "__main__":
    tyro.cli(train)
