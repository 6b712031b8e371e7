"""The keyboard reaches everything in the order in which it is seen, focus is in sight, and axe finds no fault."""

from dataclasses import replace
from typing import Any

import pytest

import dlens
from dlens.widgets import Denoising, Heads, LayerCollapse, SkipPlanner, TokenRecency
from tests.browser import Shown, faults
from tests.widgets.records import denoised, layered, top_tokens, turning

FOCUSED = """() => {
    const node = document.activeElement;
    if (node === document.body) return null;
    const name = node.getAttribute("aria-label") ?? node.labels?.[0]?.textContent ?? node.textContent;
    const { outlineStyle, outlineWidth } = getComputedStyle(node);
    return [name.trim(), outlineStyle !== "none" && parseFloat(outlineWidth) >= 2];
}"""
STOPS = {
    "denoising": """▶ Play · Step · Colour by · made up: as it is: tokens at the end ·
        which positions are decoded at each step; arrow keys move the step and the position ·
        Go to step 0, which committed it · show layer 1 · show layer 0 ·
        first choice of every layer at every position; arrow keys move the layer and the position""",
    "collapse": """Step · Similarity · Channel · Layer · leave out channel 3 · Show made up: as it is ·
        similarity of every two layers; arrow keys move to another pair · The numbers ·
        share of the channel by layer and token; arrow keys move · The numbers""",
    "recency": """Layer · The numbers · The numbers · Tokens of · Step ·
        similarity token by token, made up: as it is; arrow keys move to another pair ·
        similarity token by token, made up: as it is; arrow keys move to another pair""",
    "heads": """Step · Ablate this head · patterns of every head; arrow keys move to another head ·
        pattern of one head; arrow keys move to another pair of tokens""",
    "planner": """block 0, cosine 0.5 · Skip the most redundant · how many blocks · Keep all · Part · Steps ·
        measure at once · ▶ Measure · the plan as Python · Copy""",
}


def widget(name: str, ar: dlens.Model) -> Any:
    """A small one of each."""
    if name == "denoising":
        return Denoising(denoised(2, measures={"t": top_tokens(2, 2, 3)}))
    if name == "collapse":
        return LayerCollapse(layered(), layered())
    if name == "recency":
        return TokenRecency([turning(), turning()])
    if name == "heads":
        patterns = dlens.trace(ar).capture("pattern").forward("Once upon a time")
        two = patterns.captured["pattern"].values[None].repeat(2, 1, 1, 1, 1, 1)
        dims = ("step", *patterns.captured["pattern"].dims)
        kept = replace(patterns.captured["pattern"], values=two, dims=dims, steps=(0, 1))
        return Heads(replace(patterns, captured={"pattern": kept}))
    made = SkipPlanner(ar, n=2, texts=["Once upon a time"], max_new_tokens=2, live=False)
    made.wait(60)
    made.redundancy = [0.5] * made.layers
    return made


@pytest.mark.parametrize("name", STOPS)
def test_tab_goes_through_everything_in_order(name: str, page: Any, ar: dlens.Model) -> None:
    Shown(page, widget(name, ar))
    found = []
    for _ in range(40):
        page.keyboard.press("Tab")
        stop = page.evaluate(FOCUSED)
        if stop is None:
            break
        found.append(stop)
    expected = [" ".join(each.split()) for each in STOPS[name].split("·")]
    # Which tokens have the largest share is another test's.
    assert [each for each, _ in found if not each.startswith("go to position")] == expected
    assert all(seen for _, seen in found), found
    assert faults(page, ".dlens") == []
