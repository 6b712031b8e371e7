"""What every widget is: an anywidget with its script and style beside it, a picture without scripts, a file alone."""

from __future__ import annotations

import gzip
import json
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any
from uuid import uuid4

import anywidget
import numpy as np
import traitlets
from markupsafe import Markup

from dlens.checks import as_path
from dlens.files import check_file, write_text
from dlens.html import rendered
from dlens.tables import table_html
from dlens.widgets.colours import ramp

__all__ = ["Asked", "Panel", "corrected", "css", "esm", "heat_html", "numbers_html", "packed"]

_PADDED = "padding-right:1em"
# Eleven bits of a float32 are as many digits as a page shows, and half of the bytes of all when compressed.
_KEPT_BITS, _HALF_A_STEP = 0xFFFFF000, 0x800


@dataclass(frozen=True)
class Asked:
    """What a page may choose, and what a kernel answers.

    Args:
        choices: by the name of a trait what it may be set to.
        answers: names of the traits that follow.
    """

    choices: Mapping[str, Sequence[Any]]
    answers: Sequence[str]


class Panel(anywidget.AnyWidget):
    """Abstract: a widget that also has a picture in plain HTML, which saved notebooks show without a kernel."""

    _esm: str
    _css = ""
    picture = traitlets.Unicode().tag(sync=True)

    @traitlets.default("picture")
    def _name_picture(self) -> str:
        return uuid4().hex

    def html(self) -> str:
        """The present state as HTML without scripts; every text in it is escaped."""
        raise NotImplementedError

    def save_html(self, path: str | Path) -> Path:
        """Write the widget as one file that works in a browser alone, without a kernel and without a network.

        What it shows can be explored as far as it is known: nothing is run anew.

        Args:
            path: a name that ends in .html.

        Returns:
            Where it is.

        Raises:
            ValueError: another ending.
            OSError: it cannot be written.

        Examples:
            >>> import dlens, tempfile
            >>> from dlens.widgets import Denoising
            >>> widget = Denoising(dlens.trace("trio/diffusion").generate("Once upon a time", 4))
            >>> widget.save_html(tempfile.mkdtemp() + "/run.html").name
            'run.html'
        """
        place = check_file(as_path(path, "path"), ".html")
        page = rendered("widgets/alone_page.html.j2", title=type(self).__name__, part=self.html_alone())
        return write_text(place, str(page))

    def html_alone(self) -> Markup:
        """The same as a part of a page: its script, its state, and a kernel's answers to whatever may be chosen.

        Examples:
            >>> import dlens
            >>> from dlens.widgets import Denoising
            >>> widget = Denoising(dlens.trace("trio/diffusion").generate("Once upon a time", 4))
            >>> str(widget.html_alone()).count("<script")
            1
        """
        names = self.traits(sync=True).keys() - anywidget.AnyWidget.class_traits()
        held = [name for name in sorted(names) if not name.startswith("_")]
        state = {name: getattr(self, name) for name in held} | self._measured()
        text = json.dumps({"state": _plain(state), "tables": list(self._tables())}, separators=(",", ":"))
        return rendered(
            "widgets/alone.html.j2",
            name=f"dlens-{uuid4().hex}",
            style=Markup(self._css),
            script=Markup(f"{self._esm}\n{_text('alone.js')}"),
            held=b64encode(gzip.compress(text.encode(), mtime=0)).decode(),
            picture=Markup(self.html()),
        )

    def _asked(self) -> Sequence[Asked]:
        """What may be chosen where there is no kernel."""
        return ()

    def _measured(self) -> dict[str, Any]:
        """What else a page without a kernel needs to know."""
        return {}

    def _tables(self) -> Iterator[dict[str, Any]]:
        """A kernel's answers to every choice; afterwards all is as it was."""
        for asked in self._asked():
            before = {name: getattr(self, name) for name in (*asked.choices, "message") if self.has_trait(name)}
            rows = {}
            for values in product(*asked.choices.values()):
                wanted = dict(zip(asked.choices, values, strict=True))
                for name, value in wanted.items():
                    setattr(self, name, value)
                if all(getattr(self, name) == value for name, value in wanted.items()):
                    rows[json.dumps(values, separators=(",", ":"))] = {
                        name: _plain(getattr(self, name)) for name in asked.answers
                    }
            for name, value in before.items():
                setattr(self, name, value)
            yield {"keys": list(asked.choices), "rows": rows}

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        data, metadata = self._view()
        return data | {"text/html": self.html()}, metadata

    def _ipython_display_(self) -> None:
        """Show the picture and then the widget, which takes the picture out of sight while it is there.

        JupyterLab shows of one output the widget alone, and without a kernel nothing in its place.
        """
        from IPython.display import display

        data, metadata = self._view()
        output = rendered("widgets/output.html.j2", name=self.picture, picture=Markup(self.html()))
        display({"text/plain": data.pop("text/plain"), "text/html": str(output)}, raw=True)
        display(data | {"text/html": ""}, metadata=metadata, raw=True)

    def _view(self) -> tuple[dict[str, Any], dict[str, Any]]:
        bundle = super()._repr_mimebundle_()
        assert bundle is not None
        return bundle


