from typing import Any

import pytest
import torch

from dlens.widgets import Denoising
from tests.browser import Shown
from tests.unchecked import unchecked
from tests.widgets.records import MASK, WILD, WINDOWS, check_escaped, check_no_markup, denoised, record, top_tokens


def measured(steps: int = 3, **fields: Any) -> Any:
    return denoised(steps, measures={"top_tokens": top_tokens(steps, 2, steps + 1)}, **fields)


def test_it_opens_at_the_finished_text_in_colours(page: Any) -> None:
    widget = Denoising(measured())
    assert widget.step == widget.last == 3 and "before step 3 of 3" in widget.html()
    Shown(page, widget)
    page.get_by_text("finished, 3 steps").wait_for()
    assert page.locator(".tokens").inner_text() == "Once upon a fox"
    backs = page.locator(".tokens span").evaluate_all("spans => spans.map((s) => s.style.background)")
    assert backs[0] == "" and len({*backs[1:]}) == 3 and "" not in backs[1:]
    # Nothing is scrolled before the reader scrolls it.
    assert page.locator(".scroll, .tokens").evaluate_all("all => all.every((each) => each.scrollTop === 0)")


def test_the_finished_text_has_the_thoughts_of_the_step_that_committed_it() -> None:
    widget = Denoising(measured())
    widget.position = 2
    assert [side["step"] for side in widget.detail["sides"]] == [1]
    widget.position = 0
    assert [side["step"] for side in widget.detail["sides"]] == [2]


def test_a_button_leads_to_the_step_that_committed_a_token(page: Any) -> None:
    shown = Shown(page, Denoising(measured()))
    page.locator("[data-position='3']").click()
    page.get_by_role("button", name="Go to step 2, which committed it").click()
    page.get_by_text("before 2 of 3").wait_for()
    assert shown.widget.step == 2 and page.get_by_role("button", name="Go to step").count() == 0


def test_the_map_of_layers_follows_the_step(page: Any) -> None:
    shown = Shown(page, Denoising(measured()))
    page.get_by_role("heading", name="First choice of every layer (logit lens) at step 2").wait_for()
    page.get_by_label("first choice of every layer at every position").focus()
    page.keyboard.press("ArrowUp")
    page.get_by_text('layer 0, position 1: " upon" 50.0 %').wait_for()
    assert (shown.widget.layer, shown.widget.lens["layers"]) == (0, [0, 1])
    shown.set(step=1)
    page.get_by_role("heading", name="(logit lens) at step 1").wait_for()


def test_without_top_tokens_there_is_no_map_of_layers() -> None:
    assert Denoising(denoised()).lens == {}


def test_state_stays_inside_the_run() -> None:
    widget = Denoising(measured())
    widget.step, widget.position, widget.layer, widget.row = 99, -3, 40, 5
    assert (widget.step, widget.position, widget.layer, widget.row) == (3, 0, 1, 0)
    assert widget.detail["layer"] == 1
    for name, shown in (("step", 3), ("position", 3), ("layer", 1), ("row", 0)):
        setattr(widget, name, 99)
        assert (getattr(widget, name), widget.message) == (shown, f"There is no {name} 99: {name} {shown} is shown.")
        assert widget.message in widget.html()
    widget.layer = 0
    assert widget.message == ""


def test_a_corrected_row_is_said_though_it_sets_the_position() -> None:
    widget = Denoising(denoised(3, final=torch.tensor([[0, 1, 2, 3], [0, 2, 3, 1]])))
    widget.position = 0
    widget.row = 5
    assert (widget.row, widget.position) == (1, 1)
    assert widget.message == "There is no row 5: row 1 is shown."


def test_a_correction_is_on_the_page(page: Any) -> None:
    shown = Shown(page, Denoising(measured()))
    shown.set(step=9)
    page.get_by_text("There is no step 9: step 3 is shown.").wait_for()


