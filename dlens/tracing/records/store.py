"""Save and load records: JSON, safetensors for tensors, netCDF for measures; nothing is unpickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from dlens.checks import as_path
from dlens.tracing.records.captured import Captured
from dlens.tracing.records.folder import INDEX, TENSORS, find, read_alone, refuse_changed, replaced, sums
from dlens.tracing.records.format_1 import measures_of_format_1
from dlens.tracing.records.header import (
    FORMAT,
    PLAIN,
    CapturedEntry,
    Header,
    header_of,
    measure_file,
    read_header,
    refuse_edits,
    signed,
)
from dlens.tracing.records.netcdf import read_dataset, write_dataset
from dlens.tracing.records.record import Flops, Record

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["load_record", "save_record"]

_TENSOR_FIELDS = ("tokens", "is_pad", "is_prompt", "canvas", "computed", "committed_at", "step_of_position")
_CAPTURED, _GRADIENTS = "captured", "gradients"
_REQUIRED = ("tokens", "is_pad", "is_prompt", "committed_at")
_MASKS = ("is_pad", "is_prompt", "computed")
_TOKEN_LIMIT = 2**31
_SAVED = "dlens_saved"
"""Where each file has the name of the save that it is of."""


def save_record(record: Record, folder: str | Path) -> None:
    """Write a record; see `Record.save`."""
    tensors = {name: value for name in (*_TENSOR_FIELDS, "metric") if (value := getattr(record, name)) is not None}
    for folder_name, held in ((_CAPTURED, record.captured), (_GRADIENTS, record.differentiated)):
        tensors |= {f"{folder_name}/{name}": kept.values for name, kept in held.items()}
    header = header_of(record)
    with replaced(as_path(folder, "folder")) as (new, saved):
        _write_tensors({name: value.contiguous() for name, value in tensors.items()}, new / TENSORS, saved)
        for key, dataset in record.measures.items():
            write_dataset(dataset.assign_attrs({_SAVED: saved}), new / measure_file(key))
        index = signed(header | {"saved": saved, "sums": sums(new)})
        (new / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")


def _write_tensors(tensors: dict[str, Tensor], path: Path, saved: str) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, path, {_SAVED: saved})
    except SafetensorError as error:
        raise OSError(str(error)) from error


def load_record(folder: str | Path) -> Record:
    """Read a record that `record.save(folder)` wrote; no model is needed.

    Args:
        folder: the folder.

    Raises:
        FileNotFoundError: it is not the folder of a record.
        ValueError: a file is damaged, or was written by a newer dlens.

    Examples:
        >>> import dlens, tempfile
        >>> record = dlens.trace("trio/ar").capture("logits").forward("Once upon a time")
        >>> folder = tempfile.mkdtemp()
        >>> record.save(folder)
        >>> dlens.load_record(folder)["logits"].shape
        torch.Size([1, 4, 4096])
    """
    folder = as_path(folder, "folder")
    with read_alone(folder):
        header = read_header(find(folder, None, INDEX))
        try:
            return _read(folder, header)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{folder} lacks {error}; expected all that record.save wrote; one of its files is damaged or from "
                f"another record, save it again"
            ) from error


def _read(folder: Path, header: Header) -> Record:
    saved = header.get("saved")
    tensors, *names = _read_tensors(find(folder, saved, TENSORS))
    measures = _read_measures(folder, header, tensors)
    captured = {name: _captured(f"{_CAPTURED}/{name}", kept, tensors) for name, kept in header["captured"].items()}
    gradients = header.get("gradients", {})
    differentiated = {name: _captured(f"{_GRADIENTS}/{name}", kept, tensors) for name, kept in gradients.items()}
    _check_tensors(folder, header, tensors)
    # Older records have no name of their save.
    names += [dataset.attrs.pop(_SAVED, None) for dataset in measures.values()]
    if saved is not None and set(names) != {saved}:
        raise ValueError(
            f"{folder} holds files of several saves; expected those of one; save the record again, or load it when "
            f"nothing writes to it"
        )
    # What can be said of a damage is said above.
    refuse_changed(folder, saved, header.get("sums", {}))
    refuse_edits(find(folder, None, INDEX))
    return _build(header, tensors, captured, differentiated, measures)


def _read_measures(folder: Path, header: Header, tensors: dict[str, Tensor]) -> dict[str, xr.Dataset]:
    if header["format"] == FORMAT:
        return {key: read_dataset(find(folder, header.get("saved"), measure_file(key))) for key in header["measures"]}
    try:
        return measures_of_format_1(cast(Any, header["measures"]), tensors)
    except ValueError as error:
        raise _damaged(folder, f"its measures ({error!r})") from error


def _read_tensors(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """The tensors of a file, and the name of its save."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            # Copies: what is mapped from a file ends the process where the file becomes shorter.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
            return tensors, (file.metadata() or {}).get(_SAVED)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); expected what record.save wrote; save it again") from error


