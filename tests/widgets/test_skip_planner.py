import threading
from typing import Any

import pytest
import torch
import traitlets

import dlens
from dlens.errors import Cancelled
from dlens.findings.scores.loss import text_loss
from dlens.tasks import get
from dlens.widgets import SkipPlanner
from dlens.widgets.skip_planner_numbers import Plan
from tests.browser import Shown
from tests.models.conftest import build
from tests.widgets.records import WILD, check_escaped, check_no_markup

TEXTS = ["Once upon a time there was a fox", "def f(x):\n    return x"]


def planner(model: Any, **given: Any) -> SkipPlanner:
    """A planner with little to do."""
    return SkipPlanner(model, **({"n": 3, "texts": TEXTS, "batch_size": 2, "max_new_tokens": 2, "live": False} | given))


@pytest.fixture(scope="module")
def profiled(ar: dlens.Model) -> Any:
    return dlens.profile(ar, TEXTS, measures=[dlens.Cosine()])


def test_a_plan_is_measured_in_the_background(ar: dlens.Model, profiled: Any) -> None:
    widget = planner(ar, profile=profiled, live=True)
    assert widget.wait(60) and widget.result["plan"] == [] and widget.result["flops_saved"] == 0
    widget.plan = [5, -1]
    assert widget.plan == [5, 15] and widget.code == 'dlens.trace("trio/ar").skip([5, 15])'
    assert widget.wait(60) and not widget.running and widget.status == "done" and widget.progress == 1
    found = widget.result
    chain = dlens.trace(ar)
    assert found["loss"] == pytest.approx(text_loss(chain.skip([5, 15]), TEXTS).value)
    assert found["baseline_loss"] == pytest.approx(text_loss(chain, TEXTS).value)
    record = chain.skip([5, 15]).forward(TEXTS[0])
    assert found["flops_saved"] == pytest.approx(record.saved_flops / (record.flops + record.saved_flops))
    assert found["n"] == 3 and [each["plan"] for each in widget.history] == [[], [5, 15]]
    assert [op.layers for op in widget.trace.ops] == [(5, 15)]  # pyright: ignore
    widget.plan = []
    assert widget.result == widget.history[0] and not widget.running


def test_redundancy_is_the_cosine_of_a_profile(ar: dlens.Model, profiled: Any) -> None:
    assert planner(ar, profile=profiled).redundancy == profiled.pooled("cosine", "cosine").values.tolist()
    widget = planner(ar)
    assert widget.wait(60) and widget.redundancy == pytest.approx(planner(ar, profile=profiled).redundancy)
    assert widget.result == {} and not widget.running


def test_work_stops_between_steps_and_the_model_is_free(ar: dlens.Model, profiled: Any) -> None:
    widget = planner(ar, profile=profiled, n=64, max_new_tokens=64, batch_size=1)
    stop = threading.Event()
    work = widget._planner.estimates(Plan((3,)), stop)
    next(work)
    stop.set()
    with pytest.raises(Cancelled):
        next(work)
    widget.running = True
    assert widget._job.wait(0.2) is False
    record = dlens.trace(ar).forward(TEXTS[0])
    assert record.n_steps == 1
    widget.running = False
    assert widget.wait(30) and widget.status == "stopped" and not widget.running
    assert torch.equal(dlens.trace(ar).capture("logits").forward(TEXTS[0])["logits"], ar.module(record.tokens).logits)


def test_a_new_plan_takes_the_place_of_the_old(ar: dlens.Model, profiled: Any) -> None:
    widget = planner(ar, profile=profiled, live=True, n=4)
    for plan in ([1], [1, 2], [7]):
        widget.plan = plan
    assert widget.wait(60) and widget.result["plan"] == [7] and not widget.running and widget.status == "done"


def test_an_error_is_told(ar: dlens.Model, profiled: Any) -> None:
    class Broken(type(get("trio-math"))):  # pyright: ignore
        def score(self, problem: Any, continuation: str) -> bool:
            raise RuntimeError("no such thing")

    widget = planner(ar, task=Broken(), profile=profiled)
    widget.running = True
    assert widget.wait(60) and widget.status == "RuntimeError: no such thing" and not widget.running