@pytest.mark.parametrize(
    "given, words",
    [
        (record(torch.tensor([[0, 1]])), "use .generate"),
        (record(torch.zeros(1, 0, dtype=torch.long), torch.zeros(1, 1, 0, dtype=torch.long)), "max_new_tokens"),
    ],
)
def test_records_without_a_canvas_are_refused(given: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Denoising(given)


def test_other_bad_input_is_refused() -> None:
    with unchecked(), pytest.raises(TypeError, match="dlens.load_record"):
        Denoising("text")  # pyright: ignore
    with pytest.raises(IndexError, match="row 1 of 1"):
        Denoising(denoised(), row=1)
    with pytest.raises(ValueError, match="same prompts"):
        Denoising(denoised(3), denoised(4))


def test_the_fallback_shows_the_state_and_escapes_tokens() -> None:
    given = denoised(2, measures={"t": top_tokens(2, 2, 3)}, final=torch.tensor([[0, 5, 6]]))
    widget = Denoising(given)
    widget.step = 2
    html = widget._repr_mimebundle_()[0]["text/html"]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html and "<script" not in html and "<b>bold" not in html
    assert "before step 2 of 2" in html and "0.75" in html


def test_the_fallback_dims_what_a_step_does_not_compute() -> None:
    widget = Denoising(denoised(3, computed=WINDOWS))
    assert widget.html().count("opacity:0.4") == 0
    widget.step = 2
    assert widget.html().count("opacity:0.4") == 2


def test_the_fallback_escapes_the_model_and_the_tokens() -> None:
    data = top_tokens(2, 2, 3)
    data["token"][:] = 8
    widget = Denoising(denoised(2, final=torch.tensor([[0, 8, 8]]), model=f"model {WILD}", measures={"t": data}))
    widget.step = 2
    check_escaped(widget.html(), "model ", "word", '<td style="padding-right:1em">word')


def test_clicks_and_keys_reach_python_and_the_picture(page: Any) -> None:
    plan = ({"op": "skip", "words": "skip layers 1"},)
    shown = Shown(page, Denoising(measured(), denoised(3, plan=plan, computed=WINDOWS)))
    widget, tokens = shown.widget, page.locator(".tokens").first
    shown.set(step=0)
    page.get_by_text("before 0 of 3").wait_for()
    assert tokens.inner_text().replace("\n", "") == "Once░░░"
    slider = page.locator("input[type=range]")
    slider.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelector('.tokens').innerText.includes(' a')")
    assert widget.step == 2
    dim = page.locator(".tokens .still").evaluate_all("spans => spans.map((s) => s.ariaLabel)")
    assert dim == ['position 0: "Once", prompt, not computed', 'position 1: " upon", committed at step 0, not computed']
    page.get_by_text("33 % masked; 0 of 4 positions differ; this step computes 2 of 4 positions").wait_for()
    assert page.locator(".legend .still").count() == 1
    page.locator(".tokens").first.locator("[data-position='3']").click()
    page.get_by_role("heading", name="position 3, predicted at step 2").first.wait_for()
    assert widget.position == 3
    tokens.focus()
    page.keyboard.press("ArrowLeft")
    page.get_by_role("heading", name="position 2, predicted").first.wait_for()
    assert widget.position == 2
    page.get_by_role("button", name="show layer 0").first.click()
    page.get_by_text("50.0 %").first.wait_for()
    assert widget.layer == 0
    page.get_by_label("Colour by").select_option("confidence")
    page.get_by_text("100 %", exact=True).wait_for()
    assert widget.colour == "confidence"
    backs = "spans => spans.map((span) => span.style.background)"
    assert len({*tokens.locator("span").evaluate_all(backs)}) == 2
    page.get_by_label("Colour by").select_option("entropy")
    page.get_by_text("2 nats", exact=True).wait_for()
    page.wait_for_function("document.querySelector('[data-position=\\'1\\']').style.background === 'rgb(253, 234, 69)'")
    # 2 / (1 + step) nats: the brightest, half as bright, and a mask.
    assert tokens.locator("span").evaluate_all(backs)[1:] == ["rgb(253, 234, 69)", "rgb(140, 134, 120)", ""]
    assert widget.colour == "entropy"
    page.get_by_role("heading", name="made up: skip layers 1", exact=True).wait_for()
    page.get_by_text("measure it: .measure(dlens.TopTokens())").wait_for()


def test_python_drives_the_picture_and_play_runs_to_the_end(page: Any) -> None:
    shown = Shown(page, Denoising(measured()))
    shown.set(step=1)
    page.wait_for_function("document.querySelector('.tokens').innerText.includes('upon')")
    page.get_by_role("button", name="Play").click()
    page.get_by_text("finished, 3 steps").wait_for()
    assert shown.widget.step == 3


def test_play_and_pause_by_key(page: Any) -> None:
    shown = Shown(page, Denoising(denoised(200)))
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.get_by_role("button", name="Pause").wait_for()
    page.wait_for_function("parseInt(document.querySelector('output').textContent.split(' ')[1]) > 2")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Play").wait_for()
    assert 2 < shown.widget.step < 200


def test_the_lens_begins_at_the_chosen_layer(page: Any) -> None:
    given = denoised(2, n_layers=32, measures={"t": top_tokens(2, 32, 3)})
    Shown(page, Denoising(given))
    lens, chosen = (page.locator(each).bounding_box() for each in (".lens", ".lens [aria-pressed='true']"))
    assert lens["y"] <= chosen["y"] and chosen["y"] + chosen["height"] <= lens["y"] + lens["height"]
    page.get_by_role("button", name="show layer 30").focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="layer 30").wait_for()
    assert page.evaluate("document.activeElement.textContent") == "30"


