"""What was done to the weights of a compressed model, matrix by matrix, as data that is saved beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from dlens.checks import check_fields

__all__ = ["COMPRESSION_FILE", "Compression", "Treated", "read_compression", "settings_words"]

COMPRESSION_FILE = "dlens_compression.json"


@final
@dataclass(frozen=True)
class Treated:
    """One matrix that was compressed.

    Args:
        layer: of the block; None for the head and the embedding.
        matrix: its path below the block.
        weights: how many it has.
        levels: the most distinct values that a group of a row has now, counted; None where nothing was rounded.
        asked: the share of zeros asked for; None where nothing was pruned.
        zeros: the share that is zero now, counted.
        kept: the share that was protected.
        change: |W' - W| / |W|, of the weights.
        output_change: |(W' - W) X| / |W X| on the calibration text as it reached this matrix; None where the method
            does not need that text's correlations.
    """

    layer: int | None
    matrix: str
    weights: int
    levels: int | None
    asked: float | None
    zeros: float
    kept: float
    change: float
    output_change: float | None

    def __post_init__(self) -> None:
        check_fields(self, "let dlens.compress make it")


@final
@dataclass(frozen=True)
class Compression:
    """What `dlens.compress` did; `model.compression`.

    Args:
        model: the name of the model that was compressed.
        settings: as asked, with what was left open filled in.
        treated: the matrices that were compressed.
        left_out: matrix -> why it was not; beside embedding, head, norms and biases, which never are unless asked.
        share: of all weights of the model, those that were compressed.
        seconds: how long it took.
        before: what had been done to the model before.

    Examples:
        >>> import dlens
        >>> small = dlens.compress("trio/ar", method="rtn", bits=3, group=64)
        >>> small.compression
        rtn, 3 bits, group 64 of trio/ar: 112 matrices; 0.90 of all weights, 3.25 bits each
        >>> small.compression.table()[0]["matrix"], small.compression.table()[0]["levels"]
        ('self_attn.q_proj', 8)
        >>> Compression.from_json(small.compression.to_json()) == small.compression
        True
    """

    model: str
    settings: Mapping[str, Any]
    treated: tuple[Treated, ...]
    left_out: Mapping[str, str]
    share: float
    seconds: float
    before: Compression | None = None

    def __post_init__(self) -> None:
        check_fields(self, "let dlens.compress make it", Treated, Compression)

    @property
    def words(self) -> str:
        """The settings that matter, in a few words."""
        return settings_words(self.settings)

    @property
    def bits(self) -> float | None:
        """Bits a treated weight needs, with the 16 of each group's scale (and `bits` of its zero, if it has one)."""
        own = self.settings
        if own["bits"] is None:
            return None
        shared = 16 + (0 if own["symmetric"] else own["bits"])
        columns = own["group"]
        return own["bits"] + (shared / columns if columns else 0.0)

    @property
    def zeros(self) -> float:
        """The share of the treated weights that is zero now."""
        return sum(one.zeros * one.weights for one in self.treated) / sum(one.weights for one in self.treated)

    def table(self) -> list[dict[str, Any]]:
        """One row for each matrix."""
        return [asdict(one) for one in self.treated]

    def to_json(self) -> str:
        """All of it, as text."""
        return json.dumps(asdict(self), indent=1)

    @staticmethod
    def from_json(text: str) -> Compression:
        """What `to_json` wrote.

        Raises:
            ValueError: something else.
        """
        try:
            return _of(json.loads(text))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"a text of {len(text)} characters that is no compression ({type(error).__name__}: {error}); expected "
                f"what Compression.to_json wrote; save the model again"
            ) from error

    def __repr__(self) -> str:
        many = f"{len(self.treated)} matrices"
        out = f", {len(self.left_out)} left out ({', '.join(list(self.left_out)[:3])})" if self.left_out else ""
        size = f"{self.zeros:.2f} of them zero" if self.bits is None else f"{self.bits:.2f} bits each"
        done = f"{self.words} of {self.model}: {many}{out}; {self.share:.2f} of all weights, {size}"
        return done if self.before is None else f"{done}; before that {self.before}"


def settings_words(settings: Mapping[str, Any]) -> str:
    """The settings of a compression that matter, in a few words.

    Examples:
        >>> settings_words({"method": "wanda", "bits": None, "allocation": "owl", "sparsity": 0.5})
        'wanda, 50 % zeros, owl'
    """
    parts = [settings["method"]]
    if settings["bits"] is not None:
        group = settings["group"]
        parts += [f"{settings['bits']} bits", "whole rows" if group is None else f"group {group}"]
        parts += [] if settings["symmetric"] else ["asymmetric"]
    else:
        named = settings["allocation"] if isinstance(settings["allocation"], str) else "own allocation"
        parts += [f"{100 * settings['sparsity']:g} % zeros", named]
    return ", ".join(parts)


def _of(found: Any) -> Compression:
    treated = tuple(Treated(**one) for one in found["treated"])
    before = found["before"] and _of(found["before"])
    return Compression(**{**found, "treated": treated, "before": before})


def read_compression(folder: str | Path) -> Compression | None:
    """What was done to the model in a folder; None where nothing is said.

    Raises:
        ValueError: the file is damaged.
    """
    path = Path(folder) / COMPRESSION_FILE
    if not path.is_file():
        return None
    try:
        return Compression.from_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
