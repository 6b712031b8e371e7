"""One model in a study: every part of it, computed once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from typing import Any, Generic, TypeVar, final

import numpy as np

from dlens.caches.cache import Cache
from dlens.checks import as_flag
from dlens.digest import value_digest
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
from dlens.findings.study.side_by_side import finished
from dlens.models.identity import reading
from dlens.models.model import Model
from dlens.ops.base.given import as_seed
from dlens.ops.base.target import Target
from dlens.tasks import Task
from dlens.tasks.task import task_identity
from dlens.tracing.chain import Trace
from dlens.tracing.planning.kv_cache import Caching, check_cache
from dlens.tracing.probes.calibration import calibration_texts
from dlens.tracing.records.record import versions
from dlens.workers.store import Store
from dlens.workers.unit import Unit

__all__ = ["COMPRESSED", "FULL", "QUICK", "Asking", "StudySettings", "model_identity", "n_parts"]

P = TypeVar("P", bound=Part)
# The last of them is made only where the largest channel is not that of the early blocks.
_N_CHANGES = 9


@final
@dataclass(frozen=True)
class StudySettings:
    """How much is measured.

    Args:
        problems: of the task, each answered by every model with every change in `answered`.
        texts: of the shipped calibration text.
        draws: how often each text is masked for the loss (diffusion only).
        answered: the changes whose accuracy is measured, as far as a model has them; the loss is measured for all.
        deep: also compare representations with and without a skip at matched points of decoding, and skip in
            one third of decoding only.
        seed: of the problems, masks and random channels.
        compression: also with fewer bits and weights, and the spectra of the weights.
        cache: what diffusion models decode with where it is one of `dlens.caches`, all models where it is a word;
            skips in one third of decoding are decoded without one.
    """

    problems: int
    texts: int
    draws: int
    answered: tuple[str, ...]
    deep: bool
    seed: int = 0
    compression: bool = False
    cache: Caching = "auto"

    def __post_init__(self) -> None:
        check_cache(self.cache)
        as_seed(self.seed)
        as_flag(self.compression, "compression")
        as_flag(self.deep, "deep")

    @property
    def n_thirds(self) -> int:
        """On how many problems blocks are skipped in one third of decoding: half of them."""
        return max(2, self.problems // 2)

    def cache_of(self, target: Target) -> Caching:
        """What a model decodes with: an autoregressive one has no cache of denoising, and keeps its own."""
        return "auto" if isinstance(self.cache, Cache) and not target.has_noise else self.cache

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return vars(self) | {"answered": list(self.answered), "cache": str(self.cache)}


COMPRESSED = dict(zip(("3 bits", "half, even", "half, early sparser", "half, late sparser"), PAPER, strict=True))
"""What is done to the weights, by name."""
_NEEDED = ("whole", "apart", "early run", "no outlier", "no random", "no largest")
QUICK = StudySettings(problems=12, texts=8, draws=2, answered=_NEEDED, deep=False)
FULL = StudySettings(problems=64, texts=24, draws=4, answered=(*_NEEDED, "late run", "no next"), deep=True)


@final
@dataclass(frozen=True, eq=False)
class Question(Generic[P]):
    """A part that is asked of a model.

    Args:
        asked: all that it depends on, as plain data.
        read: makes the part of what was stored.
        compute: the part.
        words: what it is.
    """

    asked: Mapping[str, Any]
    read: Callable[[Any], P]
    compute: Callable[[], P]
    words: str

    def unit(self) -> Unit:
        """The same for a worker."""
        return Unit(self.asked, partial(_plain, self.compute), self.words)


@final
@dataclass(frozen=True, eq=False)
class Later:
    """What is asked of a model once it is known how it reads; fields as those of `ModelStudy`."""

    changes: Mapping[str, Change]
    losses: Mapping[str, Question[Losses]]
    answers: Mapping[str, Question[Answers]]
    disruption: Question[Disrupted] | None
    thirds: Question[Thirds] | None
    compressed: Mapping[str, Question[Compressed]]
    spectra: Question[Spectra] | None

    def every(self) -> list[Question[Any]]:
        """All of it."""
        several = (*self.losses.values(), *self.answers.values(), *self.compressed.values())
        return [question for question in (*several, self.disruption, self.thirds, self.spectra) if question]


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
        return finished(self.parts(kind))

    def parts(self, kind: ModelKind) -> Generator[None, None, ModelStudy]:
        """Every part, one after the other: it yields after each, and returns all of them."""
        model, reading = self.chain.model, self._part(self.reading())
        yield
        later = self.later(reading)
        found: dict[Question[Any], Any] = {}
        for question in later.every():
            found[question] = self._part(question)
            yield
        return ModelStudy(
            kind=kind,
            family=model.family.name,
            n_layers=model.n_layers,
            d_model=model.d_model,
            reading=reading,
            changes=later.changes,
            losses={name: found[question] for name, question in later.losses.items()},
            answers={name: found[question] for name, question in later.answers.items()},
            disruption=found[later.disruption] if later.disruption else None,
            thirds=found[later.thirds] if later.thirds else None,
            compressed={name: found[question] for name, question in later.compressed.items()},
            spectra=found[later.spectra] if later.spectra else None,
        )

    def reading(self) -> Question[Reading]:
        """What is asked first, as it decides which channels and layers are changed."""
        compute = partial(parts.reading, self.chain, self._rows, self.settings.seed)
        return self._question("reading", Reading.from_json, self._rows, compute)

    def later(self, reading: Reading) -> Later:
        """What is asked then, in any order."""
        settings, chosen = self.settings, changes(self.chain, reading, self.settings.seed)
        apart = chosen["apart"]
        return Later(
            changes=chosen,
            losses={name: self._losses(change) for name, change in chosen.items()},
            answers={name: self._answers(change) for name, change in chosen.items() if name in settings.answered},
            disruption=self._disruption(apart) if settings.deep else None,
            thirds=self._thirds(apart) if settings.deep else None,
            compressed=self._compressed() if settings.compression else {},
            spectra=self._spectra() if settings.compression else None,
        )

    @cached_property
    def _rows(self) -> list[list[int]]:
        """The texts that are read."""
        model, texts = self.chain.model, _spread(calibration_texts(), self.settings.texts)
        return [row[: model.n_positions] for row in token_rows(model, texts)]

    @cached_property
    def _canvases(self) -> list[Canvases]:
        settings, model = self.settings, self.chain.model
        return [text_canvases(model, [row], settings.draws, settings.seed + i) for i, row in enumerate(self._rows)]

    def _compressed(self) -> dict[str, Question[Compressed]]:
        settings, task = self.settings, self.task
        problems = task.problems(settings.problems, settings.seed)
        rest = [self._rows, settings.draws, calibration_texts(), *self._decoded, *self._problems(settings.problems)]
        return {
            name: self._question(
                "compressed",
                Compressed.from_json,
                [asdict(recipe), *rest],
                partial(
                    parts.compressed, self.chain, recipe, task, problems, self._canvases, settings.seed, self._cache
                ),
            )
            for name, recipe in COMPRESSED.items()
        }

    def _spectra(self) -> Question[Spectra]:
        return self._question("spectra", Spectra.from_json, [], partial(parts.spectra, self.chain))

    def _losses(self, change: Change) -> Question[Losses]:
        compute = partial(parts.losses, change.applied(self.chain), self._canvases)
        return self._question("losses", Losses.from_json, [asdict(change), self._rows, self.settings.draws], compute)

    def _answers(self, change: Change) -> Question[Answers]:
        seed, n, chain = self.settings.seed, self.settings.problems, change.applied(self.chain)
        compute = partial(parts.answers, chain, self.task, self.task.problems(n, seed), seed, self._cache)
        asked = [asdict(change), *self._decoded, *self._problems(n)]
        return self._question("answers", Answers.from_json, asked, compute)

    def _disruption(self, change: Change) -> Question[Disrupted]:
        compute = partial(parts.disrupted, self.chain, change.layers, self._rows, self.settings.seed, self._cache)
        asked = [asdict(change), *self._decoded, self._rows]
        return self._question("disruption", Disrupted.from_json, asked, compute)

    def _thirds(self, change: Change) -> Question[Thirds]:
        n = self.settings.n_thirds
        compute = partial(parts.thirds, self.chain, change.layers, self.task, n, self.settings.seed)
        return self._question("thirds", Thirds.from_json, [asdict(change), *self._problems(n)], compute)

    @property
    def _cache(self) -> Caching:
        return self.settings.cache_of(self.chain.target)

    @cached_property
    def _decoded(self) -> list[str]:
        """The cache of decoding, by its content."""
        return [str(self._cache), value_digest(self._cache)]

    def _problems(self, n: int) -> list[Any]:
        """What is asked, as far as an answer depends on it."""
        problems = self.task.problems(n, self.settings.seed)
        read = token_rows(self.chain.model, [problem.prompt for problem in problems])
        return [self.task.name, task_identity(self.task), [asdict(problem) for problem in problems], read]

    @cached_property
    def _identity(self) -> list[Any]:
        """Read once, as it takes every byte of the weights."""
        return model_identity(self.chain.model)

    def _question(self, name: str, read: Callable[[Any], P], asked: Any, compute: Callable[[], P]) -> Question[P]:
        """A part with all that it depends on."""
        key = {
            "part": name,
            "asked": asked,
            "seed": self.settings.seed,
            "model": self._identity,
            "versions": versions(),
        }
        return Question(key, read, compute, f"{self.chain.model.name}: {name}")

    def _part(self, question: Question[P]) -> P:
        """A part, computed once for the same model and question.

        Raises:
            Cancelled: it is not begun.
        """
        if self.stop.is_set():
            raise Cancelled("the study was stopped between two parts; finished ones are kept; start it again")
        self.bar.set_description(question.words)
        result = self.store.once(question.asked, partial(_plain, question.compute), question.read)
        self.bar.update()
        return result


def _plain(compute: Callable[[], Part]) -> Any:
    return compute().to_json()


def model_identity(model: Model) -> list[Any]:
    """What a model's numbers depend on: what its module computes, how it is read, and how its tokens become text."""
    return [model.name, model.family.name, reading(model), model.fingerprint()]


def n_parts(settings: StudySettings) -> int:
    """How many parts a model has at most: without two of them where one channel is the largest throughout."""
    compression = (len(COMPRESSED) + 1) * settings.compression
    return 1 + _N_CHANGES + len(settings.answered) + 2 * settings.deep + compression


def _spread(items: Sequence[str], n: int) -> list[str]:
    """n items, evenly over all, so that every kind of text is among them."""
    return [items[int(i)] for i in np.linspace(0, len(items) - 1, min(n, len(items))).round()]
