import threading
from math import isnan
from types import SimpleNamespace

import pytest

import dlens
from dlens.findings.scores.canvases import text_canvases
from dlens.findings.scores.loss import text_loss
from dlens.tasks import get
from dlens.widgets.skip_planner_numbers import Estimate, Plan, Planner, scored


def test_accuracy_and_its_intervals() -> None:
    found = scored(Estimate(Plan((3,))), [True, True, False, True], [True, False, False, True])
    assert (found.baseline, found.accuracy, found.n) == (0.75, 0.5, 4)
    assert found.retained == pytest.approx(2 / 3)
    # Wilson's interval of 2 of 4.
    assert (found.low, found.high) == pytest.approx((0.1500, 0.8500), abs=1e-4)
    # Of four problems nearly everything may be kept or lost; a plan may also solve more than the model as it is.
    assert 0 < found.retained_low < 0.2 < found.retained < 1 < found.retained_high
    none = scored(Estimate(Plan((3,))), [False, False], [False, False])
    assert none.retained != none.retained and none.low == 0 and none.high > 0.5


def test_the_line_of_python_runs(ar: dlens.Model) -> None:
    # As dlens would, without loading the model anew.
    loaded = {"dlens": SimpleNamespace(trace=lambda name: dlens.trace({"trio/ar": ar}[name]))}
    for plan in (Plan(), Plan((2, 4)), Plan((2, 4), "mlp", "late")):
        assert str(eval(plan.line("trio/ar"), loaded)) == str(plan.of(dlens.trace(ar)))
    assert str(Plan((2, 4), "mlp", "late").of(dlens.trace(ar))).endswith("skip the mlp of layers 2, 4 at steps late")
    assert eval(Plan().line('a"b\\').removeprefix("dlens.trace")) == 'a"b\\'


def test_a_plan_of_no_layers_is_the_same_whatever_else_it_says() -> None:
    assert Plan((), "mlp", "late") == Plan() != Plan((3,)) != Plan((3,), "mlp")
    assert [Plan().words, Plan((3, 5), "mlp", "late").words] == ["none", "3, 5, mlp, late"]


def test_a_plan_is_known_piece_by_piece(ar: dlens.Model) -> None:
    chain, texts, task = dlens.trace(ar), ["Once upon a time", "The dog ran"], get("trio-math")
    planner = Planner(chain, task, task.problems(2, 0), text_canvases(ar, texts, 1, 0), batch_size=1, max_new_tokens=2)
    found = list(planner.estimates(Plan((3, 5)), threading.Event()))
    # FLOPs, two texts, two problems.
    assert [share for share, _ in found] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1])
    assert [isnan(own.loss) for _, own in found] == [True, True, False, False, False]
    assert [own.n for _, own in found] == [0, 0, 0, 1, 2]
    last = found[-1][1]
    assert last.plan == Plan((3, 5)) and 0.1 < last.flops_saved < 0.125
    assert last.baseline_loss == pytest.approx(text_loss(chain, texts).value)
    assert last.loss == pytest.approx(text_loss(chain.skip([3, 5]), texts).value)


def test_a_plan_in_a_third_has_no_loss_and_the_flops_of_decoding(diffusion: dlens.Model) -> None:
    chain, task = dlens.trace(diffusion), get("trio-math")
    canvases = text_canvases(diffusion, ["Once upon a time"], 1, 0)
    planner = Planner(chain, task, task.problems(2, 0), canvases, batch_size=1, max_new_tokens=3)
    plans = (Plan((3, 5)), Plan((3, 5), steps="late"))
    whole, third = ([own for _, own in planner.estimates(plan, threading.Event())] for plan in plans)
    assert [own.n for own in third] == [1, 2] and isnan(third[-1].loss) and isnan(third[-1].baseline_loss)
    # Of the first problem: one step of three, all of one size, longer than the text of the forward.
    record = chain.skip([3, 5], steps="late").generate(planner.problems[0].prompt, 3)
    assert third[-1].flops_saved == record.saved_flops / (record.flops + record.saved_flops)
    assert third[-1].flops_saved == pytest.approx(whole[-1].flops_saved / 3, rel=0.1)


@pytest.mark.parametrize("tokens, words", [(2, "2 steps have no thirds"), (3, "")])
def test_thirds_need_three_steps(diffusion: dlens.Model, tokens: int, words: str) -> None:
    task = get("trio-math")
    canvases = text_canvases(diffusion, ["Once upon a time"], 1, 0)
    assert Planner(dlens.trace(diffusion), task, task.problems(1, 0), canvases, 1, tokens).no_thirds == words
