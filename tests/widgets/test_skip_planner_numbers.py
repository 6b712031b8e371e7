import threading
from math import isnan

import pytest

import dlens
from dlens.findings.scores.canvases import text_canvases
from dlens.findings.scores.loss import text_loss
from dlens.tasks import get
from dlens.widgets.skip_planner_numbers import Estimate, Planner, line_of_python, scored


def test_accuracy_and_its_intervals() -> None:
    found = scored(Estimate((3,)), [True, True, False, True], [True, False, False, True])
    assert (found.baseline, found.accuracy, found.n) == (0.75, 0.5, 4)
    assert found.retained == pytest.approx(2 / 3)
    # Wilson's interval of 2 of 4.
    assert (found.low, found.high) == pytest.approx((0.1500, 0.8500), abs=1e-4)
    # Of four problems nearly everything may be kept or lost; a plan may also solve more than the model as it is.
    assert 0 < found.retained_low < 0.2 < found.retained < 1 < found.retained_high
    none = scored(Estimate((3,)), [False, False], [False, False])
    assert none.retained != none.retained and none.low == 0 and none.high > 0.5


def test_the_line_of_python_runs(ar: dlens.Model) -> None:
    line = line_of_python("trio/ar", [2, 4])
    assert str(eval(line)) == str(dlens.trace(ar).skip([2, 4]))
    assert eval(line_of_python('a"b\\', []).removeprefix("dlens.trace")) == 'a"b\\'


def test_a_plan_is_known_piece_by_piece(ar: dlens.Model) -> None:
    chain, texts, task = dlens.trace(ar), ["Once upon a time", "The dog ran"], get("trio-math")
    planner = Planner(chain, task, task.problems(2, 0), text_canvases(ar, texts, 1, 0), batch_size=1, max_new_tokens=2)
    found = list(planner.estimates([3, 5], threading.Event()))
    # FLOPs, two texts, two problems.
    assert [share for share, _ in found] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1])
    assert [isnan(own.loss) for _, own in found] == [True, True, False, False, False]
    assert [own.n for _, own in found] == [0, 0, 0, 1, 2]
    last = found[-1][1]
    assert last.plan == (3, 5) and 0.1 < last.flops_saved < 0.125
    assert last.baseline_loss == pytest.approx(text_loss(chain, texts).value)
    assert last.loss == pytest.approx(text_loss(chain.skip([3, 5]), texts).value)
