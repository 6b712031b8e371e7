"""Many variants of models on the same problems, prompts or texts, each computed once, by many workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from dlens.checks import as_flag, as_path, quoted, refuse, several
from dlens.digest import value_digest
from dlens.files import check_folder
from dlens.findings.effects.retention import enough
from dlens.findings.scores.canvases import check_draws
from dlens.findings.scores.decoding import Decoding
from dlens.findings.study.asking import model_identity
from dlens.models.model import Model
from dlens.ops.base.given import as_index, as_seed
from dlens.samplers import Sampler
from dlens.sweeps.asks import Ask, Prompts, Read, Solve, Texts
from dlens.sweeps.table import Entry, Sweep, board_of, gathered, write_plan
from dlens.sweeps.variant import Variant, as_variants
from dlens.tasks import Task, get
from dlens.tracing.planning.kv_cache import Caching
from dlens.tracing.probes.calibration import calibration_texts
from dlens.tracing.progress import quiet
from dlens.tracing.records.record import versions
from dlens.workers.base import Workers
from dlens.workers.board import Board, Standing
from dlens.workers.run import as_workers, computed
from dlens.workers.unit import Unit

__all__ = ["sweep"]

_NEW_TOKENS = 64


def sweep(
    traces: Any,
    task: Task | str | None = None,
    *,
    prompts: Any = None,
    texts: Any = None,
    loss: bool = False,
    out: str | Path = "runs",
    workers: str | int | Workers = "local",
    seeds: int | Sequence[int] = 0,
    n: int = 64,
    split: str = "test",
    sampler: Sampler | None = None,
    max_new_tokens: int | None = None,
    cache: Caching = "auto",
    batch_size: int = 16,
    draws: int = 4,
    retry: bool = False,
    fresh: bool = False,
    progress: bool = True,
) -> Sweep:
    """Ask many variants of models the same, beside each model as it is, and keep every answer on disk.

    A unit of work is one variant with one seed. It is named by all that it depends on (weights, operations, problems,
    settings, the code of dlens), computed once, and written whole: whatever is interrupted goes on where it was when it
    is called again, and further variants join those that are there. Several processes may work on one folder.

    Args:
        traces: what is tried: traces, models, or `dlens.grid`.
        task: problems to solve: a task, or its name.
        prompts: texts, token ids or messages to continue.
        texts: texts to predict.
        loss: predict the shipped calibration text, where no texts are given.
        out: the folder of results.
        workers: "local" (processes of this machine: one a GPU, or the processors shared out), "slurm", "ray", a number
            of processes, 0 for this process alone, or one of `dlens.workers` with its settings.
        seeds: one or several; each draws problems, masks and the sampler's random numbers.
        n: problems for each seed; at least 2.
        split: of the problems, "test" or "train".
        sampler, max_new_tokens, cache, batch_size: see `dlens.findings.scores.decoding.Decoding`; 64 tokens after
            prompts where none is given.
        draws: how often each text is masked (diffusion only).
        retry: try again what failed before.
        fresh: compute everything again.
        progress: show a progress bar over all workers.

    Returns:
        `.table()` with intervals against the model as it is, on the same problems; `.failed`.

    Raises:
        ValueError, IndexError, OSError: before anything starts: nothing asked, a variant that cannot run, a folder that
            cannot be used.
        TypeError: a model or hook that cannot be sent to another process; `workers=0` takes it.
        ImportError: workers that need a package which is not installed.

    Examples:
        >>> import dlens, tempfile
        >>> trace = dlens.trace("trio/ar")
        >>> runs = dlens.sweep(
        ...     [trace.skip([3]), trace.skip([5])], texts=["Once upon a time", "Two and two"], out=tempfile.mkdtemp(),
        ...     workers=0,
        ... )
        >>> table = runs.table()
        >>> list(table["plan"]), bool((table["difference"] > 0).all())
        (['skip layers 3', 'skip layers 5'], True)
    """
    retry, fresh, progress = as_flag(retry, "retry"), as_flag(fresh, "fresh"), as_flag(progress, "progress")
    loss = as_flag(loss, "loss")
    crew, variants = as_workers(workers), as_variants(traces)
    decoding = Decoding(sampler, max_new_tokens, cache, batch_size, progress=False)
    asks = list(_asks(task, prompts, texts, loss, _seeds(seeds), n, split, decoding, draws))
    board = board_of(as_path(out, "out"))
    check_folder(board.results.parent)
    known = _Known()
    for variant in variants:
        _check(variant, asks, known)
    rows = list(_rows(variants, asks, board, known))
    units = {unit.name(board): unit for row in rows for unit in row[1]}
    write_plan(board, [row[0] for row in rows])
    with _bar(len(units), progress) as bar:
        found = computed(
            list(units.values()), board, crew, retry=retry, fresh=fresh, tell=partial(_tell, bar, len(units))
        )
    return gathered(board, [row[0] for row in rows], dict(zip(units, found, strict=True)))


def _asks(
    task: Task | str | None,
    prompts: Any,
    texts: Any,
    loss: bool,
    seeds: Sequence[int],
    n: int,
    split: str,
    decoding: Decoding,
    draws: int,
) -> Iterator[Ask]:
    """Everything that is asked, for each seed."""
    if task is None and prompts is None and texts is None and not loss:
        raise ValueError(
            "a sweep that asks nothing; expected task=, prompts=, texts= or loss=True; write for example "
            "task='trio-code'"
        )
    chosen = None if task is None else get(task)
    read = _texts(texts, loss)
    check_draws(draws, seeds[0])
    for seed in seeds:
        own = replace(decoding, seed=seed)
        if chosen is not None:
            yield Solve(chosen, chosen.problems(enough(n), seed, split), own)
        if prompts is not None:
            yield Prompts(prompts, replace(own, max_new_tokens=own.max_new_tokens or _NEW_TOKENS))
        if read is not None:
            yield Texts(read, as_index(draws, "draws"), decoding.batch_size, seed)


def _texts(texts: Any, loss: bool) -> tuple[Any, ...] | None:
    if texts is None:
        return tuple(calibration_texts()) if loss else None
    if not several(texts) or not len(texts):
        refuse("texts", texts, "several texts", "put them into a list, or leave it out and write loss=True")
    return tuple(texts)


def _seeds(seeds: Any) -> list[int]:
    found = [as_seed(seed) for seed in (seeds if several(seeds) else [seeds])]
    if not found or len(set(found)) < len(found):
        raise ValueError(f"seeds={quoted(seeds)}; expected at least one, each once; write for example seeds=range(3)")
    return found


def _check(variant: Variant, asks: Sequence[Ask], known: _Known) -> None:
    """Refuse a variant that cannot run, by its name.

    Raises:
        ValueError, IndexError, MemoryError: nothing was computed.
    """
    variant.check()
    for ask in asks:
        ask.check(variant, known.read(ask, variant.trace.model))


def _rows(
    variants: Sequence[Variant], asks: Sequence[Ask], board: Board, known: _Known
) -> Iterator[tuple[Entry, list[Unit]]]:
    """The rows of the table, each with its own unit and that of the model as it is."""
    for ask in asks:
        for variant in variants:
            own, before = (_unit(each, ask, known) for each in (variant, variant.baseline))
            entry = Entry(
                model=variant.trace.model.name,
                plan=variant.plan,
                measure=ask.measure,
                task=ask.task,
                seed=ask.seed,
                labels=dict(variant.labels),
                unit=own.name(board),
                baseline=before.name(board),
            )
            yield entry, [before, own]


def _unit(variant: Variant, ask: Ask, known: _Known) -> Unit:
    asked = {
        "part": "sweep",
        "model": known.name(variant.trace.model),
        "ops": value_digest(variant.trace.ops),
        "compression": value_digest(variant.compression),
        "measure": ask.measure,
        "asked": ask.depends(variant, known.read(ask, variant.trace.model)),
        "seed": ask.seed,
        "versions": versions(),
    }
    return Unit(asked, partial(ask.answer, variant), f"{variant}: {ask.measure} on {ask.task}, seed {ask.seed}")


class _Known:
    """What each model computes and how it reads what is asked, found once."""

    def __init__(self) -> None:
        # What is named by its id is held, so that no id is given to another.
        self._names: dict[int, tuple[Model, list[Any]]] = {}
        self._reads: dict[tuple[int, int], tuple[Ask, Model, Read]] = {}

    def name(self, model: Model) -> list[Any]:
        if id(model) not in self._names:
            self._names[id(model)] = model, model_identity(model)
        return self._names[id(model)][1]

    def read(self, ask: Ask, model: Model) -> Read:
        key = id(ask), id(model)
        if key not in self._reads:
            self._reads[key] = ask, model, ask.read(model)
        return self._reads[key][-1]


def _bar(total: int, progress: bool) -> Any:
    from tqdm.auto import tqdm

    return tqdm(total=total, unit="unit", delay=1.0, leave=False, disable=quiet(progress))


def _tell(bar: Any, total: int, standing: Standing) -> None:
    """Show how far all workers are."""
    bar.n = max(0, total - standing.running - standing.waiting)
    bar.set_postfix_str(f"{standing.running} running" + (f", {standing.failed} failed" if standing.failed else ""))
