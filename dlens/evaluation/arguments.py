"""Read the arguments of `lm_eval --model dlens --model_args ...`: a model, what is done to it, how it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import torch

from dlens import samplers
from dlens.axes import respell
from dlens.checks import quoted, refuse, require_word, whole
from dlens.evaluation.likelihood import Bound
from dlens.findings.scores.decoding import Decoding
from dlens.models.load import load
from dlens.models.model import Model
from dlens.samplers import Sampler, default_for
from dlens.tracing.chain import Trace, trace

__all__ = ["read_arguments"]

_LOADING = ("family", "dtype", "device_map", "revision", "attn_implementation", "trust_remote_code")
_CHANGES = ("skip", "part", "ablate_outlier")
_BOUND = tuple(each.name for each in fields(Bound))
_DECODING = ("batch_size", "max_new_tokens", "seed")
_SAMPLERS = {
    each.__name__: each
    for each in (
        samplers.Autoregressive,
        samplers.LLaDA,
        samplers.Dream,
        samplers.Threshold,
        samplers.BlockDiffusion,
        samplers.FirstHitting,
        samplers.Ancestral,
    )
}
_SETTINGS = tuple(dict.fromkeys(each.name for kind in _SAMPLERS.values() for each in fields(kind)))
# What lm-eval adds from options of its own; the last one only matters for batches that it sizes itself.
_ADDED = ("device", "max_batch_size")
_KNOWN = tuple(
    dict.fromkeys(("pretrained", "model", *_LOADING, *_CHANGES, "sampler", *_SETTINGS, *_BOUND, *_DECODING, *_ADDED))
)


def read_arguments(given: Mapping[str, Any]) -> tuple[Trace, Bound, Decoding]:
    """What the arguments ask for.

    `pretrained` (or `model`) and what `dlens.load` takes: family, dtype, device_map, revision, attn_implementation,
    trust_remote_code. `skip=3-4-5` with `part=attn`, and `ablate_outlier=true` or its channel, change the model.
    `sampler=LLaDA` with its settings, such as `steps=64,block_length=32`, `max_new_tokens`, `batch_size` and `seed` say
    how it answers; `draws`, `guidance` and `check_greedy` how its likelihood is bounded.

    Args:
        given: name -> value, as lm-eval reads them: numbers, True and False, other text.

    Raises:
        ValueError: an argument that is not known, or of no such value; before the model is loaded, where that shows.

    Examples:
        >>> chain, bound, decoding = read_arguments({"pretrained": "trio/diffusion", "skip": "3-4", "steps": 8})
        >>> print(chain)
        trace of trio/diffusion (16 layers, diffusion)
          skip layers 3, 4
        >>> bound.draws, decoding.sampler.steps
        (128, 8)
    """
    if other := [name for name in given if name not in _KNOWN]:
        raise ValueError(f"argument {other[0]!r}; expected one of {', '.join(_KNOWN)}; {respell(other[0], _KNOWN)}")
    name = given.get("pretrained", given.get("model"))
    if not isinstance(name, str):
        refuse("pretrained", name, "the name or folder of a model", "write for example pretrained=trio/ar")
    batch_size, layers = _batch_size(given), _layers(given)
    bound = Bound(**{each: given[each] for each in _BOUND if each in given})
    model = load(name, **_loading(given))
    chain = trace(model) if layers is None else trace(model).skip(layers, part=given.get("part", "block"))
    outlier = given.get("ablate_outlier", False)
    if outlier is not False:
        chain = chain.ablate_outlier(None if outlier is True else outlier)
    own = {each: given[each] for each in ("max_new_tokens", "seed") if each in given}
    return chain, bound, Decoding(sampler=_sampler(model, given), batch_size=batch_size, **own)


def _loading(given: Mapping[str, Any]) -> dict[str, Any]:
    """What `dlens.load` is given; a device is where all of the model goes."""
    device = given.get("device")
    # lm-eval asks for CUDA by default, and its own models take the CPU where there is none.
    placed = device is not None and (torch.cuda.is_available() or not str(device).startswith("cuda"))
    return ({"device_map": device} if placed else {}) | {each: given[each] for each in _LOADING if each in given}


def _batch_size(given: Mapping[str, Any]) -> int:
    """Rows of a forward; lm-eval's option of this name comes as text."""
    size = given.get("batch_size", 8)
    if not str(size).isdecimal():
        refuse("batch_size", size, "a whole number, rows a forward", "write for example batch_size=8")
    return int(size)


def _layers(given: Mapping[str, Any]) -> list[int] | None:
    """The layers of `skip=3-4-5`; None where none are named."""
    if "skip" not in given:
        if "part" in given:
            refuse("part", given["part"], "skip= with it", "write for example skip=3-4-5,part=attn")
        return None
    layers = given["skip"]
    places = [layers] if whole(layers) is not None else str(layers).split("-")
    if not all(str(each).isdecimal() for each in places):
        refuse("skip", layers, "layers with a dash between them", "write for example skip=3-4-5")
    return [int(each) for each in places]


def _sampler(model: Model, given: Mapping[str, Any]) -> Sampler | None:
    """A sampler by its name and settings; None where there is neither."""
    settings = {each: given[each] for each in _SETTINGS if each in given}
    if "sampler" in given:
        require_word("sampler", given["sampler"], _SAMPLERS)
        base: Any = _SAMPLERS[given["sampler"]]()
    else:
        base = default_for(model.family.objective, model.family.shift, model.family.block_length)
    known = {each.name for each in fields(base)}
    # Guidance bounds the likelihood too, whatever decodes.
    own = {name: value for name, value in settings.items() if name in known}
    if other := [name for name in settings if name not in known and name not in _BOUND]:
        raise ValueError(
            f"{other[0]}={quoted(settings[other[0]])} with the sampler {type(base).__name__}; expected one of "
            f"{', '.join(sorted(known))}; take another sampler, or leave it out"
        )
    return replace(base, **own) if own or "sampler" in given else None
