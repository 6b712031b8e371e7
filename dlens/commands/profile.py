"""`dlens profile`: what each layer does."""

from __future__ import annotations

from collections.abc import Sequence
from json import dumps, loads
from pathlib import Path
from typing import Annotated, Any, Literal

from dlens.commands.options import LoadOptions, named, numbers
from dlens.files import check_file, write_text
from dlens.tables import table_text

__all__ = ["profile"]


def profile(
    models: Annotated[tuple[str, ...], named("MODEL", "(required)")],
    /,
    *,
    load: LoadOptions = LoadOptions(),
    inputs: Literal["masked", "clean", "trajectory"] = "masked",
    out: Path | None = None,
    json: Path | None = None,
) -> None:
    """Measure what each layer changes and which channels stand out.

    For example: dlens profile trio/ar trio/diffusion --out profiles.html

    Args:
        models: names of shipped models, hub ids or folders.
        inputs: what the models read: text with masks, clean text, or their own decoding runs.
        out: a .json or .html file to write, with all of it.
        json: a .json file for the rows that are printed; - is the output, and nothing else then.
    """
    from dlens.findings.layers.profile import profile as measure

    if not models:
        raise ValueError("no model named; expected at least one; write for example: dlens profile trio/diffusion")
    if out is not None and out.suffix not in (".json", ".html"):
        raise ValueError(f"--out {out}; expected a name that ends in .json or .html; give it one of these endings")
    if out is not None:
        check_file(out, ".json", ".html")
        _check_different(models)
    profiles = []
    with numbers(json) as found:
        for name in models:
            loaded = load.load(name)
            if out is not None:
                _check_different([*(own.model for own in profiles), loaded.name])
            profiles.append(measure(loaded, inputs=inputs))
            _print_profile(profiles[-1])
        found["profiles"] = [row for own in profiles for row in own.table()]
        if out is not None:
            print(f"\nWrote {_write_profiles(profiles, out)}")


def _print_profile(profile: Any) -> None:
    print(f"\n{profile.model} ({profile.family}, {profile.objective}): {'; '.join(profile.notes)}")
    rows = profile.table()
    columns = [column for column in rows[0] if column != "model"]
    print(table_text([column.replace("_", " ") for column in columns], [[row[c] for c in columns] for row in rows]))


def _check_different(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two models of the name {name}; expected different ones in one file; name each once")


def _write_profiles(profiles: Sequence[Any], out: Path) -> Path:
    from dlens.show.report.page import profile_page, save_page

    if out.suffix == ".html":
        return save_page(profile_page(profiles), out)
    return write_text(out, dumps({p.model: loads(p.to_json()) for p in profiles}))
