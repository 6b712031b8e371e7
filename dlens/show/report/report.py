"""`dlens report`: what two papers claim, asked of several models, as one offline page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dlens.checks import as_flag, as_path
from dlens.files import check_file, check_folder, write_text
from dlens.findings.skipping.choosable import bare
from dlens.findings.study.claims import Row, claims
from dlens.findings.study.study import FULL, QUICK, Study, StudySettings, plain, study
from dlens.models.source import TRIO
from dlens.show.report.example import example
from dlens.show.report.glossary import glossary
from dlens.show.report.matrix import matrix
from dlens.show.report.page import page, save_page
from dlens.show.report.remarks import remarks, reversed_by_accuracy
from dlens.show.report.sections import sections
from dlens.show.report.summary import cited, lead, method, summary
from dlens.tasks import Task, get
from dlens.tracing.planning.kv_cache import Caching
from dlens.workers.base import Workers
from dlens.workers.run import as_workers
from dlens.workers.store import Store

__all__ = ["check_paths", "report", "report_page", "settings_of", "write_report"]


def report(
    models: Sequence[Any] = TRIO,
    out: str | Path = "report.html",
    *,
    task: Task | str = "trio-code",
    quick: bool = False,
    problems: int | None = None,
    compression: bool = False,
    cache: Caching = "auto",
    kinds: Sequence[str | None] = (),
    seed: int = 0,
    json: str | Path | None = None,
    fresh: bool = False,
    workers: str | int | Workers | None = None,
    progress: bool = True,
) -> Path:
    """Compare models on all that two papers claim of layers and channels, and write one offline page.

    Finished parts are kept in a folder beside the page, named after it with the ending .parts, so that an
    interrupted report goes on where it was, and the same question of other models shares them.

    Args:
        models: each anything `dlens.load` takes as its first argument, or what it returned; one alone may stand
            without a list; the trio by default.
        out: the page, a name that ends in .html.
        task: on what accuracy is measured: a task, or its name.
        quick: fewer problems and texts, so wider intervals, and no comparison at matched points.
        problems: how many; 64 by default, 12 for a quick report.
        compression: also with 3 bits, with half of all weights, and the spectra of the weights.
        cache: one of `dlens.caches`, with which diffusion models decode; autoregressive ones keep theirs.
        kinds: for each model "diffusion", "ar", "ar-init" or None, which goes by its family.
        seed: of problems, masks and random channels.
        json: where the numbers are written, too.
        fresh: compute everything again.
        workers: who computes the parts, as `dlens.sweep` takes them; this process by default.
        progress: show a progress bar.

    Returns:
        Where the page is.

    Raises:
        ValueError, OSError: before anything is computed: a page that cannot be written, an unknown task, a model with
            fewer than 3 blocks, without a tokenizer or with operations, two of one name, or a cache that does not fit;
            afterwards: activations that are not finite.

    Examples:
        >>> import dlens, tempfile
        >>> path = tempfile.mkdtemp() + "/report.html"
        >>> dlens.report(["trio/ar"], path, quick=True, problems=2, progress=False).name
        'report.html'
    """
    task = get(task)
    models, kinds = (
        [given] if isinstance(given, str) or not isinstance(given, Sequence) else given for given in (models, kinds)
    )
    settings = settings_of(quick, problems, seed, compression, cache)
    return write_report(models, out, json, task, settings, kinds, fresh, workers, progress)[0]


def settings_of(
    quick: bool, problems: int | None, seed: int, compression: bool = False, cache: Caching = "auto"
) -> StudySettings:
    """How much a report measures; see `report`."""
    much = QUICK if as_flag(quick, "quick") else FULL
    settings = replace(much, seed=seed, compression=compression, cache=cache)
    return settings if problems is None else replace(settings, problems=problems)


def write_report(
    models: Sequence[Any],
    out: str | Path,
    json: str | Path | None,
    task: Task,
    settings: StudySettings,
    kinds: Sequence[str | None] = (),
    fresh: bool = False,
    workers: str | int | Workers | None = None,
    progress: bool = True,
) -> tuple[Path, tuple[Row, ...]]:
    """Write the page of a report; see `report`.

    Returns:
        Where the page is, and what it states, row by row.
    """
    page_path, json_path = check_paths(out, json)
    store = Store(_parts(page_path), fresh)
    crew = None if workers is None else as_workers(workers)
    # Loaded once, for the study and for the example.
    chains = [bare(model, "a study") for model in models]
    found = study(chains, task, settings, kinds=kinds, store=store, workers=crew, progress=progress)
    rows = claims(found)
    if json_path is not None:
        _write_json(found, rows, json_path)
    return save_page(report_page(found, rows, example(chains, settings.seed) or ""), page_path), rows


def report_page(found: Study, rows: Sequence[Row], run: str = "") -> str:
    """The page of a study and its claims.

    Args:
        found: what was measured.
        rows: what it states.
        run: HTML of a run to explore.
    """
    return page(
        f"Diffusion and autoregressive models, layer by layer: {', '.join(found.models)}",
        lead(found, rows),
        sections(found, rows),
        method(found),
        top=summary(_asked(found), rows, remarks(found), run),
        opening=glossary(found) + matrix(rows, reversed_by_accuracy(found)),
        end=cited(found),
    )


def _asked(found: Study) -> str:
    models = "; ".join(
        f"{name}: {_KIND_WORDS[model.kind]}, {model.n_layers} blocks, {model.d_model} channels"
        for name, model in found.models.items()
    )
    return f"{models}. Layers count from 0."


_KIND_WORDS = {"diffusion": "native diffusion", "ar": "autoregressive", "ar-init": "diffusion, taken as AR-initialised"}


def _write_json(found: Study, rows: Sequence[Row], path: Path) -> None:
    from json import dumps

    numbers = {"claims": plain([row.to_json() for row in rows])} | found.numbers()
    write_text(path, dumps(numbers, indent=1, allow_nan=False))


def check_paths(out: str | Path, json: str | Path | None) -> tuple[Path, Path | None]:
    """Where the page and the numbers go, with their folders made.

    Raises:
        ValueError, OSError: they cannot be written.
    """
    page_path = check_file(as_path(out, "out"), ".html")
    check_folder(_parts(page_path))
    return page_path, None if json is None else check_file(as_path(json, "json"), ".json")


def _parts(page_path: Path) -> Path:
    """The folder of finished parts."""
    return page_path.with_suffix(".parts")
