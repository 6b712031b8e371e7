"""`dlens sweep`: many skips of a model, by many workers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from dlens.commands.options import LoadOptions, SamplerOptions, named, named_workers, numbers, parse_layers
from dlens.tables import table_text

__all__ = ["sweep"]

_SHOWN = ["value", "low", "high", "difference", "difference_low", "difference_high", "flops_saved"]


def sweep(
    models: Annotated[tuple[str, ...], named("MODEL", "(default: none, with --status)")] = (),
    /,
    *,
    load: LoadOptions = LoadOptions(),
    sampler: SamplerOptions = SamplerOptions(),
    layers: Annotated[tuple[str, ...], named("LAYERS", "(default: each layer alone)")] = (),
    part: Annotated[tuple[Literal["block", "attn", "mlp"], ...], named("PART", "(default: block)")] = ("block",),
    task: str | None = None,
    loss: bool = False,
    problems: int = 64,
    seed: Annotated[tuple[int, ...], named("SEED", "(default: 0)")] = (0,),
    max_new_tokens: int | None = None,
    shots: int | None = None,
    examples: Path | None = None,
    allow_code: bool = False,
    out: Path = Path("runs"),
    workers: str = "local",
    table: Path | None = None,
    retry: bool = False,
    status: Path | None = None,
    json: Path | None = None,
) -> None:
    """Skip layers in many ways, each scored beside the model as it is, by many workers; goes on where it was.

    For example: dlens sweep trio/diffusion --task trio-code --workers 2

    Args:
        models: names of shipped models, hub ids or folders.
        layers: one set of layers to skip a word, such as 3 3,4 3-5; each layer alone by default.
        part: the whole block, or its attn or mlp half; several are all tried.
        task: problems to solve: trio-code, trio-math, or gsm8k, math500, humaneval, mbpp or mbpp_sanitized with :PATH.
        loss: predict the shipped calibration text.
        problems: of the task.
        seed: one or several, each of problems, masks and random draws.
        max_new_tokens: length of an answer; the task's by default.
        shots: worked examples in each prompt (all but humaneval); the format's by default.
        examples: the file that they come from; the task's own by default.
        allow_code: programs that the model writes may be run, which humaneval and mbpp need: no sandbox.
        out: the folder of results.
        workers: local, slurm, ray, or a number of processes; 0 is this process alone.
        table: a .csv or .parquet file for the table.
        retry: try again what failed before.
        status: the folder of a sweep, to say how far it is; nothing is computed.
        json: a .json file for the table or the status; - is the output, and nothing else then.
    """
    from dlens.files import check_file

    if table is not None:
        check_file(table, ".csv", ".parquet")
    if status is not None:
        with numbers(json) as found:
            _print_status(status, found)
        return
    if not models:
        raise ValueError(
            "no model named; expected at least one, or --status FOLDER; write for example: dlens sweep trio/diffusion "
            "--task trio-code"
        )
    from dlens import tasks
    from dlens.sweeps.sweep import sweep as run
    from dlens.sweeps.variant import grid

    asked = None if task is None else tasks.get(task, shots=shots, examples=examples, allow_code=allow_code)
    sets = [parse_layers(text) for text in layers]
    variants = []
    for name in models:
        loaded = load.load(name)
        chosen = sets or [[layer] for layer in range(loaded.n_layers)]
        variants += grid(loaded, layers=chosen, parts=part or ("block",), samplers=[sampler.build(loaded)])
    with numbers(json) as found:
        runs = run(
            variants,
            asked,
            loss=loss,
            out=out,
            workers=named_workers(workers),
            seeds=seed or (0,),
            n=problems,
            max_new_tokens=max_new_tokens,
            retry=retry,
        )
        rows = runs.table()
        found["rows"] = rows.to_dict("records")
        _print_table(rows)
        if table is not None:
            _write(rows, table)
            print(f"\nWrote {table}")
        if runs.failed:
            print(f"\n{len(runs.failed)} units failed; the first: {next(iter(runs.failed.values()))}", file=sys.stderr)


def _print_status(folder: Path, found: dict[str, Any]) -> None:
    from dlens.show.terminal import printable
    from dlens.sweeps.table import sweep_standing

    standing, failed = sweep_standing(folder)
    found |= {"folder": str(folder), **vars(standing), "failures": [vars(each) for each in failed]}
    print(f"{folder}: {standing}")
    for each in failed:
        print(printable(f"failed on {each.where}: {each}"))


def _print_table(table: Any) -> None:
    several = [name for name in ("model", "seed", "task") if table[name].nunique() > 1]
    columns = [*several, "plan", "measure", *_SHOWN]
    if (table["error"] != "").any():
        columns.append("error")
    print(table_text([name.replace("_", " ") for name in columns], table[columns].values.tolist()))


def _write(table: Any, path: Path) -> None:
    from dlens.files import written

    with written(path) as beside:
        table.to_csv(beside, index=False) if path.suffix == ".csv" else table.to_parquet(beside, index=False)
