"""How much accuracy and loss models keep with fewer bits or weights, on the same problems and texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np

from dlens.checks import as_flag, check_fields, quoted
from dlens.compression.compress import check_recipe, compressed
from dlens.compression.recipe import Recipe
from dlens.findings.effects.retention import Retention, asked_of_both, judged
from dlens.findings.scores.accuracy import Scores, score_problems
from dlens.findings.scores.canvases import Canvases, text_canvases
from dlens.findings.scores.decoding import Decoding
from dlens.findings.scores.estimate import Estimate, kept_less, mean_of
from dlens.findings.scores.loss import losses_of
from dlens.models.compression import Compression
from dlens.models.load import load
from dlens.models.model import Model
from dlens.ops.base.given import as_seed
from dlens.samplers import Sampler
from dlens.tasks import Problem, Task
from dlens.tracing.chain import trace
from dlens.tracing.probes.calibration import calibration_texts
from dlens.workers.base import Workers
from dlens.workers.spread import spread

__all__ = ["PAPER", "Cell", "Robustness", "robustness"]

PAPER = (
    Recipe(method="gptq", bits=3, group=64),
    Recipe(method="wanda", sparsity=0.5),
    Recipe(method="wanda", sparsity=0.5, allocation="early-sparser"),
    Recipe(method="wanda", sparsity=0.5, allocation="late-sparser"),
)
"""What arXiv 2605.06366 claims something of: 3 bits, and half of all weights gone, spread in three ways."""


@final
@dataclass(frozen=True, eq=False)
class Cell:
    """One model with one recipe and one seed.

    Args:
        model: its name among those compared.
        compression: what was done to it.
        seed: of the calibration.
        kept: its answers, beside those of the model as it is.
        loss: nats a token, of the compressed model.
        loss_change: how much larger than that of the model as it is, with its interval over texts.
    """

    model: str
    compression: Compression
    seed: int
    kept: Retention = field(repr=False)
    loss: float
    loss_change: Estimate

    def __post_init__(self) -> None:
        check_fields(self, "let dlens.robustness make it", Compression, Retention, Estimate)

    def row(self) -> dict[str, Any]:
        """The numbers, as a row of a table."""
        own, kept, change = self.compression.settings, self.kept, self.loss_change
        named = own["allocation"] if isinstance(own["allocation"], str) else "own"
        return {
            "model": self.model,
            "method": own["method"],
            "bits": own["bits"],
            "sparsity": own["sparsity"],
            "allocation": named if own["bits"] is None else None,
            "seed": self.seed,
            "left_out": len(self.compression.left_out),
            **{name: getattr(kept, name) for name in ("n", "baseline", "accuracy", "retained", "low", "high")},
            "loss": self.loss,
            "loss_change": change.value,
            "loss_low": change.low,
            "loss_high": change.high,
        }


@final
@dataclass(frozen=True, eq=False)
class Robustness:
    """Several models with several recipes, on the same problems.

    Args:
        task: what was asked.
        recipes: what was tried.
        cells: in the order of models, recipes and seeds.

    Examples:
        >>> import dlens
        >>> recipes = [dlens.Recipe(method="rtn", bits=bits) for bits in (8, 2)]
        >>> story = ["Once upon a time", "The dog ran away"]
        >>> found = dlens.robustness({"ar": "trio/ar"}, recipes=recipes, n=2, max_new_tokens=2, texts=story)
        >>> [(row["bits"], row["loss_change"] > 0.5) for row in found.table()]
        [(8, False), (2, True)]
        >>> found.cell("ar", found.recipes[1]).compression.zeros > 0.1
        True
        >>> found.less("ar", "ar", found.recipes[0]).value
        nan
        >>> print(found)
        Robustness of 1 model to 2 recipes on trio-math (2 problems)
          ar, rtn, 8 bits, whole rows: accuracy 0.00 of 0.00, loss ... more
          ar, rtn, 2 bits, whole rows: accuracy 0.00 of 0.00, loss ... more
    """

    task: str
    recipes: tuple[Recipe, ...]
    cells: tuple[Cell, ...]

    def __post_init__(self) -> None:
        check_fields(self, "let dlens.robustness make it", Recipe, Cell)

    def table(self) -> list[dict[str, Any]]:
        """One row a model, recipe and seed: "accuracy" and "baseline", the share "retained" and its interval from "low"
        to "high", "loss", and how much larger it is, with its interval from "loss_low" to "loss_high"."""
        return [cell.row() for cell in self.cells]

    def cell(self, model: str, recipe: Recipe, seed: int | None = None) -> Cell:
        """One model with one recipe; the first seed by default.

        Raises:
            KeyError: there is none.
        """
        for cell in self.cells:
            if cell.model == model and _same(cell, recipe) and seed in (None, cell.seed):
                return cell
        raise KeyError(
            f"no cell of {model!r} with {quoted(recipe)} and seed {seed}; expected one of the models, recipes and "
            f"seeds that were tried; see .table()"
        )

    def less(self, model: str, other: str, recipe: Recipe, seed: int | None = None) -> Estimate:
        """The share of its accuracy that one model keeps minus the share that another keeps, on the same problems."""
        answers = [
            (kept.before.correct, kept.after.correct)
            for kept in (self.cell(name, recipe, seed).kept for name in (model, other))
        ]
        return kept_less(answers[0], answers[1:])

    def __str__(self) -> str:
        models = len({cell.model for cell in self.cells})
        head = f"Robustness of {models} model{'s'[: models > 1]} to {len(self.recipes)} recipes on {self.task}"
        lines = [
            f"  {cell.model}, {cell.compression.words}: accuracy {cell.kept.accuracy:.2f} of {cell.kept.baseline:.2f}, "
            f"loss {cell.loss_change.value:.2f} more"
            for cell in self.cells
        ]
        return "\n".join([f"{head} ({self.cells[0].kept.n} problems)", *lines])

    __repr__ = __str__


def robustness(
    models: Mapping[str, Any] | Sequence[Any],
    task: Task | str = "trio-math",
    recipes: Sequence[Recipe] | None = None,
    n: int = 64,
    seed: int = 0,
    *,
    seeds: Sequence[int] = (0,),
    texts: Any = None,
    calibration: Any = None,
    device: Any = None,
    split: str = "test",
    sampler: Sampler | None = None,
    max_new_tokens: int | None = None,
    batch_size: int = 16,
    workers: str | int | Workers | None = None,
    out: str | Path | None = None,
    progress: bool = True,
) -> Robustness:
    """Accuracy and loss of models with fewer bits or weights, paired with the same models as they are.

    Args:
        models: name -> anything `dlens.load` takes, or such things alone, which are then called by their names.
        task: a task, or its name.
        recipes: what is tried; by default what arXiv 2605.06366 claims something of: GPTQ with 3 bits in groups of 64,
            and Wanda at half of the weights, evenly spread, with early and with late layers sparser.
        n: problems; at least 2.
        seed: draws the problems, and the masks of the loss.
        seeds: of the calibration; each recipe is tried with each. They matter where rows are drawn (`rows` of the
            recipe) or masked.
        texts: of which the loss is taken; the shipped text by default.
        calibration: what is read while compressing; the shipped text by default.
        device: see `dlens.compress`.
        split: of the problems.
        sampler, max_new_tokens, batch_size, progress: see `dlens.findings.scores.decoding.Decoding`.
        workers: who computes the models with their recipes, as `dlens.sweep` takes them; this process by default.
        out: where they keep their results; a temporary folder by default.

    Returns:
        `.table()`: a row for each model, recipe and seed, with intervals over problems and texts. `.less` compares two
        models. An interval does not cover other training runs of a model.

    Raises:
        ValueError: before anything is computed: a recipe that a model cannot follow, too few problems.

    Examples:
        >>> import dlens
        >>> recipe = dlens.Recipe(method="magnitude", sparsity=0.2)
        >>> story = ["Once upon a time"] * 2
        >>> found = dlens.robustness(["trio/ar"], recipes=[recipe], n=2, max_new_tokens=2, texts=story)
        >>> found.table()[0]["model"], found.table()[0]["sparsity"]
        ('trio/ar', 0.2)
    """
    as_flag(progress, "progress")
    named = _named(models)
    chosen = PAPER if recipes is None else tuple(recipes)
    seeds = tuple(as_seed(number) for number in seeds)
    _refuse(chosen, seeds)
    task, problems = asked_of_both(task, n, seed, split, None)
    decoding = Decoding(sampler, max_new_tokens, batch_size=batch_size, seed=seed, progress=progress).of(task)
    for model in named.values():
        for recipe in chosen:
            check_recipe(model, recipe, calibration)
    asked = _Asked(task, problems, decoding, calibration_texts() if texts is None else texts, calibration, device)
    tried = [replace(recipe, seed=number) for recipe in chosen for number in seeds]
    calls = [partial(asked.answers, model, recipe) for model in named.values() for recipe in (None, *tried)]
    found = iter(spread(calls, "robustness", workers, out))
    cells: list[Cell] = []
    for name, model in named.items():
        before, weights = next(found), asked.weights(model)
        cells += [asked.cell(name, recipe.seed, before, next(found), weights) for recipe in tried]
    return Robustness(task.name, chosen, tuple(cells))


@final
@dataclass(frozen=True, eq=False)
class _Asked:
    """What every model is asked, as it is and compressed."""

    task: Task
    problems: tuple[Problem, ...]
    decoding: Decoding
    texts: Any
    calibration: Any
    device: Any

    def answers(self, model: Model, recipe: Recipe | None) -> dict[str, Any]:
        """Answers and losses, as plain data; compressed by a recipe where there is one."""
        small, done = model, None
        if recipe is not None:
            small = compressed(model, recipe, self.calibration, self.device, progress=self.decoding.progress)
            assert small.compression is not None
            done = small.compression.to_json()
        scores = score_problems(trace(small), self.task, self.problems, self.decoding)
        plain = {name: value for name, value in vars(scores).items() if name not in ("problems", "decoding")}
        losses = [loss.value for loss in losses_of(trace(small), self._parts(model))]
        return {"scores": plain, "losses": losses, "compression": done}

    def cell(
        self, name: str, seed: int, before: Mapping[str, Any], after: Mapping[str, Any], weights: np.ndarray
    ) -> Cell:
        """A cell of what was found of a model as it is, and compressed."""
        kept = judged(name, self._scores(before), self._scores(after), self.decoding.seed)
        old, new = (np.array(each["losses"]) for each in (before, after))
        done = Compression.from_json(after["compression"])
        return Cell(name, done, seed, kept, float(np.average(new, weights=weights)), mean_of(new - old))

    def weights(self, model: Model) -> np.ndarray:
        """How many tokens of each text count."""
        return np.array([part.n_tokens for part in self._parts(model)], float)

    def _parts(self, model: Model) -> list[Canvases]:
        return [text_canvases(model, [text], seed=self.decoding.seed) for text in self.texts]

    def _scores(self, found: Mapping[str, Any]) -> Scores:
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in found["scores"].items()
        }
        return Scores(problems=self.problems, decoding=self.decoding, **plain)


def _named(models: Mapping[str, Any] | Sequence[Any]) -> dict[str, Model]:
    if isinstance(models, str) or not isinstance(models, (Mapping, Sequence)) or not models:
        raise ValueError(
            f"models={quoted(models)}; expected several: a dict of names and models, or a list; give "
            f"['trio/ar', 'trio/diffusion']"
        )
    if isinstance(models, Mapping):
        return {str(name): load(model) for name, model in models.items()}
    loaded = [load(model) for model in models]
    if len({model.name for model in loaded}) < len(loaded):
        raise ValueError(
            f"models of the names {', '.join(model.name for model in loaded)}; expected a name of its own for each; "
            f"pass a dict of names and models"
        )
    return {model.name: model for model in loaded}


def _refuse(recipes: Sequence[Any], seeds: Sequence[int]) -> None:
    for recipe in recipes:
        if not isinstance(recipe, Recipe):
            raise ValueError(
                f"recipe {quoted(recipe)}; expected a dlens.Recipe; write for example "
                f"dlens.Recipe(method='rtn', bits=3)"
            )
    if not recipes or not seeds:
        raise ValueError(
            f"{len(recipes)} recipes and {len(seeds)} seeds; expected at least one of each; leave them out for the "
            f"paper's recipes and seed 0"
        )


def _same(cell: Cell, recipe: Recipe) -> bool:
    """Whether a cell follows a recipe, whatever its seed and what it left open."""
    own = cell.compression.settings
    return all(
        own[name] == value
        for name, value in asdict(recipe).items()
        if name != "seed" and (value is not None and name != "protect" or name in ("bits", "group"))
    )
