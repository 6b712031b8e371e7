"""Write a model to a folder that `dlens.load` reads: weights, code, tokenizer, family, and what was done to it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlens.checks import as_path
from dlens.files import in_words, remove_leftovers, sync, unfinished
from dlens.models.compression import COMPRESSION_FILE
from dlens.models.families.registry import families
from dlens.models.source import without_bar
from dlens.models.wrapper import foreign_forwards, unwrap

if TYPE_CHECKING:
    from dlens.models.model import Model

__all__ = ["save_model"]


def save_model(model: Model, folder: Any) -> Path:
    """Write a model to a new folder, all of it or nothing; see `Model.save`."""
    place = Path(os.path.realpath(as_path(folder, "folder")))
    _refuse(model, place)
    _refuse_foreign(model)
    with in_words(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(place.parent)
        beside = unfinished(place)
        try:
            _write(model, beside)
            for path in beside.rglob("*"):
                if path.is_file():
                    sync(path)
            # An empty folder gives way; one that was filled meanwhile does not.
            beside.rename(place)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return Path(folder)


def _refuse(model: Model, place: Path) -> None:
    if place.exists() and not (place.is_dir() and not any(place.iterdir())):
        raise FileExistsError(
            f"{place} is there and not empty; expected a new folder, as a model is never written over another; give "
            f"another name, or remove it"
        )
    if model.family.name not in {family.name for family in families()}:
        raise ValueError(
            f"{model.name} is of family {model.family.name!r}, which is not registered; expected one that dlens.load "
            f"finds by its name; call dlens.register_family with it first"
        )


def _refuse_foreign(model: Model) -> None:
    if replaced := foreign_forwards(model.module):
        raise ValueError(
            f"{model.name} has another forward on {replaced[0]}, which is not saved with its weights; expected a model "
            f"that its weights and config describe; put the forward into its class"
        )


def _write(model: Model, folder: Path) -> None:
    with model.lock:
        unwrap(model.module)
        with without_bar():
            model.module.save_pretrained(folder)  # pyright: ignore
    if model.tokenizer is not None:
        model.tokenizer.save_pretrained(folder)
    _copy_code(model, folder)
    path = folder / "config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) | {"dlens_family": model.family.name}
    if model.family.mask_token_id is not None:
        settings["mask_token_id"] = model.family.mask_token_id
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    if model.compression is not None:
        (folder / COMPRESSION_FILE).write_text(model.compression.to_json(), encoding="utf-8")


def _copy_code(model: Model, folder: Path) -> None:
    """The code of a checkpoint in a folder goes with its weights."""
    source = Path(getattr(model.config, "_name_or_path", "") or "")
    if getattr(model.config, "auto_map", None) and source.is_dir():
        for path in source.glob("*.py"):
            shutil.copy(path, folder / path.name)
