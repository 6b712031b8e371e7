"""Save and load records: JSON, safetensors for tensors, netCDF for measures; nothing is unpickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from torch import Tensor

from dlens.tracing.records.captured import Captured
from dlens.tracing.records.format_1 import measures_of_format_1
from dlens.tracing.records.netcdf import read_dataset, write_dataset
from dlens.tracing.records.record import Flops, Record

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["load_record", "save_record"]

FORMAT = 2
_READ = (1, FORMAT)
_JSON, _TENSORS, _MEASURES = "record.json", "tensors.safetensors", "measures"
_PLAIN = ("kind", "model", "family", "n_layers", "text", "n_steps", "planned_steps", "settings", "seconds", "versions")
_TENSOR_FIELDS = ("tokens", "is_pad", "is_prompt", "canvas", "committed_at", "step_of_position")


def save_record(record: Record, folder: str | Path) -> None:
    """Write a record; see `Record.save`."""
    from safetensors.torch import save_file

    folder = Path(folder)
    _refuse_others(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value for name in _TENSOR_FIELDS if (value := getattr(record, name)) is not None}
    tensors |= {f"captured/{name}": kept.values for name, kept in record.captured.items()}
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / _TENSORS)
    # Any text may be the key of a measure; a name of a file may not.
    measures = {key: f"{_MEASURES}/{quote(key, safe='')}.nc" for key in record.measures}
    _write_measures(folder, {name: record.measures[key] for key, name in measures.items()})
    (folder / _JSON).write_text(json.dumps(_header(record, measures), indent=1), encoding="utf-8")


def _refuse_others(folder: Path) -> None:
    """Nothing but an older record is written over."""
    own = (_JSON, _TENSORS, _MEASURES)
    if folder.is_file() or folder.exists() and any(p.name not in own for p in folder.iterdir()):
        raise FileExistsError(
            f"{folder} is a file or holds other files; expected a new folder or an older record; give another folder"
        )


def _write_measures(folder: Path, datasets: dict[str, xr.Dataset]) -> None:
    """Write one file a measure, and remove those of an older record."""
    for old in (folder / _MEASURES).glob("*.nc") if (folder / _JSON).is_file() else ():
        old.unlink()
    for name, dataset in datasets.items():
        (folder / _MEASURES).mkdir(exist_ok=True)
        write_dataset(dataset, folder / name)


def _header(record: Record, measures: dict[str, str]) -> dict[str, Any]:
    counted = record.counted()
    captured = {
        name: {"dims": kept.dims, "layers": kept.layers, "steps": kept.steps, "positions": kept.positions}
        for name, kept in record.captured.items()
    }
    return {
        "format": FORMAT,
        **{name: getattr(record, name) for name in _PLAIN},
        "plan": list(record.plan),
        "notes": list(record.notes),
        "unfired": list(record.unfired),
        "pieces": {str(token): text for token, text in record.pieces.items()},
        "flops": None if counted is None else [counted.run, counted.plain],
        "captured": captured,
        "measures": measures,
    }


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
    folder = Path(folder)
    header, tensors = _read_header(_there(folder, _JSON)), _read_tensors(_there(folder, _TENSORS))
    try:
        return _build(header, tensors, _read_measures(folder, header, tensors))
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{folder} lacks {error}; expected all that record.save wrote; one of its files is damaged or from another "
            f"record, save it again"
        ) from error


def _there(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise FileNotFoundError(
            f"{folder} has no {name}; expected a folder written by record.save(folder); check the path"
        )
    return folder / name


def _read_header(path: Path) -> dict[str, Any]:
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON ({error}); expected what record.save wrote; save it again") from error
    if not isinstance(header, dict) or header.get("format") not in _READ:
        came = header.get("format") if isinstance(header, dict) else type(header).__name__
        raise ValueError(
            f"{path} has format {came!r}; expected {' or '.join(map(str, _READ))}; read it with the dlens that wrote it"
        )
    return header


def _read_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); expected what record.save wrote; save it again") from error


def _read_measures(folder: Path, header: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, xr.Dataset]:
    if header["format"] == 1:
        return measures_of_format_1(header["measures"], tensors)
    return {key: read_dataset(_there(folder, name)) for key, name in header["measures"].items()}


def _build(header: dict[str, Any], tensors: dict[str, Tensor], measures: dict[str, xr.Dataset]) -> Record:
    captured = {name: _captured(name, kept, tensors) for name, kept in header["captured"].items()}
    flops = header["flops"]
    pieces = {int(token): text for token, text in header.get("pieces", {}).items()}
    fields: dict[str, Any] = {name: header[name] for name in _PLAIN}
    fields |= {name: tensors.get(name) for name in _TENSOR_FIELDS}
    return Record(
        **fields,
        captured=captured,
        measures=measures,
        plan=tuple(header["plan"]),
        notes=tuple(header["notes"]),
        unfired=tuple(header["unfired"]),
        memo={"pieces": pieces} | ({} if flops is None else {"flops": Flops(*flops)}),
    )


def _captured(name: str, described: dict[str, Any], tensors: dict[str, Tensor]) -> Captured:
    values = tensors[f"captured/{name}"]
    kept = Captured(values, *(tuple(described[k]) for k in ("dims", "layers", "steps", "positions")))
    sizes = {"layer": len(kept.layers), "step": len(kept.steps), "position": len(kept.positions)}
    expected = [sizes.get(dim, size) for dim, size in zip(kept.dims, values.shape, strict=False)]
    if list(values.shape) != expected or len(kept.dims) != values.ndim:
        raise KeyError(f"{name} of shape {expected} (its file holds {list(values.shape)})")
    return kept