def test_bad_input_is_refused(ar: dlens.Model, diffusion: dlens.Model, profiled: Any) -> None:
    with pytest.raises(ValueError, match="trace that has operations"):
        SkipPlanner(dlens.trace(ar).skip([3]))
    with pytest.raises(ValueError, match="unknown|expected one of"):
        SkipPlanner(ar, "no-such-task")
    with pytest.raises(ValueError, match="expected one of trio/ar with 16 layers and cosine"):
        planner(ar, profile=dlens.profile(ar, TEXTS[:1], measures=[dlens.Outliers()]))
    with pytest.raises(traitlets.TraitError, match="layer 16 of 16"):
        planner(ar, profile=profiled).plan = [16]
    with pytest.raises(traitlets.TraitError, match="'early' of trio/ar; expected None, as an autoregressive answer"):
        planner(ar, profile=profiled).steps = "early"
    with pytest.raises(traitlets.TraitError, match="expected any of"):
        planner(ar, profile=profiled).part = "half"


@pytest.mark.parametrize(
    "given, words",
    [({"n": 0}, "at least 1 problem"), ({"texts": []}, "at least one"), ({"texts": ["a"]}, "at least two tokens")],
)
def test_input_with_nothing_to_measure_is_refused(
    ar: dlens.Model, profiled: Any, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        planner(ar, profile=profiled, **given)


def test_ten_thousand_tokens_are_too_many_and_told(ar: dlens.Model, profiled: Any) -> None:
    widget = planner(ar, profile=profiled, texts=[" a" * 10_000])
    widget.running = True
    assert widget.wait(60) and not widget.running
    assert "expected at most 512, the context of trio/ar; shorten the prompt" in widget.status


def test_the_fallback_has_the_strip_and_the_line(ar: dlens.Model, profiled: Any) -> None:
    widget = planner(ar, profile=profiled)
    widget.plan = [5]
    html = widget._repr_mimebundle_()[0]["text/html"]
    assert html.count("line-through") == 1 and "skip([5])" in html


def test_the_fallback_escapes_the_model_and_the_task(ar: dlens.Model, profiled: Any) -> None:
    widget = planner(ar, profile=profiled)
    widget.name, widget.task, widget.code = f"model {WILD}", f"task {WILD}", f"code {WILD}"
    check_escaped(widget.html(), "model ", "task ", "code ")


def test_clicks_and_keys_reach_python_and_the_picture(page: Any, ar: dlens.Model, profiled: Any) -> None:
    shown = Shown(page, planner(ar, profile=profiled))
    widget = shown.widget
    block = page.locator("[data-layer='3']")
    block.click()
    page.get_by_role("textbox", name="the plan as Python").wait_for()
    assert widget.plan == [3] and block.get_attribute("aria-pressed") == "true"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    page.wait_for_function("document.querySelector('.code').value.endsWith('.skip([3, 5])')")
    assert widget.plan == [3, 5]
    page.get_by_role("button", name="Measure").click()
    page.get_by_role("button", name="Stop").wait_for()
    assert widget.wait(60)
    shown.push()
    page.get_by_text(f"{100 * widget.result['flops_saved']:.1f} %").first.wait_for()
    page.get_by_role("button", name="Keep all").click()
    page.wait_for_function("document.querySelector('.code').value.endsWith('ar\")')")
    assert widget.plan == [] and widget.result == {}
    page.get_by_role("button", name="take plan 3, 5").click()
    page.get_by_text("3 of 3 problems").wait_for()
    assert widget.plan == [3, 5]
    page.get_by_label("how many blocks").fill("3")
    page.get_by_role("button", name="Skip the most redundant").click()
    page.wait_for_function("document.querySelectorAll('.strip .skipped').length === 3")
    scores = profiled.pooled("cosine", "cosine").values
    assert widget.plan == sorted(scores.argsort()[-3:].tolist())


def test_stop_on_the_page_stops_the_work(page: Any, ar: dlens.Model, profiled: Any) -> None:
    shown = Shown(page, planner(ar, profile=profiled, n=64, max_new_tokens=64, batch_size=1))
    page.get_by_role("button", name="Measure").click()
    page.get_by_role("button", name="Stop").click()
    assert shown.widget.wait(30)
    shown.push()
    page.get_by_text("stopped").wait_for()


def test_names_are_text(page: Any, ar: dlens.Model, profiled: Any) -> None:
    shown = Shown(page, planner(ar, profile=profiled))
    # As a folder may be called, and an error may say.
    shown.set(status="<b>no</b>", code="<img src=x onerror='window.hit = true'>")
    page.get_by_text("<b>no</b>").wait_for()
    check_no_markup(page)


def test_one_layer(page: Any, ar: dlens.Model) -> None:
    module = build("llama", num_hidden_layers=1, vocab_size=ar.vocab_size)
    widget = planner(dlens.load(module, tokenizer=ar.tokenizer), n=1, texts=["Once upon a time"])
    assert widget.wait(60)
    shown = Shown(page, widget)
    page.locator("[data-layer='0']").click()
    page.wait_for_function("document.querySelector('.code').value.endsWith('.skip([0])')")
    widget.running = True
    assert widget.wait(60) and widget.status == "done" and widget.result["flops_saved"] > 0
    shown.push()
    page.get_by_text("1 of 1 problems").first.wait_for()


def test_what_is_missing_says_why_and_plans_are_dots(page: Any, ar: dlens.Model, profiled: Any) -> None:
    widget = planner(ar, profile=profiled)
    shown = Shown(page, widget)
    assert page.get_by_text("not measured: press Measure").count() == 4
    found = {"flops_saved": 0.1, "baseline_loss": 2.0, "loss": 2.25, "baseline": 0.0, "accuracy": 0.0, "n": 3}
    found |= {"low": 0.0, "high": 0.5, "retained": None, "retained_low": None, "retained_high": None}
    found |= {"part": "block", "steps": None}
    shown.set(history=[found | {"plan": [2]}, found | {"plan": [5], "loss": 1.9}])
    shown.set(plan=[2])
    page.get_by_text("0 of 3 solved, 0 of 3 solved as it is; 3 of 3 problems").wait_for()
    page.get_by_text("nothing to keep: 0 of 3 solved as it is").wait_for()
    page.get_by_text("without 2: 10.0 % of FLOPs saved, loss +0.250 nats a token, 0 of 3 solved").wait_for()
    paper = page.get_by_label("FLOPs saved against the rise of the loss")
    box = paper.bounding_box()
    # The plan that saves as much at less loss is the lower dot.
    x = 64 + 10 / (10 * 1.12) * (box["width"] - 90)
    paper.click(position={"x": x, "y": 8 + (box["height"] - 54) * (0.25 + 0.042 + 0.1) / (0.35 * 1.24)})
    page.get_by_text("without 5: 10.0 % of FLOPs saved, loss −0.100").wait_for()
    assert widget.plan == [5]
    # Thirds are of decoding that comes to its end.
    page.get_by_text("No thirds here: an autoregressive answer may end before its late third comes.").wait_for()
    assert page.get_by_label("Steps").locator("option:disabled").count() == 3
    page.get_by_label("Part").select_option("attn")
    page.wait_for_function("document.querySelector('.code').value.endsWith('.skip([5], part=\"attn\")')")
    assert page.get_by_text("not measured: press Measure").count() == 4


def test_a_plan_in_a_third_says_why_it_has_no_loss(page: Any, diffusion: dlens.Model) -> None:
    widget = planner(diffusion, n=1, texts=TEXTS[:1], max_new_tokens=3)
    assert widget.wait(60)
    shown = Shown(page, widget)
    page.locator("[data-layer='3']").click()
    page.get_by_label("Steps").select_option("late")
    page.wait_for_function("document.querySelector('.code').value.endsWith('.skip([3], steps=\"late\")')")
    page.get_by_role("button", name="Measure").click()
    page.get_by_role("button", name="Stop").wait_for()
    assert widget.wait(60) and widget.status == "done" and widget.result["steps"] == "late"
    shown.push()
    page.get_by_text("counted on decoding the first problems").wait_for()
    page.get_by_text("none: it is that of a forward, which has one step").wait_for()
    assert page.get_by_label("FLOPs saved against").is_hidden()
    other = widget.result | {"plan": [5], "steps": None, "loss": 2.25, "baseline_loss": 2.0}
    shown.set(history=[*widget.history, other])
    page.get_by_text("A plan in a third of decoding has no loss, and no dot.").wait_for()
    page.get_by_role("button", name="take plan 3, late third").wait_for()
    page.get_by_role("cell", name="none in a third").wait_for()
    assert "none in a third" in widget.html() and "–" not in widget.html()
    page.get_by_role("button", name="Keep all").click()
    page.wait_for_function("document.querySelector('.code').value.endsWith('diffusion\")')")
    assert widget.result == {} and str(widget.trace) == str(dlens.trace(diffusion))
