"""Everything that both papers ask, measured of several models on the same texts and problems."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, cast, final

import torch

from dlens.axes import respell
from dlens.caches.cache import Cache
from dlens.checks import as_flag, quoted
from dlens.findings.effects.retention import enough
from dlens.findings.scores.accuracy import refuse_long_problems
from dlens.findings.skipping.choosable import bare
from dlens.findings.study.apart import computed_apart
from dlens.findings.study.asking import FULL, QUICK, Asking, StudySettings, n_parts
from dlens.findings.study.results import KINDS, ModelKind, ModelStudy, kind_of
from dlens.findings.study.side_by_side import side_by_side
from dlens.tasks import Task
from dlens.tracing.chain import Trace
from dlens.tracing.planning.kv_cache import canvas_cache, check_caching
from dlens.tracing.planning.plan import Plan
from dlens.tracing.progress import quiet
from dlens.tracing.records.record import versions
from dlens.workers.base import Workers
from dlens.workers.store import Store

__all__ = ["FULL", "QUICK", "Study", "StudySettings", "plain", "study"]

_LEAST_LAYERS = 3


@final
@dataclass(frozen=True, eq=False)
class Study:
    """What was measured, model by model.

    Args:
        models: name -> what was measured of it.
        settings: how much was measured.
        task: on which problems.
        versions: of dlens and of what it runs on.
        reused: how many parts were finished by an earlier run.
    """

    models: Mapping[str, ModelStudy]
    settings: StudySettings
    task: str
    versions: Mapping[str, str]
    reused: int = 0

    def skipped(self, change: str) -> str:
        """How many blocks a change skips, in words, such as "3 of 16 blocks (18.75 %)"; of models that differ, each."""
        sizes = {(len(own.changes[change].layers), own.n_layers) for own in self.models.values()}
        return " or ".join(f"{n} of {n_layers} blocks ({100 * n / n_layers:.4g} %)" for n, n_layers in sorted(sizes))

    def numbers(self) -> dict[str, Any]:
        """All of it as plain data; what is not a finite number is None."""
        models = {name: own.to_json() for name, own in self.models.items()}
        return plain(vars(self) | {"models": models, "settings": self.settings.to_json()})


def study(
    models: Sequence[Any],
    task: Task,
    settings: StudySettings = FULL,
    *,
    kinds: Sequence[str | None] = (),
    store: Store | None = None,
    workers: Workers | None = None,
    progress: bool = True,
) -> Study:
    """Measure models on the same texts and problems, part by part.

    On a CPU models are asked side by side, and divide torch's threads.

    Args:
        models: each anything `dlens.trace` takes, without operations.
        task: what is answered.
        settings: how much is measured.
        kinds: what each model is, in their order; None goes by the family.
        store: where finished parts are kept, so that an interrupted study goes on.
        workers: who computes the parts; this process by default. They need a store with a folder.
        progress: show a progress bar.

    Raises:
        ValueError: before anything is computed: no model, two of one name, one with fewer than 3 blocks or without a
            tokenizer, kinds or a cache that do not fit, or too few problems; afterwards: activations that are not
            finite.
        RuntimeError: a worker could not compute a part.
    """
    from tqdm.auto import tqdm

    as_flag(progress, "progress")
    chains = _checked(models, kinds)
    _check_cache(chains, settings)
    problems = task.problems(enough(settings.problems), settings.seed)
    for chain in chains:
        refuse_long_problems(chain.model, task, problems)
    store = Store() if store is None else store
    stop = threading.Event()
    with tqdm(total=len(chains) * n_parts(settings), unit="part", leave=False, disable=quiet(progress)) as bar:
        askings = [Asking(chain, task, settings, store, bar, stop) for chain in chains]
        n_computed = 0 if workers is None else computed_apart(askings, workers)
        if n_computed:
            askings = [replace(asking, store=replace(store, fresh=False)) for asking in askings]
        asked = [
            asking.parts(cast(ModelKind, kind) if kind else kind_of(asking.chain.model.family))
            for asking, kind in zip(askings, kinds or [None] * len(chains), strict=True)
        ]
        found = side_by_side(asked, stop, _threads(chains))
    names = (chain.model.name for chain in chains)
    n_reused = len(store.reused) - n_computed
    return Study(dict(zip(names, found, strict=True)), settings, task.name, versions(), n_reused)


def _threads(chains: Sequence[Trace]) -> int:
    """How many threads of torch the models may divide: one where they share a device or modules, or under autocast."""
    modules = [id(part) for chain in chains for part in chain.model.module.modules()]
    alone = len(set(modules)) == len(modules) and all(chain.model.device.type == "cpu" for chain in chains)
    # Autocast is a matter of the thread that switches it on.
    return torch.get_num_threads() if alone and not torch.is_autocast_enabled("cpu") else 1


def _checked(models: Sequence[Any], kinds: Sequence[Any]) -> list[Trace]:
    if not models:
        raise ValueError("no model to study; expected at least one; name for example trio/diffusion")
    if kinds and len(kinds) != len(models):
        raise ValueError(
            f"{len(kinds)} kinds for {len(models)} models; expected one for each, in their order; give 'diffusion', "
            f"'ar' or 'ar-init' for each"
        )
    for kind in kinds:
        if kind is not None and (not isinstance(kind, str) or kind not in KINDS):
            raise ValueError(f"kind {quoted(kind)}; expected one of {', '.join(KINDS)}; {respell(kind, KINDS)}")
    chains = [bare(model, "a study") for model in models]
    names = [chain.model.name for chain in chains]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"two models of the name {name}; expected different names; use dataclasses.replace(model, name=...)"
            )
    for chain in chains:
        _check_model(chain)
    return chains


def _check_cache(chains: Sequence[Trace], settings: StudySettings) -> None:
    asked = settings.cache
    if isinstance(asked, Cache) and not any(chain.target.has_noise for chain in chains):
        raise ValueError(
            f"cache={asked} for models that are all autoregressive; expected a diffusion model, as these keep the keys "
            f"and values of all that they decoded; leave it out, or name a diffusion model"
        )
    for chain in chains:
        cache = settings.cache_of(chain.target)
        check_caching(chain.model, chain.target, cache)
        if isinstance(cache, Cache):
            canvas_cache(chain.model, Plan((), 1), cache)


def _check_model(chain: Trace) -> None:
    model = chain.model
    if model.n_layers < _LEAST_LAYERS:
        raise ValueError(
            f"{model.name} has {model.n_layers} blocks; expected at least {_LEAST_LAYERS}, as early ones are compared "
            f"with late ones; take a deeper model"
        )
    if model.tokenizer is None:
        raise ValueError(
            f"{model.name} has no tokenizer; expected one, as all models read the same texts; load with tokenizer="
        )


def plain(value: Any) -> Any:
    """Data of plain lists and names; numbers that are not finite, which JSON lacks, as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value
