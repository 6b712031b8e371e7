"""One self-contained page of figures, each with its numbers as a table below it."""

from __future__ import annotations

import csv
import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import unescape
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlens.checks import as_path
from dlens.files import write_text
from dlens.findings.layers.profile import Profile
from dlens.html import rendered
from dlens.show import figures
from dlens.show.figures.drawing import svg
from dlens.show.figures.layout import drawn
from dlens.tables import table_html

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from markupsafe import Markup

__all__ = ["Section", "page", "profile_page", "save_page"]


@dataclass(frozen=True)
class Section:
    """A figure with a heading, a sentence on how to read it, and its numbers.

    Args:
        title: heading.
        text: what the figure shows.
        figure: plotly figure, or None.
        columns: names of the table's columns.
        rows: the table.
        folded: whether the table is shown only when asked for.

    Examples:
        >>> section = Section("Loss", "Lower is better.", None, ["layer", "loss"], [[3, 2.5], [5, 2.25]])
        >>> "<td>2.5</td>" in page("Layers", "What each does.", [section], "Measured once.")
        True
    """

    title: str
    text: str
    figure: go.Figure | None
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    folded: bool = True


def page(
    title: str,
    intro: str,
    sections: Sequence[Section],
    method: str,
    top: str = "",
    opening: str = "",
    end: str = "",
) -> str:
    """An HTML page that asks nothing of any server, for wide and narrow, light and dark screens, and for paper.

    Figures are drawn when the page is written; each can be had as SVG and PNG, and its numbers as CSV.

    Args:
        title: heading of the page.
        intro: a sentence below it.
        sections: figures with their tables.
        method: paragraphs on how it was measured, a line each.
        top: HTML that comes before the sections.
        opening: HTML that comes first, below the sentence.
        end: HTML that comes last.

    Examples:
        >>> html = page("Layers", "What each does.", [], "Measured once.")
        >>> html.startswith("<!DOCTYPE html>"), "<script src" in html
        (True, False)
    """
    anchors = _anchors([*_headings(top), *(section.title for section in sections), *_LAST, *_headings(end)])
    html = rendered(
        "show/report/page.html.j2",
        title=title,
        intro=intro,
        sections=sections,
        contents=[(_SHORT.get(name, name), anchor) for name, anchor in anchors.items()],
        method=method,
        top=top,
        opening=opening,
        end=end,
        anchor=anchors.__getitem__,
        drawing=_drawing,
        csv=_csv,
        table=partial(table_html, words=True),
    )
    return str(html)


_LAST = ("How it was measured",)
# In the contents.
_SHORT = {"How it was measured": "Method"}
_WIDTHS: Mapping[str, float] = {"wide": 1040, "narrow": 358}


def _headings(html: str) -> list[str]:
    """The headings of HTML that a page is given, whose sections have their own anchors."""
    return [unescape(found) for found in re.findall(r"<h2>([^<]+?) ?<", html)]


def _anchors(titles: Sequence[str]) -> dict[str, str]:
    """The anchor of every heading, each its own.

    Examples:
        >>> _anchors(["a/b: the loss", "A b, the loss"])
        {'a/b: the loss': 'a-b-the-loss', 'A b, the loss': 'a-b-the-loss-2'}
    """
    anchors: dict[str, str] = {}
    for title in titles:
        plain = anchor = re.sub("[^a-z0-9]+", "-", title.lower()).strip("-") or "section"
        while anchor in anchors.values():
            anchor = f"{plain}-{sum(own.startswith(plain) for own in anchors.values()) + 1}"
        anchors[title] = anchor
    return anchors


def _drawing(section: Section) -> Markup:
    """A figure drawn for wide and for narrow pages; style sheets choose."""
    from markupsafe import Markup

    assert section.figure is not None
    parts = [
        Markup('<div class="{}">{}</div>').format(name, svg(drawn(section.figure, width), section.title))
        for name, width in _WIDTHS.items()
    ]
    return Markup("\n").join(parts)


def _csv(section: Section) -> str:
    """The numbers of a section as an address that holds them, to all their digits."""
    with StringIO(newline="") as text:
        writer = csv.writer(text)
        writer.writerow(section.columns)
        writer.writerows(section.rows)
        held = text.getvalue()
    return f"data:text/csv;charset=utf-8;base64,{b64encode(held.encode()).decode()}"