def _check_tensors(folder: Path, header: Header, tensors: dict[str, Tensor]) -> None:
    """Refuse tensors that cannot be those of a record.

    Raises:
        KeyError, ValueError: one lacks, or has another shape, type or range.
    """
    for name in _REQUIRED + (("canvas",) if header["kind"] == "denoising" else ()):
        if name not in tensors:
            raise KeyError(name)
    size = list(tensors["tokens"].shape)
    by_step = dict.fromkeys(("canvas", "computed"), [*_steps(tensors), *size])
    shapes = dict.fromkeys(_REQUIRED, size) | by_step | {"step_of_position": [-1]}
    for name in _TENSOR_FIELDS:
        if (value := tensors.get(name)) is None:
            continue
        fits = list(value.shape) == shapes[name] or shapes[name] == [-1] and value.ndim == 1
        typed = value.dtype == torch.bool if name in _MASKS else value.dtype in (torch.int32, torch.int64)
        if len(size) != 2 or not fits or not typed:
            raise _damaged(folder, f"{name} of shape {list(value.shape)} and {value.dtype}")
        if name in ("tokens", "canvas") and value.numel() and not 0 <= value.min() <= value.max() < _TOKEN_LIMIT:
            raise _damaged(folder, f"{name} from {value.min()} to {value.max()}")


def _steps(tensors: dict[str, Tensor]) -> list[int]:
    return list(tensors["canvas"].shape[:1]) if "canvas" in tensors else []


def _damaged(folder: Path, what: str) -> ValueError:
    return ValueError(
        f"{folder} holds a damaged {TENSORS}: {what}; expected what record.save wrote; save the record again"
    )


def _build(
    header: Header,
    tensors: dict[str, Tensor],
    captured: dict[str, Captured],
    differentiated: dict[str, Captured],
    measures: dict[str, xr.Dataset],
) -> Record:
    flops = header["flops"]
    pieces = {int(token): text for token, text in header.get("pieces", {}).items()}
    fields: dict[str, Any] = {name: header[name] for name in PLAIN}
    fields |= {name: tensors.get(name) for name in _TENSOR_FIELDS}
    return Record(
        **fields,
        captured=captured,
        differentiated=differentiated,
        metric=tensors.get("metric"),
        measures=measures,
        plan=tuple(header["plan"]),
        notes=tuple(header["notes"]),
        unfired=tuple(header["unfired"]),
        memo={"pieces": pieces} | ({} if flops is None else {"flops": Flops(*flops)}),
    )


def _captured(name: str, described: CapturedEntry, tensors: dict[str, Tensor]) -> Captured:
    values = tensors[name]
    dims, positions = tuple(described["dims"]), tuple(described["positions"])
    kept = Captured(values, dims, tuple(described["layers"]), tuple(described["steps"]), positions)
    sizes = {"layer": len(kept.layers), "step": len(kept.steps), "position": len(kept.positions)}
    expected = [sizes.get(dim, size) for dim, size in zip(kept.dims, values.shape, strict=False)]
    if list(values.shape) != expected or len(kept.dims) != values.ndim:
        raise KeyError(f"{name} of shape {expected} (its file holds {list(values.shape)})")
    return kept
