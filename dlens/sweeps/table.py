"""What a sweep found: one row for each variant and seed, beside the same model as it is, with intervals."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

from dlens.checks import as_path
from dlens.files import write_text
from dlens.findings.scores.intervals import (
    difference_interval,
    mcnemar,
    mean_interval,
    ratio_interval,
    share_interval,
)
from dlens.workers.board import Board, Failure, Standing
from dlens.workers.store import Store

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Entry", "Sweep", "board_of", "gathered", "load_sweep", "sweep_standing", "write_plan"]

_PLAN = "sweep.json"


@final
@dataclass(frozen=True)
class Entry:
    """One row of a sweep before it is computed.

    Args:
        model: its name.
        plan: what is changed, in words.
        measure, task, seed: what is asked.
        labels: what is varied.
        unit, baseline: the names of the results: its own, and that of the model as it is.
    """

    model: str
    plan: str
    measure: str
    task: str
    seed: int
    labels: Mapping[str, Any]
    unit: str
    baseline: str


@final
@dataclass(frozen=True, eq=False)
class Sweep:
    """The results of a sweep.

    Args:
        folder: where they are.
        entries: what was asked, row by row.
        results: by unit, plain data: `values` for each problem, prompt or text, and `texts`, `flops`, `notes` ...
        failed: by unit, why it has no result.

    Examples:
        >>> import dlens, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> runs = dlens.sweep(dlens.trace("trio/ar").skip([3]), texts=["Once upon a time"], out=folder, workers=0)
        >>> runs
        1 variant: 2 units, 0 failed
        >>> dlens.load_sweep(folder).table().equals(runs.table())
        True
        >>> runs.answers(0)["values"] == runs.results[runs.entries[0].unit]["values"]
        True
    """

    folder: Path
    entries: tuple[Entry, ...] = field(repr=False)
    results: Mapping[str, Mapping[str, Any]] = field(repr=False)
    failed: Mapping[str, Failure] = field(repr=False)

    def answers(self, row: int) -> Mapping[str, Any]:
        """All that is known of a row of the table: values, one for each problem, prompt or text, and texts, notes ...

        Raises:
            KeyError: it failed.
        """
        return self.results[self.entries[row].unit]

    def table(self) -> pd.DataFrame:
        """One row a variant and seed, as a pandas table.

        `value` is the mean over problems, prompts or texts (the share solved; repeated 4-grams; nats a token), `low`
        and `high` its 95 % interval, `baseline` the mean of the model as it is, `difference` that of both, paired;
        `retained` the ratio of accuracies, `p` by McNemar's exact test; `flops_saved` a share; `seconds` of one run, so
        no benchmark; `error` why there are no numbers. Intervals are over problems, prompts or texts; see
        `dlens.findings.scores.intervals`.
        """
        import pandas as pd

        return pd.DataFrame([self._row(entry) for entry in self.entries])

    def _row(self, entry: Entry) -> dict[str, Any]:
        head = {"model": entry.model, "plan": entry.plan, **entry.labels}
        asked = {"measure": entry.measure, "task": entry.task, "seed": entry.seed}
        own, before = (self.results.get(name) for name in (entry.unit, entry.baseline))
        failed = self.failed.get(entry.unit) or self.failed.get(entry.baseline)
        numbers = dict.fromkeys(_COLUMNS, nan) | {"n": 0}
        if own is not None and before is not None:
            numbers |= _numbers(entry.measure, own, before)
        return head | asked | numbers | {"error": "" if failed is None else failed.error}

    def __repr__(self) -> str:
        n = len(self.entries)
        units = len(self.results) + len(self.failed)
        return f"{n} variant{'s' * (n != 1)}: {units} units, {len(self.failed)} failed"


def gathered(board: Board, entries: Sequence[Entry], found: Mapping[str, Any]) -> Sweep:
    """What workers brought, with a warning where some of it failed."""
    failed = {name: each for name, each in found.items() if isinstance(each, Failure)}
    results = {name: each for name, each in found.items() if name not in failed}
    if failed:
        warnings.warn(
            f"{len(failed)} of {len(found)} units failed, the first with {next(iter(failed.values()))}; the others "
            f"are whole; see .failed, and run again with retry=True",
            stacklevel=3,
        )
    return Sweep(board.results.parent, tuple(entries), results, failed)


_COLUMNS = """n value low high baseline difference difference_low difference_high retained retained_low retained_high p
flops_saved seconds""".split()


def _numbers(measure: str, own: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, float]:
    after, plain = (np.array(each["values"], float) for each in (own, before))
    value, low, high = map(float, mean_interval(after))
    difference, below, above = map(float, mean_interval(after - plain))
    total = (own["flops"] or 0) + (own["saved_flops"] or 0)
    found = {
        "n": len(after),
        "value": value,
        "low": low,
        "high": high,
        "baseline": float(np.nanmean(plain)),
        "difference": difference,
        "difference_low": below,
        "difference_high": above,
        "flops_saved": own["saved_flops"] / total if total else nan,
        "seconds": own["seconds"],
    }
    return found | (_of_shares(own["values"], before["values"]) if measure == "accuracy" else {})


def _of_shares(after: Sequence[bool], before: Sequence[bool]) -> dict[str, float]:
    """What only counts of right answers have."""
    low, high = share_interval(after)
    least, most = ratio_interval(before, after)
    below, above = difference_interval(before, after)
    return {
        "low": low,
        "high": high,
        "difference_low": below,
        "difference_high": above,
        "retained": sum(after) / sum(before) if any(before) else nan,
        "retained_low": least,
        "retained_high": most,
        "p": mcnemar(before, after),
    }


def load_sweep(folder: str | Path) -> Sweep:
    """What a sweep found, read from its folder without any model; rows that are not computed yet have no numbers.

    Args:
        folder: what was given to `dlens.sweep` as `out`.

    Raises:
        FileNotFoundError: there is no sweep.
        ValueError: its list of rows is damaged.

    Examples:
        >>> import dlens, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> runs = dlens.sweep("trio/ar", texts=["Once upon a time"], out=folder, workers=0)
        >>> load_sweep(folder)
        1 variant: 1 units, 0 failed
    """
    where = as_path(folder, "folder")
    board = board_of(where)
    entries = _plan(where)
    results: dict[str, Any] = {}
    failed: dict[str, Failure] = {}
    for name in dict.fromkeys(name for entry in entries for name in (entry.unit, entry.baseline)):
        answer, failure = Store(board.results).named(name), board.failure(name)
        if answer is not None:
            results[name] = answer[0]
        elif failure is not None:
            failed[name] = failure
    return Sweep(where, tuple(entries), results, failed)


def sweep_standing(folder: str | Path) -> tuple[Standing, list[Failure]]:
    """How far a sweep is, from its folder alone, and what failed.

    Raises:
        FileNotFoundError: there is no sweep.
    """
    where = as_path(folder, "folder")
    board = board_of(where)
    names = dict.fromkeys(name for entry in _plan(where) for name in (entry.unit, entry.baseline))
    failed = [found for name in names if (found := board.failure(name)) is not None]
    return board.standing(names), failed


def board_of(folder: Path) -> Board:
    """The folders of a sweep."""
    return Board(folder / "results", folder / "work")


def write_plan(board: Board, entries: Sequence[Entry]) -> None:
    """Keep what the rows of a sweep are."""
    write_text(board.results.parent / _PLAN, json.dumps([asdict(entry) for entry in entries], indent=1))


def _plan(folder: Path) -> list[Entry]:
    path = folder / _PLAN
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no sweep; expected {_PLAN} in it; name the folder given as out=")
    try:
        return [Entry(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}); expected the rows of a sweep; call dlens.sweep again"
        ) from error
