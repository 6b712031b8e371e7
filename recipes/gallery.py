"""The figures of docs/gallery.md, of the shipped models: `python -m recipes.gallery`, or `make screenshots`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import dlens
from dlens.findings.layers.profile import Profile
from dlens.show import figures

__all__ = ["FIGURES", "GALLERY", "main"]

GALLERY = Path("docs/figures/gallery")
TRIO = ("trio/ar", "trio/diffusion", "trio/ar-init")
SKIPPED = [5, 9]
_TEXTS = (
    "Once upon a time there was a fox who lived in a house.",
    "The dog and the cat were friends.",
)


@cache
def profiles() -> Sequence[Profile]:
    """The three models on the shipped text."""
    return [dlens.profile(name) for name in TRIO]


def attribution() -> Any:
    """Which layer and token a choice of the next word hangs on."""
    asked = dlens.pairs("trio-code", "trio/ar", n=1)
    metric = dlens.metrics.logit_difference(right=asked.right[0], wrong=asked.wrong[0])
    clean, corrupted = ([list(rows[0])] for rows in (asked.clean, asked.corrupted))
    return figures.attribution_heat(dlens.attribute("trio/ar", clean, corrupted, metric, method="attribution"))


def disruption() -> Any:
    """How far a skip moves the stream of each model."""
    found = [dlens.disruption(name, SKIPPED, list(_TEXTS), max_new_tokens=16) for name in TRIO]
    return figures.disruption_by_layer(found, fraction=0.5)


FIGURES: Mapping[str, Callable[[], Any]] = {
    "cosine-by-layer": lambda: figures.cosine_by_layer(profiles()),
    "largest-share": lambda: figures.largest_share(profiles()),
    "channel-share": lambda: figures.channel_share(profiles()[1]),
    "cosine-by-noise": lambda: figures.cosine_by_noise(profiles()[1]),
    "attribution-heat": attribution,
    "disruption-by-layer": disruption,
}


def main() -> None:
    """Write every figure."""
    for name, make in FIGURES.items():
        path = figures.save_figure(make(), GALLERY / f"{name}.svg")
        print(path, f"{path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
