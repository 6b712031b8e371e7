"""Records made by hand, so that every number of a widget is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlens.tracing.records.record import Record
from dlens.tracing.records.text import committed_at
from dlens.tracing.step.collect import Captured

MASK = 9
WILD = "<b>&\"'"
# Which of four positions three steps compute.
WINDOWS = torch.tensor([[[1, 1, 1, 1]], [[0, 1, 1, 0]], [[0, 0, 1, 1]]], dtype=torch.bool)
WORDS = {
    0: "Once",
    1: " upon",
    2: " a",
    3: " fox",
    4: "\n",
    5: "<b>bold</b>",
    6: "<script>alert(1)</script>",
    7: "<img src=x onerror='window.hit = true'>",
    8: f"word{WILD}",
    MASK: "<|mask|>",
}


def check_escaped(html: str, *words: str) -> None:
    """A fallback picture holds these words with `WILD` after them, as text; <b> is its heading's alone."""
    assert WILD not in html and html.count("<b>") == 1
    for each in words:
        assert any(f"{each}&lt;b&gt;&amp;{quotes}" in html for quotes in ("&#34;&#39;", "\"'")), each


def check_no_markup(page: Any) -> None:
    """No token became an element, and none acted."""
    assert page.locator(".dlens b, .dlens script, .dlens img").count() == 0
    assert page.evaluate("window.hit") is None


def record(tokens: Tensor, canvas: Tensor | None = None, prompt: int = 1, n_layers: int = 2, **fields: Any) -> Record:
    """A record of these tokens, and of these canvases where it is a denoising run."""
    is_prompt = torch.zeros(tokens.shape, dtype=torch.bool)
    is_prompt[:, :prompt] = True
    return Record(
        **{
            "kind": "forward" if canvas is None else "denoising",
            "model": "made up",
            "family": "masked",
            "n_layers": n_layers,
            "tokens": tokens,
            "is_pad": torch.zeros_like(is_prompt),
            "is_prompt": is_prompt,
            "text": [],
            "canvas": canvas,
            "committed_at": torch.full_like(tokens, -1) if canvas is None else committed_at(canvas, tokens),
            "step_of_position": None,
            "n_steps": 1 if canvas is None else len(canvas),
            "planned_steps": 1 if canvas is None else len(canvas),
            "captured": {},
            "measures": {},
            "plan": (),
            "settings": {},
            "notes": (),
            "unfired": (),
            "seconds": 0.0,
            "versions": {},
            "read_pieces": lambda: WORDS,
        }
        | fields
    )


def denoised(steps: int = 3, final: Tensor | None = None, **fields: Any) -> Record:
    """One token a step, from the left: "Once" and then " upon", " a", " fox", in turn."""
    final = torch.tensor([[0, *(1 + i % 3 for i in range(steps))]]) if final is None else final
    canvas = final.repeat(steps, 1, 1)
    for step in range(steps):
        canvas[step, :, 1 + step :] = MASK
    return record(final, canvas, **fields)


def top_tokens(steps: int, layers: int, positions: int) -> Any:
    """At every place " upon" with 0.5 at layer 0 and 0.75 later, then a tag with 0.125; entropy 2 / (1 + step)."""
    import xarray as xr

    size = (steps, layers, 1, positions)
    first = np.where(np.arange(layers)[None, :, None, None] == 0, 0.5, 0.75) * np.ones(size)
    dims = ("step", "layer", "batch", "position", "rank")
    token = np.stack([np.full(size, 1), np.full(size, 5)], -1).astype(np.int32)
    chance = np.stack([first, np.full(size, 0.125)], -1).astype(np.float32)
    entropy = (np.ones(size) * (2 / (1 + np.arange(steps)))[:, None, None, None]).astype(np.float32)
    coords = {dim: range(n) for dim, n in zip(dims, (*size, 2), strict=True)}
    held = {"token": (dims, token), "probability": (dims, chance), "entropy": (dims[:-1], entropy)}
    return xr.Dataset(held, coords)


def captured(values: Tensor, steps: tuple[int, ...] = ()) -> dict[str, Captured]:
    """resid_post as a run would keep it: [layer, batch, position, d_model], with a step axis where steps are named."""
    dims = ("step", "layer", "batch", "position", "d_model")
    dims = dims if steps else dims[1:]
    layers = tuple(range(values.shape[dims.index("layer")]))
    return {"resid_post": Captured(values, dims, layers, steps, tuple(range(values.shape[-2])))}


def layered(
    steps: int = 2, layers: int = 3, positions: int = 6, channels: int = 5, canvas: Any = None, **fields: Any
) -> Any:
    """A denoising run whose channel 3 grows with the layer, and is twice as large at position 2."""
    h = torch.randn(steps, layers, 1, positions, channels, generator=torch.Generator().manual_seed(0))
    h[..., 3] = 10 * (1 + torch.arange(layers))[None, :, None, None]
    h[..., 2:3, 3] *= 100
    canvas = _masked(steps, positions) if canvas is None else canvas
    tokens = torch.tensor([[0, *(1 + i % 3 for i in range(positions - 1))]])
    given = {"n_layers": layers, "captured": captured(h, tuple(range(steps))), "text": ["as it was"]}
    return record(tokens, canvas, **(given | fields))


def _masked(steps: int, positions: int) -> torch.Tensor:
    canvas = torch.full((steps, 1, positions), MASK)
    canvas[..., 0] = 0
    return canvas


def turning(positions: int = 4, layers: int = 2, steps: int = 2, **fields: Any) -> Any:
    """A denoising run whose tokens turn by a right angle each, so that P(1) = 0, P(2) = -1, P(3) = 0."""
    turns = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    h = turns[torch.arange(positions) % 4].expand(steps, layers, 1, positions, 2).clone()
    canvas = torch.full((steps, 1, positions), MASK)
    canvas[:, :, 0] = 0
    canvas[1:, :, 1:2] = 1
    tokens = torch.tensor([[0, *(1 + i % 3 for i in range(positions - 1))]])
    given = {"n_layers": layers, "captured": captured(h, tuple(range(steps)))}
    return record(tokens, canvas, **(given | fields))
