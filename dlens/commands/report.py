"""`dlens report`: what two papers claim, asked of several models."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated, Literal

from dlens.commands.options import CacheName, LoadOptions, cache_of, named, named_workers

__all__ = ["report"]

KindName = Literal["auto", "diffusion", "ar", "ar-init"]


def report(
    models: Annotated[tuple[str, ...], named("MODEL", "(default: the trio)")] = (),
    /,
    *,
    load: LoadOptions = LoadOptions(),
    out: Path = Path("report.html"),
    json: Path | None = None,
    quick: bool = False,
    compression: bool = False,
    cache: CacheName | None = None,
    task: str = "trio-code",
    problems: int | None = None,
    shots: int | None = None,
    examples: Path | None = None,
    allow_code: bool = False,
    kind: Annotated[tuple[KindName, ...], named("KIND", "(default: auto)")] = (),
    seed: int = 0,
    fresh: bool = False,
    workers: str | None = None,
    open: bool = False,
) -> None:
    """Ask what two papers claim of layers and channels of several models; write one offline page.

    Finished parts are kept beside the page, so that an interrupted report goes on where it was.

    Args:
        models: names of shipped models, hub ids or folders; the trio where none is named.
        out: the page, a .html file.
        json: a .json file for the numbers.
        quick: fewer problems and texts, so wider intervals.
        compression: also with 3 bits, with half of all weights, and the spectra of the weights.
        cache: prefix, dual, delayed, adaptive or blocks: what diffusion models decode with.
        task: trio-code, trio-math, or gsm8k, math500, humaneval, mbpp or mbpp_sanitized with :PATH.
        problems: of the task; 64, or 12 with --quick.
        shots: worked examples in each prompt (all but humaneval); the format's by default.
        examples: the file that they come from; the task's own by default.
        allow_code: programs that the model writes may be run, which humaneval and mbpp need: no sandbox.
        kind: for each model diffusion, ar, ar-init, or auto, which goes by its family.
        seed: of problems, masks and random channels.
        fresh: compute everything again.
        workers: who computes: local, slurm, ray, or a number of processes; this process by default.
        open: show the page in a browser when it is written.
    """
    from dlens import tasks
    from dlens.models.source import TRIO
    from dlens.show.report.report import check_paths, settings_of, write_report

    asked = tasks.get(task, shots=shots, examples=examples, allow_code=allow_code)
    check_paths(out, json)
    page, rows = write_report(
        [load.load(name) for name in models or TRIO],
        out,
        json,
        asked,
        settings_of(quick, problems, seed, compression, cache_of(cache)),
        kinds=[None if name == "auto" else name for name in kind],
        fresh=fresh,
        workers=None if workers is None else named_workers(workers),
    )
    verdicts = [cell.verdict for row in rows for cell in row.cells if cell.claimed]
    print(f"{len(verdicts)} verdicts: {verdicts.count('holds')} hold, ", end="")
    print(f"{verdicts.count('does not hold')} do not, {verdicts.count('undecided')} undecided")
    print(f"Wrote {page}")
    if open:
        webbrowser.open(page.resolve().as_uri())
