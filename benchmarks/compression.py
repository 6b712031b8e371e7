"""How what `dlens.compress` makes compares with llmcompressor's: `make bench-compression`.

Both get the same modules, rows and settings, in an environment of its own that has both libraries.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

import dlens
from benchmarks import oracle
from benchmarks.rows import Row, publish
from benchmarks.shapes import remote_llada
from dlens.compression.methods.method import Ask, Inputs
from dlens.compression.methods.registry import METHODS
from dlens.findings.scores.batches import masked_rows, rng, token_rows
from dlens.findings.scores.loss import text_loss
from dlens.tracing.probes.calibration import calibration_texts

__all__ = ["RANDOM", "error_rows", "main", "mask_rows"]

RANDOM = "LLaDA's code, random weights"

Weights = Mapping[str, Float[Tensor, "d_out d_in"]]
Grams = Mapping[str, Float[Tensor, "d_in d_in"]]

_EXACT = {"magnitude": {"sparsity": 0.5}, "wanda": {"sparsity": 0.5}}
_CLOSE = {"sparsegpt": {"sparsity": 0.5}, "gptq": {"bits": 3, "group": 64}}
_LENGTH, _BATCH = 128, 8


@dataclass(frozen=True)
class Subject:
    """What is compressed, with what is read before and after.

    Args:
        model: as it is.
        rows: token ids to calibrate with, all of one length.
        texts: that the loss is measured on; None are the shipped ones, from which the rows are cut.
        grams: matrix -> X^T X of its inputs in the model as it is.
    """

    model: dlens.Model
    rows: list[list[int]]
    texts: Any
    grams: Grams


@dataclass(frozen=True)
class Made:
    """What one of the two libraries made.

    Args:
        model: the compressed one.
        seconds: that it took.
    """

    model: dlens.Model
    seconds: float


def main(llada: Path | None = None, n_rows: int = 16, json: Path | None = None, threads: int = 1) -> None:
    """Measure and print.

    Args:
        llada: a folder with LLaDA's configuration_llada.py and modeling_llada.py, which run with tiny random weights.
        n_rows: rows of 128 tokens to calibrate with.
        json: where to write the same as JSON.
        threads: of torch.
    """
    torch.set_num_threads(threads)
    with TemporaryDirectory() as folder:
        rows = [row for subject in _subjects(llada, n_rows, Path(folder)) for row in _judged(subject)]
    options = {} if llada is None else {"llada": llada.name}
    publish(rows, json, "benchmarks.compression", n_rows=n_rows, threads=threads, **options)


def _subjects(llada: Path | None, n_rows: int, folder: Path) -> Iterator[Subject]:
    # llmcompressor calibrates with this kernel; another's last bits turn some entries of a mask around.
    for name in ("trio/ar", "trio/diffusion"):
        model = dlens.load(name, attn_implementation="eager")
        yield _subject(model, sum(token_rows(model, calibration_texts()), []), n_rows, None)
    if llada is not None:
        model = dlens.load(remote_llada(llada, folder), trust_remote_code=True)
        ids = torch.randint(2, model.vocab_size, (n_rows * _LENGTH,), generator=rng(0)).tolist()
        yield _subject(model, ids, n_rows, [ids[:_LENGTH]])


def _subject(model: dlens.Model, ids: list[int], n_rows: int, texts: Any) -> Subject:
    """The text cut into rows; for a diffusion model each is masked, at rates that are spread evenly."""
    rows = [ids[start : start + _LENGTH] for start in range(0, n_rows * _LENGTH, _LENGTH)]
    if len(rows[-1]) < _LENGTH:
        raise ValueError(f"n_rows={n_rows}; expected at most {len(ids) // _LENGTH}, what the shipped texts give")
    mask, draw = model.family.mask_token_id, rng(0)
    if mask is not None and model.family.objective == "diffusion":
        rates = (np.arange(n_rows) + 0.5) / n_rows
        rows = [masked_rows([row], [float(rate)], mask, draw)[0] for row, rate in zip(rows, rates, strict=True)]
    return Subject(model, rows, texts, _grams(model, _batches(rows)))


def _batches(rows: list[list[int]]) -> list[Tensor]:
    return list(torch.tensor(rows).split(_BATCH))


@torch.no_grad()
def _grams(model: dlens.Model, batches: Sequence[Tensor]) -> dict[str, Tensor]:
    grams: dict[str, Tensor] = {}

    def read(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            inputs = args[0].flatten(0, -2).double()
            grams[name] = grams.get(name, torch.zeros(())) + inputs.T @ inputs

        return hook

    parts = oracle.matrices(model.module, model.layout.blocks)
    handles = [part.register_forward_hook(read(name)) for name, part in parts.items()]
    for ids in batches:
        model.module(input_ids=ids, use_cache=False)
    for handle in handles:
        handle.remove()
    return grams


def _judged(subject: Subject) -> Iterator[Row]:
    name = subject.model.name if subject.texts is None else RANDOM
    yield Row("loss as it is", name, _loss(subject.model, subject.texts), unit="nats")
    for method, settings in {**_EXACT, **_CLOSE}.items():
        ours, theirs = _ours(subject, method, settings), _theirs(subject, method, settings)
        weights = _weights(subject.model), _weights(ours.model), _weights(theirs.model)
        if method in _EXACT:
            rows = mask_rows(*weights, by_size=method == "magnitude")
        else:
            rows = [*_losses(subject, ours, theirs), *_errors(subject, method, settings, weights)]
        what = " ".join([method, *(f"{key} {value}" for key, value in settings.items())])
        for each in (*rows, *_times(ours, theirs)):
            yield replace(each, what=f"{what}: {each.what}", model=name)


def _ours(subject: Subject, method: str, settings: Mapping[str, Any]) -> Made:
    model, rows = subject.model, subject.rows
    start = time.perf_counter()
    made = dlens.compress(model, method, texts=rows, calibration="clean", batch_size=_BATCH, progress=False, **settings)
    return Made(made, time.perf_counter() - start)


def _theirs(subject: Subject, method: str, settings: Mapping[str, Any], **how: Any) -> Made:
    import llmcompressor  # noqa: F401  # pyright: ignore[reportMissingImports]

    model = subject.model
    model.unwrap()
    start = time.perf_counter()
    module = oracle.compressed(model.module, model.layout.blocks, method, _batches(subject.rows), settings, **how)
    return Made(replace(model, module=module, memo={}), time.perf_counter() - start)


def mask_rows(before: Weights, ours: Weights, theirs: Weights, by_size: bool) -> list[Row]:
    """How many entries one made zero and the other did not.

    Where weights go by their size, one as large as the largest that went is a tie: which of them go is a choice.
    """
    differ = torch.cat([((ours[name] == 0) != (theirs[name] == 0)).flatten() for name in before])
    tied = torch.cat([_largest_gone(before[name], theirs[name]).flatten() for name in before]) & by_size
    alone, by_tie = (100 * float(part.double().mean()) for part in (differ & ~tied, differ & tied))
    found = [Row("mask entries that differ", "", alone, 0, unit="%")]
    return found + [Row("mask entries that differ by a tie", "", by_tie, unit="%")] * by_size


def _largest_gone(before: Tensor, after: Tensor) -> Tensor:
    return before.abs() == before.abs()[after == 0].max()


def _errors(
    subject: Subject, method: str, settings: Mapping[str, Any], weights: tuple[Weights, Weights, Weights]
) -> list[Row]:
    """Behind what each made of the matrices before, and of every matrix on the inputs of the model as it is."""
    alone = _theirs(subject, method, settings, propagate_error=False)
    on_same = weights[0], _ours_alone(subject, method, settings), _weights(alone.model)
    return [
        *error_rows(*weights, subject.grams, "in the whole model"),
        *error_rows(*on_same, subject.grams, "each on the inputs of the model as it is", 1.02),
    ]


@torch.no_grad()
def _ours_alone(subject: Subject, method: str, settings: Mapping[str, Any]) -> Weights:
    found: dict[str, Tensor] = {}
    for name, weight in _weights(subject.model).items():
        hessian = (subject.grams[name] / len(subject.rows)).float()
        found[name] = METHODS[method].change(weight, Inputs(hessian.diagonal(), hessian), Ask(**settings))
    return found


def error_rows(
    before: Weights, ours: Weights, theirs: Weights, grams: Grams, how: str, budget: float | None = None
) -> list[Row]:
    """tr(dW H dW^T) with H = X^T X of the inputs in the model as it is, ours over theirs, of every matrix."""

    def error(after: Weights, name: str) -> float:
        change = (after[name] - before[name]).double()
        return float(((change @ grams[name]) * change).sum())

    ratios = [error(ours, name) / error(theirs, name) for name in before]
    low, median, high = np.quantile(ratios, (0.25, 0.5, 0.75)).tolist()
    what = f"error of a matrix / llmcompressor, {how}"
    return [Row(f"{what}, median", "", median, budget, low, high), Row(f"{what}, worst", "", max(ratios), budget)]


def _losses(subject: Subject, ours: Made, theirs: Made) -> list[Row]:
    done, wanted = (_loss(made.model, subject.texts) for made in (ours, theirs))
    both = Row("loss", "", done, unit="nats"), Row("loss of llmcompressor", "", wanted, unit="nats")
    return [*both, Row("loss / llmcompressor", "", done / wanted, 1.02)]


def _times(ours: Made, theirs: Made) -> list[Row]:
    return [Row("time", "", ours.seconds, unit="s"), Row("time of llmcompressor", "", theirs.seconds, unit="s")]


def _loss(model: dlens.Model, texts: Any) -> float:
    return text_loss(dlens.trace(model), texts).value


def _weights(model: dlens.Model) -> dict[str, Tensor]:
    return {name: part.weight.detach() for name, part in oracle.matrices(model.module, model.layout.blocks).items()}


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
