"""What a study holds of a model: every part that was measured, with its fields and shapes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, final, get_args

import numpy as np
from jaxtyping import Float

from dlens.findings.effects.change import Change
from dlens.findings.scores.estimate import Curve
from dlens.models.family import Family
from dlens.ops.base.scope import Third

__all__ = [
    "KINDS",
    "Answers",
    "Compressed",
    "Disrupted",
    "Losses",
    "ModelKind",
    "ModelStudy",
    "Part",
    "Reading",
    "Solved",
    "Spectra",
    "TextReading",
    "Thirds",
    "kind_of",
]

ModelKind = Literal["diffusion", "ar", "ar-init"]
KINDS: tuple[ModelKind, ...] = get_args(ModelKind)
ByLayer = Float[np.ndarray, "text layer"]


def kind_of(family: Family) -> ModelKind:
    """What a model is, as far as its family says.

    A diffusion model whose logits are shifted by one is taken to have started from an autoregressive
    model, as Dream has; nothing in a checkpoint says so.

    Examples:
        >>> kind_of(Family(name="masked", objective="diffusion", shift=0))
        'diffusion'
    """
    if family.objective == "autoregressive":
        return "ar"
    return "ar-init" if family.shift else "diffusion"


class Part(ABC):
    """What is measured of a model in one piece; each reads with `from_json` what it wrote."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""


@final
@dataclass(frozen=True, eq=False)
class TextReading:
    """What every layer does while a model reads texts at one share of masked tokens.

    Args:
        cosine: of what enters and leaves each block, over all positions.
        cosine_masked, cosine_unmasked: of masked positions, and of the others; NaN where there are none.
        share: the largest channel's part of the energy.
        early_share, early_next_share: those of the two largest channels of the first third of the blocks.
        recency: recency index of what leaves each block.
        similarity: cosine of two positions by their distance, averaged over layers.
    """

    cosine: ByLayer
    cosine_masked: ByLayer
    cosine_unmasked: ByLayer
    share: ByLayer
    early_share: ByLayer
    early_next_share: ByLayer
    recency: ByLayer
    similarity: Float[np.ndarray, "text distance"]

    @staticmethod
    def of(texts: Sequence[Mapping[str, Any]]) -> TextReading:
        """From the same numbers of one text each."""
        return TextReading(**{name: np.array([text[name] for text in texts], float) for name in texts[0]})

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {name: values.tolist() for name, values in vars(self).items()}

    @staticmethod
    def from_json(entry: Mapping[str, Any]) -> TextReading:
        """What `to_json` wrote."""
        return TextReading(**{name: np.array(values, float) for name, values in entry.items()})


@final
@dataclass(frozen=True, eq=False)
class Reading(Part):
    """What a model does while it reads the texts of a study.

    Args:
        channel: the one with the largest share of the stream's energy on the calibration text, over all blocks but
            the last.
        share: that share.
        early_channels: the two largest of the first third of the blocks.
        noise: share of masked tokens -> what was read; 0 alone for a model without masks.
    """

    channel: int
    share: float
    early_channels: tuple[int, int]
    noise: Mapping[float, TextReading]

    @property
    def clean(self) -> TextReading:
        """What was read of text without masks."""
        return self.noise[0.0]

    @property
    def masked(self) -> dict[float, TextReading]:
        """What was read of text with masks, by their share."""
        return {rate: texts for rate, texts in self.noise.items() if rate}

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        noise = {f"{rate:g}": texts.to_json() for rate, texts in self.noise.items()}
        return vars(self) | {"early_channels": list(self.early_channels), "noise": noise}

    @staticmethod
    def from_json(entry: Mapping[str, Any]) -> Reading:
        """What `to_json` wrote."""
        first, second = entry["early_channels"]
        noise = {float(rate): TextReading.from_json(texts) for rate, texts in entry["noise"].items()}
        return Reading(entry["channel"], entry["share"], (first, second), noise)


@final
@dataclass(frozen=True)
class Losses(Part):
    """How well a model with a change predicts texts.

    Args:
        losses: of each text, in nats a token.
        estimator: which loss it is.
        flops_saved: share of the floating-point operations of a forward, as counted.
    """

    losses: tuple[float, ...]
    estimator: str
    flops_saved: float

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return vars(self) | {"losses": list(self.losses)}

    @staticmethod
    def from_json(entry: Mapping[str, Any]) -> Losses:
        """What `to_json` wrote."""
        return Losses(tuple(entry["losses"]), entry["estimator"], entry["flops_saved"])


