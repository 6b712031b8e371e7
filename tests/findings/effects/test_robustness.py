"""Models with fewer bits and weights, paired with themselves as they are."""

from pathlib import Path

import numpy as np
import pytest

import dlens
from dlens import Recipe
from dlens.findings.effects.robustness import PAPER
from dlens.findings.scores.accuracy import score_task
from dlens.findings.scores.estimate import kept_less
from dlens.findings.scores.intervals import ratio_interval
from dlens.findings.scores.loss import text_loss
from tests.reference import shallow
from tests.refusing import refused
from tests.unchecked import unchecked

TEXTS = ["Once upon a time there was a dog", "The cat sat on the mat"]
RECIPES = (Recipe(method="rtn", bits=3), Recipe(method="wanda", sparsity=0.4, rows=2, length=32))


@pytest.fixture(scope="module")
def models(ar: dlens.Model, diffusion: dlens.Model) -> dict[str, dlens.Model]:
    return {"ar": shallow(ar, 2), "dllm": shallow(diffusion, 2)}


@pytest.fixture(scope="module")
def found(models: dict[str, dlens.Model]) -> dlens.Robustness:
    return dlens.robustness(models, recipes=RECIPES, n=3, seeds=(0, 1), texts=TEXTS, max_new_tokens=2)


def test_every_model_meets_every_recipe_and_seed(found: dlens.Robustness) -> None:
    rows = found.table()
    tried = [(row["model"], row["method"], row["seed"]) for row in rows]
    assert tried == [(m, r, s) for m in ("ar", "dllm") for r in ("rtn", "wanda") for s in (0, 1)]
    assert {row["bits"] for row in rows} == {3, None} and {row["sparsity"] for row in rows} == {None, 0.4}
    assert {row["allocation"] for row in rows} == {None, "uniform"} and {row["left_out"] for row in rows} == {0}
    assert found.cell("dllm", RECIPES[1], 1).compression.settings["calibration"] == "masked"
    assert found.cell("ar", RECIPES[0]).seed == 0


def test_numbers_are_those_of_the_compressed_model(found: dlens.Robustness, models: dict[str, dlens.Model]) -> None:
    for name, model in models.items():
        cell = found.cell(name, RECIPES[1], 1)
        small = dlens.compress(model, "wanda", sparsity=0.4, rows=2, length=32, seed=1)
        assert small.compression.treated == cell.compression.treated
        after = score_task(dlens.trace(small), "trio-math", 3, max_new_tokens=2)
        before = score_task(dlens.trace(model), "trio-math", 3, max_new_tokens=2)
        assert (cell.kept.after.texts, cell.kept.before.texts) == (after.texts, before.texts)
        losses = np.array([[text_loss(dlens.trace(each), [text]).value for text in TEXTS] for each in (model, small)])
        assert cell.loss_change.value == pytest.approx(float((losses[1] - losses[0]).mean()), abs=1e-6)
        assert cell.loss_change.low < cell.loss_change.value < cell.loss_change.high
        assert min(losses[1]) < cell.loss < max(losses[1])


def test_models_are_compared_on_the_same_problems(models: dict[str, dlens.Model]) -> None:
    class Easy(dlens.tasks.Task):
        name = "any-answer"
        max_new_tokens = 2

        def problems(self, n, seed=0, split="test"):
            return [dlens.tasks.Problem(f"Once upon {'a ' * number}time", "x", 1, str(number)) for number in range(n)]

        def score(self, problem, text):
            return text == problem.answer or len(text) % 2 == 0

    found = dlens.robustness(models, Easy(), RECIPES[:1], n=6, texts=TEXTS)
    own, other = (found.cell(name, RECIPES[0]).kept for name in ("dllm", "ar"))
    expected = kept_less((own.before.correct, own.after.correct), [(other.before.correct, other.after.correct)])
    assert found.less("dllm", "ar", RECIPES[0]) == expected or np.isnan(expected.value)
    for kept in (own, other):
        ends = ratio_interval(kept.before.correct, kept.after.correct)
        assert (kept.low, kept.high) == ends or np.isnan(kept.low)


def test_the_recipes_of_the_paper_are_tried_by_default() -> None:
    words = [(one.method, one.bits or one.sparsity, one.allocation) for one in PAPER]
    assert words == [("gptq", 3, "uniform"), *(("wanda", 0.5, a) for a in ("uniform", "early-sparser", "late-sparser"))]


def test_what_was_not_tried_is_not_found(found: dlens.Robustness) -> None:
    with pytest.raises(KeyError, match=r"no cell of 'ar' with .* and seed 7; expected one of the models"):
        found.cell("ar", RECIPES[0], 7)
    with pytest.raises(KeyError, match="no cell of 'gpt'"):
        found.less("gpt", "ar", RECIPES[0])


def test_what_cannot_be_asked_is_refused_before_compute(ar: dlens.Model) -> None:
    for arguments, came in (
        ({"models": "trio/ar"}, "models='trio/ar'"),
        ({"models": []}, "models=[]"),
        ({"models": [ar, ar]}, "models of the names trio/ar, trio/ar"),
        ({"recipes": ["gptq"]}, "recipe 'gptq'"),
        ({"recipes": []}, "0 recipes and 1 seeds"),
        ({"seeds": ()}, "0 seeds"),
        ({"seeds": [-1]}, "seed=-1"),
        ({"n": 1}, "n=1"),
        ({"recipes": [Recipe(bits=3, group=7)]}, "group=7"),
        ({"calibration": [[5]]}, "calibration text of 1 token"),
        ({"batch_size": 0}, "batch_size=0"),
    ):
        with unchecked(), refused(ar, ValueError, came):
            dlens.robustness(**{"models": [ar], "n": 2} | arguments)


def test_workers_find_the_same(ar: dlens.Model, tmp_path: Path) -> None:
    recipes = [dlens.Recipe(method="rtn", bits=bits) for bits in (8, 2)]
    asked = {"recipes": recipes, "n": 2, "max_new_tokens": 2, "texts": ["Once upon a time", "The dog ran away"]}
    alone = dlens.robustness([shallow(ar, 2)], **asked, progress=False)
    together = dlens.robustness([shallow(ar, 2)], **asked, workers=0, out=tmp_path, progress=False)
    assert together.table() == alone.table()
    assert [cell.compression.treated for cell in together.cells] == [cell.compression.treated for cell in alone.cells]
    assert [cell.kept.after.texts for cell in together.cells] == [cell.kept.after.texts for cell in alone.cells]
    # The model as it is counts once.
    assert len(list((tmp_path / "results").iterdir())) == 3
