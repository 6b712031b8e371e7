"""Pictures of the widgets for the docs, one of them moving: `python -m tests.screenshots`, in the tests' Chromium."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

import dlens
import dlens.widgets
from tests.browser import FLAGS, Shown, browser_path

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
PROMPT = "Once upon a time there was a little fox"
WIDTH = 860


def denoising() -> Any:
    """A run beside the same run without two blocks, halfway."""
    trace = dlens.trace("trio/diffusion").measure(dlens.TopTokens(k=4))
    runs = [each.generate(PROMPT, 32, seed=0) for each in (trace, trace.skip([5, 9]))]
    widget = dlens.widgets.Denoising(*runs)
    widget.step, widget.position = 20, int(runs[0].is_prompt.sum()) + 4
    return widget


def collapse() -> Any:
    """The layers of the diffusion model, and its largest channel at a layer in the middle."""
    widget = dlens.widgets.LayerCollapse("trio/diffusion", prompt=PROMPT)
    widget.layer, widget.layer_b = widget.layers // 2, widget.layers // 2 + 2
    return widget


def recency() -> Any:
    """The three models of the trio on the same axes."""
    names = ("trio/ar", "trio/diffusion", "trio/ar-init")
    return dlens.widgets.TokenRecency({name: name for name in names}, prompt=PROMPT)


def heads() -> Any:
    """The heads of the diffusion model halfway through a run, one of them off."""
    widget = dlens.widgets.Heads("trio/diffusion", prompt=PROMPT, max_new_tokens=16)
    widget.layer, widget.head, widget.step = 3, 0, widget.steps[4]
    widget.off = [[5, 1]]
    widget.wait()
    return widget


def planner() -> Any:
    """Plans of whole blocks, of halves of them and of a third of decoding, measured."""
    widget = dlens.widgets.SkipPlanner("trio/diffusion", "trio-math", n=8)
    widget.wait()
    for plan, part, steps in (([5], "block", None), ([5, 9], "attn", None), ([5, 9], "block", "early")):
        with widget.hold_trait_notifications():
            widget.plan, widget.part, widget.steps = plan, part, steps
        widget.wait()
    widget.part, widget.steps = "block", None
    widget.wait()
    return widget


def run() -> Any:
    """A run with all that the model thought of at its last layer."""
    trace = dlens.trace("trio/diffusion").measure(dlens.TopTokens(k=4, layers=range(0, 16, 3)))
    return dlens.widgets.Denoising(trace.generate(PROMPT, 32, seed=0))


WIDGETS: dict[str, tuple[Callable[[], Any], str]] = {
    "denoising": (denoising, "light"),
    "layer-collapse": (collapse, "light"),
    "token-recency": (recency, "dark"),
    "heads": (heads, "light"),
    "skip-planner": (planner, "light"),
}


def film(browser: Any, widget: Any, path: Path, width: int = 720, milliseconds: int = 160) -> None:
    """Write a run as a moving picture: the tokens before each step, and the finished text a while longer.

    Args:
        browser: Chromium.
        widget: a Denoising.
        path: where; a folder that is not there is made.
        width: of the page, in pixels.
        milliseconds: that each step is shown.
    """
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="light")
    shown, frames = Shown(page, widget), []
    for step in range(widget.last + 1):
        shown.set(step=step)
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        frames.append(Image.open(BytesIO(page.locator(".dlens .side").first.screenshot())).convert("RGB"))
    page.close()
    path.parent.mkdir(parents=True, exist_ok=True)
    # The canvas grows as words replace masks.
    tall = max(frame.height for frame in frames)
    same = [_padded(frame, tall) for frame in frames]
    times = [milliseconds] * (len(same) - 1) + [3000]
    same[0].save(path, "WEBP", save_all=True, append_images=same[1:], duration=times, loop=0, lossless=True, method=6)


def _padded(frame: Image.Image, height: int) -> Image.Image:
    whole = Image.new("RGB", (frame.width, height), "white")
    whole.paste(frame)
    return whole


def take(browser: Any, widget: Any, path: Path, scheme: str, width: int = WIDTH) -> None:
    """Write the picture of a widget.

    Args:
        browser: Chromium.
        widget: a widget.
        path: where; a folder that is not there is made.
        scheme: "light" or "dark".
        width: of the page, in pixels.
    """
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    shown = Shown(page, widget)
    shown.push()
    # Two frames: one for the sizes, one for the canvases that follow them.
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    path.parent.mkdir(parents=True, exist_ok=True)
    taken = page.locator(".dlens").screenshot()
    page.close()
    # Without loss, as colours are data here, and in a third of the bytes of PNG.
    Image.open(BytesIO(taken)).convert("RGB").save(path, "WEBP", lossless=True, method=6)


def main() -> None:
    """Write every picture."""
    from playwright.sync_api import sync_playwright

    path = browser_path()
    assert path is not None, "no Chromium; apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        for name, (make, scheme) in WIDGETS.items():
            picture = FIGURES / f"widget-{name}.webp"
            take(browser, make(), picture, scheme)
            print(picture, f"{picture.stat().st_size / 1000:.0f} kB")
        film(browser, run(), FIGURES / "denoising.webp")
        run().save_html(FIGURES / "denoising.html")
        browser.close()


if __name__ == "__main__":
    main()
