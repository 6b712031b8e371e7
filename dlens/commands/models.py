"""`dlens models`: what ships, and what else is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from dlens.commands.options import LoadOptions, named, numbers
from dlens.tables import table_text

if TYPE_CHECKING:
    from dlens.models.families.known import KnownModel
    from dlens.models.model import Model

__all__ = ["models"]


def models(
    *,
    explain: Annotated[str | None, named("MODEL", "(default: none)")] = None,
    load: LoadOptions = LoadOptions(),
    json: Path | None = None,
) -> None:
    """List the models that ship with dlens, and the families that others belong to.

    Args:
        explain: load a model (a folder, a hub id, a shipped one) and say where its parts were found, and why.
        load: how it is loaded.
        json: a .json file for the same; - is the output, and nothing else then.
    """
    from dlens.models.families.known import known_models

    if explain is not None:
        return _explain(load.load(explain), json)
    known = known_models()
    with numbers(json) as found:
        found["models"] = list(map(asdict, known))
        _print(known)


def _explain(model: Model, json: Path | None) -> None:
    from dlens.models.layout.words import places

    with numbers(json) as found:
        found["layout"] = list(map(asdict, places(model.layout)))
        print(model)
        print(model.layout)


def _print(known: Sequence[KnownModel]) -> None:
    shipped = [[m.name, m.family, m.objective, m.layers, m.width, m.note] for m in known if m.layers is not None]
    print(table_text(["model", "family", "objective", "layers", "d_model", "what"], shipped))
    print()
    families = [[m.name, m.objective, m.shift, m.note] for m in known if m.layers is None]
    print(table_text(["family", "objective", "shift", "what"], families))
    print("\nLoad others by hub id or folder, for example: dlens profile Qwen/Qwen2.5-0.5B")