def test_a_click_on_the_map_sets_step_and_position(page: Any) -> None:
    shown = Shown(page, Denoising(measured()))
    shown.set(step=0)
    canvas = page.get_by_label("which positions are decoded")
    canvas.focus()
    page.keyboard.press("ArrowDown")
    words = "position 1 before step 1: decoded at step 0; the likeliest token has 75 %, entropy 1.00 nats"
    page.get_by_text(words).wait_for()
    page.keyboard.press("ArrowRight")
    page.get_by_text("position 2 before step 1: masked").wait_for()
    assert (shown.widget.step, shown.widget.position) == (1, 2)


def test_differences_between_two_runs_are_marked_and_counted(page: Any) -> None:
    other = denoised(3)
    other.canvas[2, 0, 1], other.tokens[0, 1] = 3, 3  # pyright: ignore
    shown = Shown(page, Denoising(denoised(3), other))
    shown.set(step=0)
    page.get_by_text("before 0 of 3").wait_for()
    choices = page.get_by_label("Colour by").locator("option:disabled").all_inner_texts()
    assert choices == ["probability (not measured)", "entropy (not measured)"]
    assert page.locator(".tokens .unlike").count() == 0
    shown.set(step=3)
    page.get_by_text("0 % masked; 1 of 4 positions differ").first.wait_for()
    assert page.locator(".tokens .unlike").evaluate_all("spans => spans.map(s => s.dataset.position)") == ["1", "1"]


def test_tokens_are_text_and_never_markup(page: Any) -> None:
    given = denoised(3, final=torch.tensor([[0, 5, 6, 7]]), measures={"t": top_tokens(3, 2, 4)})
    shown = Shown(page, Denoising(given))
    shown.set(step=3, position=3)
    page.wait_for_function("document.querySelector('.tokens').innerText.includes('<b>bold</b>')")
    page.wait_for_function("document.querySelector('.tokens').innerText.includes('onerror')")
    check_no_markup(page)


def test_ten_thousand_tokens_come_in_pages(page: Any) -> None:
    final = torch.ones(1, 10_000, dtype=torch.long)
    canvas = final.repeat(2, 1, 1)
    canvas[0, :, 5_000:] = MASK
    shown = Shown(page, Denoising(record(final, canvas)))
    page.get_by_text("positions 4608 to 5119 of 10000").wait_for()
    assert page.locator("[data-position]").count() == 512
    page.get_by_role("button", name="Later").click()
    page.get_by_text("positions 5120 to 5631 of 10000").wait_for()
    page.get_by_text("Each column holds 10 positions").wait_for()
    assert shown.widget.first == 5120


def test_one_step_and_one_layer(page: Any) -> None:
    shown = Shown(page, Denoising(denoised(1, n_layers=1)))
    shown.set(step=1)
    page.get_by_text("finished, 1 steps").wait_for()


def test_ids_of_any_size_take_no_memory_of_their_size() -> None:
    widget = Denoising(denoised(3, final=torch.tensor([[0, 1, 2, 10**12]])))
    assert f"[{10**12}]" in widget.pieces and len(widget.pieces) == 5
