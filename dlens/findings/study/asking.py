"""One model in a study: every part of it, computed once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, TypeVar, final

import numpy as np

from dlens.checks import as_flag
from dlens.errors import Cancelled
from dlens.findings.effects.change import Change
from dlens.findings.effects.robustness import PAPER
from dlens.findings.scores.batches import token_rows
from dlens.findings.scores.canvases import Canvases, text_canvases
from dlens.findings.study import parts
from dlens.findings.study.changes import changes
from dlens.findings.study.results import (
    Answers,
    Compressed,
    Disrupted,
    Losses,
    ModelKind,
    ModelStudy,
    Part,
    Reading,
    Spectra,
    Thirds,
)
from dlens.findings.study.stored import Store
from dlens.models.model import Model
from dlens.models.reading import reading
from dlens.ops.base.given import as_seed
from dlens.tasks import Task
from dlens.tasks.task import task_identity
from dlens.tracing.chain import Trace
from dlens.tracing.probes.calibration import calibration_texts
from dlens.tracing.records.record import versions

__all__ = ["COMPRESSED", "FULL", "QUICK", "Asking", "StudySettings", "model_identity", "n_parts"]

P = TypeVar("P", bound=Part)
_N_CHANGES = 8


@final
@dataclass(frozen=True)
class StudySettings:
    """How much is measured.

    Args:
        problems: of the task, each answered by every model with every change in `answered`.
        texts: of the shipped calibration text.
        draws: how often each text is masked for the loss (diffusion only).
        answered: the changes whose accuracy is measured; the loss is measured for all.
        deep: also compare representations with and without a skip at matched points of decoding, and skip in
            one third of decoding only.
        seed: of the problems, masks and random channels.
        compression: also with fewer bits and weights, and the spectra of the weights.
    """

    problems: int
    texts: int
    draws: int
    answered: tuple[str, ...]
    deep: bool
    seed: int = 0
    compression: bool = False

    def __post_init__(self) -> None:
        as_seed(self.seed)
        as_flag(self.compression, "compression")
        as_flag(self.deep, "deep")

    @property
    def n_thirds(self) -> int:
        """On how many problems blocks are skipped in one third of decoding: half of them."""
        return max(2, self.problems // 2)


COMPRESSED = dict(zip(("3 bits", "half, even", "half, early sparser", "half, late sparser"), PAPER, strict=True))
"""What is done to the weights, by name."""
_NEEDED = ("whole", "apart", "early run", "no outlier", "no random")
QUICK = StudySettings(problems=12, texts=8, draws=2, answered=_NEEDED, deep=False)
FULL = StudySettings(problems=64, texts=24, draws=4, answered=(*_NEEDED, "late run", "no next"), deep=True)


@final
@dataclass(frozen=True)
class Asking:
    """One model and how it is measured.

    Args:
        chain: the model, without operations.
        task: what is answered.
        settings: how much is measured.
        store: where finished parts are.
        bar: a progress bar of parts.
        stop: when set, no further part is begun.
    """

    chain: Trace
    task: Task
    settings: StudySettings
    store: Store
    bar: Any
    stop: threading.Event = field(default_factory=threading.Event)

    def all(self, kind: ModelKind) -> ModelStudy:
        """Every part."""
        model, settings = self.chain.model, self.settings
        texts = _spread(calibration_texts(), settings.texts)
        rows = [row[: model.n_positions] for row in token_rows(model, texts)]
        reading = self._part(Reading.from_json, "reading", rows, lambda: parts.reading(self.chain, rows, settings.seed))
        chosen = changes(self.chain, reading, settings.seed)
        return ModelStudy(
            kind=kind,
            family=model.family.name,
            n_layers=model.n_layers,
            d_model=model.d_model,
            reading=reading,
            changes=chosen,
            losses=self._losses(chosen.values(), rows),
            answers={name: self._answers(change) for name, change in chosen.items() if name in settings.answered},
            disruption=self._disruption(chosen["apart"], rows) if settings.deep else None,
            thirds=self._thirds(chosen["apart"]) if settings.deep else None,
            compressed=self._compressed(rows) if settings.compression else {},
            spectra=self._spectra() if settings.compression else None,
        )

    def _canvases(self, rows: Sequence[list[int]]) -> list[Canvases]:
        settings = self.settings
        return [text_canvases(self.chain.model, [row], settings.draws, settings.seed + i) for i, row in enumerate(rows)]

    def _compressed(self, rows: Sequence[list[int]]) -> dict[str, Compressed]:
        settings, canvases = self.settings, self._canvases(rows)
        problems = self.task.problems(settings.problems, settings.seed)
        return {
            name: self._part(
                Compressed.from_json,
                "compressed",
                [asdict(recipe), rows, settings.draws, calibration_texts(), *self._problems(settings.problems)],
                lambda recipe=recipe: parts.compressed(
                    self.chain, recipe, self.task, problems, canvases, settings.seed
                ),
            )
            for name, recipe in COMPRESSED.items()
        }

    def _spectra(self) -> Spectra:
        return self._part(Spectra.from_json, "spectra", [], lambda: parts.spectra(self.chain))

    def _losses(self, chosen: Iterable[Change], rows: Sequence[list[int]]) -> dict[str, Losses]:
        settings, canvases = self.settings, self._canvases(rows)
        return {
            change.name: self._part(
                Losses.from_json,
                "losses",
                [asdict(change), rows, settings.draws],
                lambda change=change: parts.losses(change.applied(self.chain), canvases),
            )
            for change in chosen
        }

    def _answers(self, change: Change) -> Answers:
        seed, n = self.settings.seed, self.settings.problems
        problems = self.task.problems(n, seed)
        return self._part(
            Answers.from_json,
            "answers",
            [asdict(change), *self._problems(n)],
            lambda: parts.answers(change.applied(self.chain), self.task, problems, seed),
        )

    def _disruption(self, change: Change, rows: Sequence[list[int]]) -> Disrupted:
        return self._part(
            Disrupted.from_json,
            "disruption",
            [asdict(change), rows],
            lambda: parts.disrupted(self.chain, change.layers, rows, self.settings.seed),
        )

    def _thirds(self, change: Change) -> Thirds:
        n = self.settings.n_thirds
        return self._part(
            Thirds.from_json,
            "thirds",
            [asdict(change), *self._problems(n)],
            lambda: parts.thirds(self.chain, change.layers, self.task, n, self.settings.seed),
        )

    def _problems(self, n: int) -> list[Any]:
        """What is asked, as far as an answer depends on it."""
        problems = self.task.problems(n, self.settings.seed)
        read = token_rows(self.chain.model, [problem.prompt for problem in problems])
        return [self.task.name, task_identity(self.task), [asdict(problem) for problem in problems], read]

    @cached_property
    def _identity(self) -> list[Any]:
        """Read once, as it takes every byte of the weights."""
        return model_identity(self.chain.model)

    def _part(self, read: Callable[[Any], P], name: str, asked: Any, compute: Callable[[], P]) -> P:
        """A part, computed once for the same model and question.

        Raises:
            Cancelled: it is not begun.
        """
        if self.stop.is_set():
            raise Cancelled("the study was stopped between two parts; finished ones are kept; start it again")
        self.bar.set_description(f"{self.chain.model.name}: {name}")
        key = {
            "part": name,
            "asked": asked,
            "seed": self.settings.seed,
            "model": self._identity,
            "versions": versions(),
        }
        result = self.store.once(key, lambda: compute().to_json(), read)
        self.bar.update()
        return result


def model_identity(model: Model) -> list[Any]:
    """What a model's numbers depend on: what its module computes, how it is read, and how its tokens become text."""
    return [model.name, model.family.name, reading(model), model.fingerprint()]


def n_parts(settings: StudySettings) -> int:
    """How many parts a model has."""
    compression = (len(COMPRESSED) + 1) * settings.compression
    return 1 + _N_CHANGES + len(settings.answered) + 2 * settings.deep + compression


def _spread(items: Sequence[str], n: int) -> list[str]:
    """n items, evenly over all, so that every kind of text is among them."""
    return [items[int(i)] for i in np.linspace(0, len(items) - 1, min(n, len(items))).round()]
