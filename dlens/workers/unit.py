"""A unit of a long computation: what it depends on, and a function that computes it, sent to any process."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from dlens.files import written
from dlens.models.model import Model
from dlens.workers.board import Board
from dlens.workers.store import Store

__all__ = ["Models", "Packed", "Packer", "Unit"]


@final
@dataclass(frozen=True, eq=False)
class Unit:
    """What one worker computes in one piece.

    Args:
        asked: all that the result depends on, as plain data; the code of dlens is added.
        compute: gives plain data; it is pickled, with the models that it holds left out.
        words: what it is, for people.

    Examples:
        >>> from functools import partial
        >>> Unit({"sum": [1, 2]}, partial(sum, [1, 2]), "1 + 2").compute()
        3
    """

    asked: Mapping[str, Any]
    compute: Callable[[], Any] = field(repr=False)
    words: str

    def name(self, board: Board) -> str:
        """The name of its result's file."""
        return Store(board.results).place(self.asked).stem


@final
@dataclass(frozen=True, eq=False)
class Packed:
    """A unit in a file.

    Args:
        asked, words: of the unit.
        compute: the pickled function.
        models: the keys of the models that it holds.
        fresh: compute it though there is a result.
    """

    asked: Mapping[str, Any]
    words: str
    compute: bytes = field(repr=False)
    models: tuple[str, ...]
    fresh: bool


@final
class Packer:
    """Writes units, and beside them each model once.

    Args:
        board: where.
    """

    def __init__(self, board: Board) -> None:
        self.board = board
        # By id; the models are held, so that no id is given to another.
        self._keys: dict[int, tuple[Model, str]] = {}

    def write(self, unit: Unit, fresh: bool = False) -> None:
        """Write a unit to do.

        Raises:
            TypeError, pickle.PicklingError: it holds what no other process can have, such as an open file, or a model
                that was made of a torch module.
        """
        used: list[str] = []
        payload = self._pickled(unit, used)
        packed = Packed(dict(unit.asked), unit.words, payload, tuple(dict.fromkeys(used)), fresh)
        _write(self.board.unit(unit.name(self.board)), pickle.dumps(packed))

    @property
    def model_bytes(self) -> int:
        """The size of the largest model among what was written."""
        sizes = [sum(part.nbytes for part in model.module.parameters()) for model, _ in self._keys.values()]
        return max(sizes, default=0)

    def _pickled(self, unit: Unit, used: list[str]) -> bytes:
        import cloudpickle

        packer = self

        class Apart(cloudpickle.Pickler):
            def persistent_id(self, obj: Any) -> str | None:
                if not isinstance(obj, Model):
                    return None
                used.append(packer._key(obj))
                return used[-1]

        buffer = io.BytesIO()
        Apart(buffer).dump(unit.compute)
        return buffer.getvalue()

    def _key(self, model: Model) -> str:
        """The name of a model's file, which is written at first use."""
        if id(model) not in self._keys:
            import cloudpickle

            content = cloudpickle.dumps(model)
            key = hashlib.sha256(content).hexdigest()
            _write(self.board.models / key, content)
            self._keys[id(model)] = model, key
        return self._keys[id(model)][1]


@final
class Models:
    """The models that a worker holds: those of the unit that it computes.

    Args:
        folder: where their files are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: dict[str, Model] = {}

    def function(self, packed: Packed) -> Callable[[], Any]:
        """The function of a unit, with its models; others are let go of before one is loaded."""
        for key in set(self._held) - set(packed.models):
            del self._held[key]
        models = self

        class Together(pickle.Unpickler):
            def persistent_load(self, pid: str) -> Model:
                return models._model(pid)

        return Together(io.BytesIO(packed.compute)).load()

    def _model(self, key: str) -> Model:
        if key not in self._held:
            self._held[key] = pickle.loads((self.folder / key).read_bytes())
        return self._held[key]


def _write(path: Path, content: bytes) -> None:
    with written(path) as beside:
        beside.write_bytes(content)