@final
@dataclass(frozen=True)
class Answers(Part):
    """What a model with a change answers.

    Args:
        correct: whether each problem is solved.
        repetition: share of repeated 4-grams in an answer; NaN where all are shorter.
        examples: the first answers, their first 200 characters.
        notes: what the runs did differently from what one may expect.
    """

    correct: tuple[bool, ...]
    repetition: float
    examples: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data; 1 where a problem is solved."""
        lists = {"correct": _digits(self.correct), "examples": list(self.examples), "notes": list(self.notes)}
        return vars(self) | lists

    @staticmethod
    def from_json(entry: Mapping[str, Any]) -> Answers:
        """What `to_json` wrote."""
        correct, repetition = _solved(entry["correct"]), entry["repetition"]
        return Answers(correct, repetition, tuple(entry["examples"]), tuple(entry["notes"]))


@final
@dataclass(frozen=True, eq=False)
class Disrupted(Part):
    """Cosine of the stream with and without blocks, at the positions whose logits decide the tokens to come.

    Args:
        cosine, low, high: mean over prompts with its 95 % interval.
        fraction: shares of decided tokens at which streams are compared.
        n: prompts.
    """

    cosine: Float[np.ndarray, "fraction layer"]
    low: Float[np.ndarray, "fraction layer"]
    high: Float[np.ndarray, "fraction layer"]
    fraction: tuple[float, ...]
    n: int

    def at(self, fraction: float) -> Curve:
        """By layer, where a share of the tokens is decided."""
        place = self.fraction.index(fraction)
        return Curve(self.cosine[place], self.low[place], self.high[place], self.n)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        arrays = {name: getattr(self, name).tolist() for name in ("cosine", "low", "high")}
        return vars(self) | arrays | {"fraction": list(self.fraction)}

    @staticmethod
    def from_json(entry: Mapping[str, Any]) -> Disrupted:
        """What `to_json` wrote."""
        cosine, low, high = (np.array(entry[name], float) for name in ("cosine", "low", "high"))
        return Disrupted(cosine, low, high, tuple(entry["fraction"]), entry["n"])


@final
@dataclass(frozen=True)
class Solved:
    """Whether each problem is solved, without and with a change."""

    before: tuple[bool, ...]
    after: tuple[bool, ...]


@final
@dataclass(frozen=True)
class Thirds(Part):
    """What is solved where blocks are skipped in one third of decoding only.

    Args:
        kept: "early", "middle", "late" -> what is solved.
        notes: what a third is.
    """

    kept: Mapping[Third, Solved]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data; 1 where a problem is solved."""
        kept = {name: {"before": _digits(own.before), "after": _digits(own.after)} for name, own in self.kept.items()}
        return {"kept": kept, "notes": list(self.notes)}

    @staticmethod
    def from_json(entry: Mapping[str, Any]) -> Thirds:
        """What `to_json` wrote."""
        kept = {name: Solved(_solved(own["before"]), _solved(own["after"])) for name, own in entry["kept"].items()}
        return Thirds(kept, tuple(entry["notes"]))


@final
@dataclass(frozen=True)
class Compressed(Part):
    """What a compressed model answers and predicts.

    Args:
        words: what was done to it.
        left_out: the matrices that were not compressed.
        correct: whether each problem is solved.
        losses: of each text, in nats a token.
    """

    words: str
    left_out: tuple[str, ...]
    correct: tuple[bool, ...]
    losses: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data; 1 where a problem is solved."""
        lists = {"left_out": list(self.left_out), "losses": list(self.losses)}
        return vars(self) | lists | {"correct": _digits(self.correct)}

    @staticmethod
    def from_json(entry: Mapping[str, Any]) -> Compressed:
        """What `to_json` wrote."""
        left_out, losses = tuple(entry["left_out"]), tuple(entry["losses"])
        return Compressed(entry["words"], left_out, _solved(entry["correct"]), losses)


@final
@dataclass(frozen=True, eq=False)
class Spectra(Part):
    """How heavy the tails of the weights' spectra are.

    Args:
        alpha: the exponent of each matrix; NaN where a block has no such matrix.
    """

    alpha: Float[np.ndarray, "layer matrix"]

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {"alpha": self.alpha.tolist()}

    @staticmethod
    def from_json(entry: Mapping[str, Any]) -> Spectra:
        """What `to_json` wrote."""
        return Spectra(np.array(entry["alpha"], float))


@final
@dataclass(frozen=True, eq=False)
class ModelStudy:
    """All that was measured of one model.

    Args:
        kind: what the model is, which decides what the papers claim of it.
        family, n_layers, d_model: what was loaded, and its size.
        reading: what its layers do on text.
        changes: name -> what was changed.
        losses: of every change.
        answers: of some changes.
        disruption, thirds: of the change "apart"; None where they were not asked.
        compressed: recipe -> what the compressed model does; empty where it was not asked.
        spectra: of its weights; None where they were not asked.
    """

    kind: ModelKind
    family: str
    n_layers: int
    d_model: int
    reading: Reading
    changes: Mapping[str, Change]
    losses: Mapping[str, Losses]
    answers: Mapping[str, Answers]
    disruption: Disrupted | None = None
    thirds: Thirds | None = None
    compressed: Mapping[str, Compressed] = field(default_factory=dict)
    spectra: Spectra | None = None

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        asked = {"disruption": self.disruption, "thirds": self.thirds, "spectra": self.spectra}
        small = {name: own.to_json() for name, own in self.compressed.items()}
        return {
            "kind": self.kind,
            "family": self.family,
            "n_layers": self.n_layers,
            "d_model": self.d_model,
            "reading": self.reading.to_json(),
            "changes": {name: change.words for name, change in self.changes.items()},
            "skipped": {name: list(change.layers) for name, change in self.changes.items()},
            "losses": {name: own.to_json() for name, own in self.losses.items()},
            "answers": {name: own.to_json() for name, own in self.answers.items()},
            **({"compressed": small} if small else {}),
        } | {name: own.to_json() for name, own in asked.items() if own is not None}


def _digits(solved: Sequence[bool]) -> list[int]:
    return [int(right) for right in solved]


def _solved(digits: Sequence[int]) -> tuple[bool, ...]:
    return tuple(bool(digit) for digit in digits)
