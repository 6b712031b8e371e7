"""The figures of docs/trio.md: `python -m recipes.trio.figures`, which needs kaleido and a Chrome or Chromium."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dlens.models.source import TRIO_FOLDER
from recipes.trio.effects import SKIPS

__all__ = ["SEEDS", "main", "seeds_figure", "training_figure"]

FIGURES = Path("docs/figures")
COLOURS = {"ar": "#1b6ca8", "diffusion": "#c8553d", "ar-init": "#3d8361"}
# The main runs at the step at which the further seeds stopped, beside these.
SEEDS = {
    "ar": ("ar-6144", "ar-s1", "ar-s2"),
    "diffusion": ("diffusion-6144", "diffusion-s1", "diffusion-s2"),
}
_DASHES = ("solid", "dash", "dot")


def seeds_figure(effects: Mapping[str, Any]) -> go.Figure:
    """Depth profiles and what skips leave, for three seeds of two objectives at equal tokens."""
    titles = ("Cosine of input and output", "Energy share of the largest channel", "trio-code after skipping 3 blocks")
    figure = make_subplots(1, 3, subplot_titles=titles, horizontal_spacing=0.07)
    for objective, runs in SEEDS.items():
        for run, dash in zip(runs, _DASHES, strict=True):
            depth, kept = effects[run]["depth"]["0.0"], effects[run]["accuracy"]["trio-code"]
            style = {"line": {"color": COLOURS[objective], "dash": dash}, "name": run, "legendgroup": run}
            layers = list(range(1, len(depth["cosine"]["mean"])))
            figure.add_scatter(x=layers, y=depth["cosine"]["mean"][1:], row=1, col=1, **style)
            share = depth["top_share"]["mean"]
            figure.add_scatter(x=list(range(len(share))), y=share, row=1, col=2, showlegend=False, **style)
            left = [kept[f"skip {name}"]["value"] / kept["none"]["value"] for name in SKIPS]
            marks = {"mode": "markers", "marker": {"color": COLOURS[objective]}, "showlegend": False}
            figure.add_scatter(x=list(SKIPS), y=left, row=1, col=3, name=run, **marks)
    for column, title in ((1, "block"), (2, "block")):
        figure.update_xaxes(title_text=title, row=1, col=column)
    figure.update_yaxes(title_text="share of the accuracy that is left", row=1, col=3)
    return _styled(figure)


def training_figure(training: Mapping[str, Any]) -> go.Figure:
    """How accuracy and the largest channel grow with the tokens seen."""
    titles = ("trio-math, 256 problems", "Energy share of the largest channel, mean over blocks but the last")
    figure = make_subplots(1, 2, subplot_titles=titles, horizontal_spacing=0.09)
    for run, trained in training.items():
        objective, _, seed = run.partition("-s") if run != "ar-init" else (run, "", "")
        line = {"color": COLOURS[objective], "dash": _DASHES[int(seed or 0)]}
        points = trained["points"]
        tokens = [point["tokens"] / 1e6 for point in points]
        shares = [sum(point["top_share"][:-1]) / len(point["top_share"][:-1]) for point in points]
        solved = [point["accuracy"]["trio-math"] for point in points]
        figure.add_scatter(x=tokens, y=solved, row=1, col=1, name=run, legendgroup=run, line=line)
        figure.add_scatter(x=tokens, y=shares, row=1, col=2, name=run, legendgroup=run, line=line, showlegend=False)
    figure.update_xaxes(type="log", title_text="million tokens", dtick=1)
    return _styled(figure)


def _styled(figure: go.Figure) -> go.Figure:
    figure.update_layout(
        template="plotly_white",
        font_size=12,
        legend={"orientation": "h", "y": -0.25},
        margin={"l": 50, "r": 20, "t": 40, "b": 90},
    )
    return figure.update_annotations(font_size=13)


def main() -> None:
    """Draw what the package's training.json and effects.json say."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    training, effects = (json.loads((TRIO_FOLDER / f"{name}.json").read_text()) for name in ("training", "effects"))
    seeds_figure(effects).write_image(FIGURES / "trio-seeds.svg", width=1200, height=460)
    training_figure(training).write_image(FIGURES / "trio-training.svg", width=1000, height=460)


if __name__ == "__main__":
    main()
