"""A shard: one file of safetensors with rows of a stream, and how far the stream had come with it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from dlens.files import written
from dlens.tracing.streams.places import Places

__all__ = ["Mark", "Part", "Shard", "read_columns", "read_values", "shard_file", "shards_in", "write_shard"]

_COLUMNS, _VALUES, _SAID = "places/", "values/", "dlens_stream"


@final
@dataclass(frozen=True, order=True)
class Mark:
    """How far a stream has come: `steps` of the forwards of its batch `batch` are over, and all of those before it."""

    batch: int
    steps: int = 0


@final
@dataclass(frozen=True, eq=False)
class Part:
    """The rows of one forward.

    Args:
        mark: how far the stream has come with them.
        places: where they are from.
        values: hook name -> [place, ...]; on the CPU once all of `copied` have happened.
        copied: events of CUDA.
    """

    mark: Mark
    places: Places
    values: Mapping[str, Tensor]
    copied: tuple[Any, ...] = ()

    @property
    def nbytes(self) -> int:
        """The size of the values."""
        return sum(value.nbytes for value in self.values.values())


@final
@dataclass(frozen=True)
class Shard:
    """A finished file.

    Args:
        path: where it is.
        places: how many positions at steps it holds.
        mark: how far the stream had come with it.
    """

    path: Path
    places: int
    mark: Mark


def shard_file(number: int) -> str:
    """The name of a shard.

    Examples:
        >>> shard_file(3)
        'shard-00003.safetensors'
    """
    return f"shard-{number:05d}.safetensors"


def write_shard(path: Path, parts: Sequence[Part], mark: Mark, stream: str) -> None:
    """Write rows to a file, whole or not at all.

    Args:
        path: the file.
        parts: the rows, in order.
        mark: how far the stream has come with them.
        stream: the name of the stream.

    Raises:
        OSError: it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    for event in (event for part in parts for event in part.copied):
        event.synchronize()
    columns = Places.joined([part.places for part in parts]).columns()
    tensors = {_COLUMNS + name: column for name, column in columns.items()}
    for name in parts[0].values:
        tensors[_VALUES + name] = torch.cat([part.values[name] for part in parts])
    # One entry, as safetensors writes several in any order, and a file is to be the same bit for bit.
    said = {_SAID: json.dumps({"stream": stream, "batch": mark.batch, "steps": mark.steps})}
    with written(path) as beside:
        try:
            save_file(tensors, beside, said)
        except SafetensorError as error:
            raise OSError(str(error)) from error


def shards_in(folder: Path, stream: str) -> list[Shard]:
    """The finished shards of a stream, in order, up to the first that lacks.

    Raises:
        ValueError: one is damaged, or of another stream.
    """
    found: list[Shard] = []
    while (path := folder / shard_file(len(found))).is_file():
        found.append(_shard(path, stream))
    return found


def _shard(path: Path, stream: str) -> Shard:
    with _opened(path) as file:
        said = json.loads((file.metadata() or {}).get(_SAID, "{}"))
        if said.get("stream") != stream:
            raise ValueError(
                f"{path} is of another stream than the index beside it; expected files of one stream; stream into a "
                f"folder of its own"
            )
        places = file.get_slice(f"{_COLUMNS}prompt").get_shape()[0]
    return Shard(path, places, Mark(said["batch"], said["steps"]))


def _opened(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, "pt")
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is damaged or lacks ({error}); expected what stream wrote; remove it and those after it, and "
            f"stream again"
        ) from error


def read_columns(shard: Shard) -> Places:
    """Where the rows of a shard are from."""
    with _opened(shard.path) as file:
        names = [name for name in file.keys() if name.startswith(_COLUMNS)]
        # Copies: what is mapped from a file ends the process where the file becomes shorter.
        return Places(**{name.removeprefix(_COLUMNS): file.get_tensor(name).clone() for name in names})


def read_values(shard: Shard, name: str, index: Tensor | None) -> Tensor:
    """The values of a hook name, in rows of their own.

    Args:
        shard: the file.
        name: full hook name.
        index: which rows; None is all.
    """
    with _opened(shard.path) as file:
        values = file.get_tensor(f"{_VALUES}{name}")
        return values.clone() if index is None else values[index]