def corrected(name: str, given: int, shown: int) -> str:
    """What a widget says where it cannot show what it was set to; empty where it can.

    Examples:
        >>> corrected("layer", 99, 15)
        'There is no layer 99: layer 15 is shown.'
    """
    return "" if given == shown else f"There is no {name} {given}: {name} {shown} is shown."


def esm(name: str) -> str:
    """The script of a widget as one module, after what all of them share."""
    return _text("shared.js") + "\n" + _text(f"{name}.js")


def css(name: str) -> str:
    """The style of a widget, between what all of them share, on a screen and on paper."""
    return "\n".join(map(_text, ("shared.css", f"{name}.css", "print.css")))


def _text(name: str) -> str:
    return files("dlens.widgets").joinpath(name).read_text(encoding="utf-8")


def packed(values: Any) -> dict[str, Any]:
    """An array as a binary trait: its bytes, shape and type; floats as float32, whole numbers as int32.

    Examples:
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


def _plain(value: Any) -> Any:
    """A trait as JSON has it; bytes of floats without the digits that no page shows."""
    if isinstance(value, dict):
        if value.get("dtype") == "float32":
            # To the nearest, so that what is shown seldom differs in its last digit.
            bits = (np.frombuffer(value["data"], "<u4") + np.uint32(_HALF_A_STEP)) & np.uint32(_KEPT_BITS)
            value = value | {"data": bits.astype("<u4").tobytes()}
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, float) and value != value:
        return None
    return {"$bytes": b64encode(value).decode()} if isinstance(value, bytes) else value


def numbers_html(columns: list[str], rows: list[list[Any]]) -> Markup:
    """A table in a picture; its numbers are rounded to three digits."""
    return table_html(columns, rows, digits=3, head=f"text-align:left;{_PADDED}", cell=_PADDED)


def heat_html(values: dict[str, Any], label: str) -> Markup:
    """A packed matrix as coloured cells; nothing where there is no matrix."""
    if not values:
        return Markup()
    whole = np.frombuffer(values["data"], "<f4").reshape(values["shape"])
    matrix = _shrunk(_shrunk(whole).T).T
    if matrix.shape != whole.shape:
        label += f" (means of neighbours, {whole.shape[0]} by {whole.shape[1]} in all)"
    known = matrix[np.isfinite(matrix)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    rows, columns = matrix.shape
    wide, tall = max(2, 320 // columns), max(2, min(320 // columns, 320 // rows))
    return rendered(
        "widgets/heat.html.j2",
        words=f"{label}: from {low:.3g} (blue) to {high:.3g} (yellow)",
        columns=columns,
        wide=wide,
        tall=tall,
        colours=[_fill(float(value), low, high) for value in matrix.flat],
    )


def _shrunk(matrix: np.ndarray) -> np.ndarray:
    """At most 64 rows, each the mean of neighbours, so that a saved notebook stays small."""
    size = -(-len(matrix) // 64)
    return np.stack([part.mean(0) for part in np.split(matrix, range(size, len(matrix), size))])


def _fill(value: float, low: float, high: float) -> str:
    return ramp((value - low) / (high - low or 1)) if value == value else "#808080"
