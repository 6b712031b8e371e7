"""What several commands take: how a model is loaded and decodes, layers as text; and what they print alike."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, fields, replace
from functools import partial
from json import dumps
from pathlib import Path
from typing import Any, Literal

from dlens.files import check_file, write_text

__all__ = [
    "CacheName",
    "LoadOptions",
    "SamplerOptions",
    "cache_of",
    "named",
    "named_workers",
    "numbers",
    "parse_layers",
    "print_notes",
]

CacheName = Literal["prefix", "dual", "delayed", "adaptive", "blocks"]
SamplerName = Literal["ar", "llada", "dream", "threshold", "block", "first-hitting", "ancestral"]

# More layers than any model has: a range beyond is a slip.
_LAYERS = 10_000
# A number, or a range of such from 0.
_LAYERS_PART = re.compile(r"(-?[0-9]{1,9})|([0-9]{1,9})-([0-9]{1,9})")


def named(name: str, hint: str | None = None) -> Any:
    """How an argument is called in the help, and what stands there for its default."""
    import tyro

    return tyro.conf.arg(metavar=name, help_behavior_hint=hint)


@dataclass(frozen=True)
class LoadOptions:
    """How a model is loaded.

    Args:
        trust_remote_code: allow the checkpoint to run code of its own.
        dtype: such as bfloat16; the checkpoint's by default.
        family: autoregressive, masked, masked-shifted, llada, dream or a registered one.
        device_map: such as auto, or cuda.
    """

    trust_remote_code: bool = False
    dtype: str | None = None
    family: str | None = None
    device_map: str | None = None

    def load(self, model: str) -> Any:
        import dlens

        placed = {name: value for name in ("dtype", "device_map") if (value := getattr(self, name)) is not None}
        _check_placed(**placed)
        return dlens.load(model, trust_remote_code=self.trust_remote_code, family=self.family, **placed)


def _check_placed(dtype: str = "auto", device_map: str = "auto") -> None:
    """Refuse a type that torch does not have, and a GPU that it does not see."""
    import torch

    kind = getattr(torch, dtype, None)
    if dtype != "auto" and not (isinstance(kind, torch.dtype) and kind.is_floating_point):
        raise ValueError(f"--dtype {dtype}; expected a type of torch; write float32, bfloat16 or float16")
    device, _, number = device_map.partition(":")
    seen = torch.cuda.device_count()
    if device == "cuda" and int(number or 0 if number.isdecimal() or not number else -1) not in range(seen):
        raise ValueError(
            f"--device-map {device_map} where torch sees {seen} GPUs; expected one of these; write auto or cpu"
        )


@dataclass(frozen=True)
class SamplerOptions:
    """How tokens are decoded; what is not given is the sampler's default.

    Args:
        sampler: ar, llada, dream, threshold, block, first-hitting or ancestral; the model's own by default.
        steps: denoising steps (llada, dream, ancestral), of a block (block).
        block_length: tokens a block (llada, threshold); of a canvas block (block, first-hitting), the model's own by
            default.
        temperature: 0 takes the likeliest token.
        guidance: classifier-free guidance (llada).
        remasking: low_confidence or random (llada).
        eos_inf: never take the end of sequence (llada).
        confidence_eos_inf: take the end of sequence last (llada).
        algorithm: origin, maskgit_plus, topk_margin or entropy (dream).
        alg_temp: temperature of the choice of positions (dream).
        eps: noise level at the end (dream, ancestral).
        top_p: smallest set of tokens with this mass (ar, dream, block, first-hitting).
        top_k: this many likeliest tokens (ar, dream, block).
        threshold: least confidence to commit (threshold, block).
        factor: the factor rule instead of a threshold (threshold).
        edit_threshold: least confidence to replace a decoded token (block).
        small_block: tokens of the parts that a block is filled in (block).
        stop: never, block or token: when an end of sequence ends a row (block, first-hitting).
    """

    sampler: SamplerName | None = None
    steps: int | None = None
    block_length: int | None = None
    temperature: float | None = None
    guidance: float | None = None
    remasking: str | None = None
    eos_inf: bool = False
    confidence_eos_inf: bool = False
    algorithm: str | None = None
    alg_temp: float | None = None
    eps: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    threshold: float | None = None
    factor: float | None = None
    edit_threshold: float | None = None
    small_block: int | None = None
    stop: str | None = None

    def build(self, model: Any) -> Any:
        """The sampler.

        Raises:
            ValueError: an option that this sampler does not have.
        """
        from dlens import samplers

        kinds: dict[str, Any] = {
            "ar": samplers.Autoregressive,
            "llada": samplers.LLaDA,
            "dream": samplers.Dream,
            "threshold": samplers.Threshold,
            "block": samplers.BlockDiffusion,
            "first-hitting": samplers.FirstHitting,
            "ancestral": samplers.Ancestral,
        }
        family = model.family
        if family.block_length is not None:
            own = {"block_length": family.block_length}
            kinds |= {name: partial(kinds[name], **own) for name in ("block", "first-hitting")}
        default = partial(samplers.default_for, family.objective, family.shift, family.block_length)
        base = kinds.get(str(self.sampler), default)()
        given = {
            option.name: value for option in fields(self) if (value := getattr(self, option.name)) != option.default
        }
        given.pop("sampler", None)
        known = [option.name for option in fields(base)]
        for name in given:
            if name not in known:
                raise ValueError(
                    f"{_flag(name)} with the sampler {type(base).__name__}; expected one of "
                    f"{', '.join(map(_flag, known))}; leave it out, or name another --sampler"
                )
        return replace(base, **given)


def cache_of(name: CacheName | None) -> Any:
    """The cache of a name; the model's own where none is given.

    Examples:
        >>> cache_of("delayed"), cache_of(None)
        (Delayed(refresh=8), 'auto')
    """
    from dlens import caches

    return "auto" if name is None else getattr(caches, name.capitalize())()


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def parse_layers(text: str) -> list[int]:
    """Layer numbers from text: single ones, and ranges with both ends.

    Raises:
        ValueError: not numbers.

    Examples:
        >>> parse_layers("3,5-7,-1")
        [3, 5, 6, 7, -1]
    """
    layers: list[int] = []
    for part in text.split(","):
        found = _LAYERS_PART.fullmatch(part.strip())
        if found is None:
            raise ValueError(f"layers {text[:80]!r}; expected numbers, such as 3,4,5 or 3-5; check the commas")
        first, last = int(found[1] or found[2]), int(found[1] or found[3])
        if not first <= last < first + _LAYERS:
            raise ValueError(
                f"layers {part.strip()!r}; expected a range that rises, of at most {_LAYERS} layers; write for example "
                f"3-5"
            )
        layers += range(first, last + 1)
    return layers


@contextmanager
def numbers(json: Path | None) -> Iterator[dict[str, Any]]:
    """What a command found, to be filled in; written as JSON when the body is over.

    Args:
        json: the file; "-" is the output, which then has nothing else: what is printed meanwhile goes to stderr.

    Raises:
        ValueError, OSError: before the body runs: the file cannot be written.
    """
    alone = json is not None and str(json) == "-"
    if json is not None and not alone:
        check_file(json, ".json")
    found: dict[str, Any] = {}
    with redirect_stdout(sys.stderr) if alone else nullcontext():
        yield found
    if json is None:
        return
    from dlens.findings.study.study import plain

    text = dumps(plain(found), indent=1, allow_nan=False)
    if alone:
        print(text)
    else:
        print(f"Wrote {write_text(json, text)}")


def named_workers(text: str) -> str | int:
    """Who computes, from text: a number is that of processes.

    Examples:
        >>> named_workers("4"), named_workers("slurm")
        (4, 'slurm')
    """
    return int(text) if text.isdecimal() else text


def print_notes(notes: Sequence[str]) -> None:
    from dlens.show.terminal import printable

    for note in notes:
        print(f"note: {printable(note)}", file=sys.stderr)
