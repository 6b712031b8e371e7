"""What every widget is: an anywidget with its script and style beside it, and a picture without scripts."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from typing import Any

import anywidget
import numpy as np

from dlens.widgets.colours import ramp

__all__ = ["Panel", "css", "esm", "heat_html", "page_html", "packed", "table_html"]

_STYLE = (
    "<div style='font:14px/1.5 system-ui,sans-serif;color-scheme:light dark;overflow-x:auto' role='figure' "
    "aria-label='{label}'>{body}</div>"
)


class Panel(anywidget.AnyWidget):
    """Abstract: a widget that also has a picture in plain HTML, which saved notebooks show without a kernel."""

    def html(self) -> str:
        """The present state as HTML without scripts; every text in it is escaped."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is None:
            return None
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        return data | {"text/html": self.html()}, metadata


def esm(name: str) -> str:
    """The script of a widget as one module, after what all of them share."""
    return _text("shared.js") + "\n" + _text(f"{name}.js")


def css(name: str) -> str:
    """The style of a widget, after what all of them share."""
    return _text("shared.css") + "\n" + _text(f"{name}.css")


def _text(name: str) -> str:
    return files("dlens.widgets").joinpath(name).read_text(encoding="utf-8")


def packed(values: Any) -> dict[str, Any]:
    """An array as a binary trait: its bytes, shape and type; floats as float32, whole numbers as int32.

    >>> import numpy as np
    >>> packed(np.array([[1, 2]]))
    {'data': b'\\x01\\x00\\x00\\x00\\x02\\x00\\x00\\x00', 'shape': [1, 2], 'dtype': 'int32'}
    """
    array = np.asarray(values)
    kept = np.ascontiguousarray(array, "<f4" if array.dtype.kind == "f" else "<i4")
    return {
        "data": kept.tobytes(),
        "shape": list(array.shape),
        "dtype": "float32" if kept.dtype.kind == "f" else "int32",
    }


def page_html(label: str, *parts: str) -> str:
    """A static picture with a heading; `parts` are HTML."""
    return _STYLE.format(label=escape(label, quote=True), body=f"<p><b>{escape(label)}</b></p>" + "".join(parts))


def table_html(columns: list[str], rows: list[list[Any]]) -> str:
    """A table; its cells are escaped, its numbers rounded to three digits."""
    head = "".join(f"<th scope='col' style='text-align:left;padding-right:1em'>{escape(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td style='padding-right:1em'>{_cell(v)}</td>" for v in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "–" if value != value else f"{value:.3g}"
    return escape(str(value))


def heat_html(values: dict[str, Any], label: str) -> str:
    """A packed matrix as a coloured SVG, which is plain markup and needs no script."""
    matrix = np.frombuffer(values["data"], "<f4").reshape(values["shape"])
    known = matrix[np.isfinite(matrix)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    rows, columns = matrix.shape
    cells = "".join(
        f"<rect x='{x}' y='{y}' width='1' height='1' fill='{_fill(float(matrix[y, x]), low, high)}'/>"
        for y in range(rows)
        for x in range(columns)
    )
    words = escape(f"{label}: from {low:.3g} (blue) to {high:.3g} (yellow)", quote=True)
    return (
        f"<p>{words}</p><svg role='img' aria-label='{words}' viewBox='0 0 {columns} {rows}' preserveAspectRatio='none' "
        f"style='width:min(100%,420px);height:{min(420, 60 + 12 * rows)}px' shape-rendering='crispEdges'>{cells}</svg>"
    )


def _fill(value: float, low: float, high: float) -> str:
    return ramp((value - low) / (high - low or 1)) if value == value else "#808080"