def profile_page(profiles: Sequence[Profile]) -> str:
    """The page that `dlens profile --out page.html` writes.

    Examples:
        >>> import dlens
        >>> html = profile_page([dlens.profile("trio/ar", ["Once upon a time"])])
        >>> "trio/ar" in html
        True
    """
    names = ", ".join(p.model for p in profiles)
    sections = [
        Section(
            "What each block changes",
            "Cosine of what enters a block with what leaves it, per token, averaged: near 1, the block "
            "turns the stream little. The axis is fitted to layer 1 and later; the table has layer 0.",
            figures.cosine_by_layer(profiles),
            *_by_model(profiles, "cosine"),
        ),
        Section(
            "The largest channel",
            "Share of the stream's energy that one channel holds after each block.",
            figures.largest_share(profiles),
            *_by_model(profiles, "top_share", "top_channel"),
        ),
    ]
    for p in profiles:
        sections += _model_sections(p)
    return page(f"Layer profile: {names}", _intro(profiles), sections, _method(profiles))


def _model_sections(p: Profile) -> list[Section]:
    share = p.pooled("outliers", "energy_share").transpose("layer", "channel")
    columns = ["layer", *(f"channel {channel}" for channel in share["channel"].values)]
    rows = [[layer, *values] for layer, values in enumerate(share.values.tolist())]
    sections = [
        Section(
            f"{p.model}: the largest channels",
            "Share of the stream's energy in each of the largest channels, layer by layer.",
            figures.channel_share(p),
            columns,
            rows,
        )
    ]
    if "noise" in p.measures["cosine"].dims:
        sections += [
            Section(
                f"{p.model}: cosine by noise level",
                "The same cosine at each share of masked tokens. Masks enter all alike, so levels are shown apart. The "
                "axis is fitted to layer 1 and later.",
                figures.cosine_by_noise(p),
                *_by_noise(p.pooled("cosine", "cosine", by=["noise"])),
            ),
            Section(
                f"{p.model}: largest channel by noise level",
                "Energy share of the largest channel at each share of masked tokens.",
                figures.share_by_noise(p),
                *_by_noise(p.pooled("outliers", "energy_share", by=["noise"]).isel(channel=0)),
            ),
        ]
    return sections


def _by_model(profiles: Sequence[Profile], *variables: str) -> tuple[list[str], list[list[Any]]]:
    columns = ["layer", *(f"{p.model} {variable.replace('_', ' ')}" for p in profiles for variable in variables)]
    tables = [p.table() for p in profiles]
    depth = max(map(len, tables))
    rows = [[layer, *_layer_values(tables, layer, variables)] for layer in range(depth)]
    return columns, rows


def _layer_values(tables: Sequence[list[dict[str, Any]]], layer: int, variables: Sequence[str]) -> list[Any]:
    return [table[layer][v] if layer < len(table) else float("nan") for table in tables for v in variables]


def _by_noise(values: Any) -> tuple[list[str], list[list[Any]]]:
    seen = values.dropna("noise", how="all").transpose("layer", "noise")
    columns = ["layer", *map(figures.noise_words, seen["noise"].values)]
    return columns, [[layer, *row] for layer, row in enumerate(seen.values.tolist())]


def _intro(profiles: Sequence[Profile]) -> str:
    return "; ".join(f"{p.model}: {p.objective}, {p.n_layers} layers, {p.d_model} channels" for p in profiles) + "."


def _method(profiles: Sequence[Profile]) -> str:
    runs = " ".join(
        f"{p.model} read {p.n_prompts} prompts of {p.n_tokens} tokens in all ({'; '.join(p.notes)})."
        + (f" Operations: {json.dumps(list(p.plan))}." if p.plan else "")
        for p in profiles
    )
    attrs = [profiles[0].measures[key].attrs for key in ("cosine", "outliers")]
    estimators = " ".join(
        f"{name}: {a['estimator']}; {a['pooling']}; positions: {a['positions']}."
        for name, a in zip(("Cosine", "Outliers"), attrs, strict=True)
    )
    return f"{runs} {estimators} Layers count from 0. Noise is the share of masked tokens."


def save_page(html: str, path: str | Path) -> Path:
    """Write a page, whole or not at all, making its folder.

    Examples:
        >>> import tempfile
        >>> save_page("<!DOCTYPE html>", tempfile.mkdtemp() + "/page.html").name
        'page.html'
    """
    return write_text(as_path(path, "path"), html)
