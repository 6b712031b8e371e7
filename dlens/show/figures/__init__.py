"""Plotly figures of profiles, records, findings and studies; they are returned, never shown.

Each function draws numbers that are labelled already. Users, the report and the tutorials call them. For files and
pages without plotly a figure is laid out (`layout`, `traced`) as a `drawing` of lines, dots and words.
"""

from dlens.show.figures.attributions import attribution_heat
from dlens.show.figures.effects import (
    channel_by_layer,
    comparison_lines,
    disruption_by_fraction,
    disruption_by_layer,
    effect_bars,
    phases_points,
    retention_points,
)
from dlens.show.figures.export import save_figure
from dlens.show.figures.layers import (
    channel_share,
    cosine_by_layer,
    cosine_by_noise,
    largest_share,
    share_by_noise,
)
from dlens.show.figures.statistics import Statistic, bands, lines, points, statistics_table
from dlens.show.figures.style import COLOURS, noise_words, styled

__all__ = [
    "COLOURS",
    "Statistic",
    "attribution_heat",
    "bands",
    "channel_by_layer",
    "channel_share",
    "comparison_lines",
    "cosine_by_layer",
    "cosine_by_noise",
    "disruption_by_fraction",
    "disruption_by_layer",
    "effect_bars",
    "largest_share",
    "lines",
    "noise_words",
    "phases_points",
    "points",
    "retention_points",
    "save_figure",
    "share_by_noise",
    "statistics_table",
    "styled",
]
