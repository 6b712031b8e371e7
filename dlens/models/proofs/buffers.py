"""Proof that buffers which no checkpoint holds are what their rule gives."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from dlens.errors import UnprovedWarning, VerificationError
from dlens.models.compat import rope_parts
from dlens.models.model import Model
from dlens.models.proofs.rotary import RULES, frequencies

__all__ = ["check_rotary", "is_remote"]


def is_remote(module: nn.Module) -> bool:
    """Whether the module's class is code that came with a checkpoint."""
    return type(module).__module__.startswith("transformers_modules.")


def check_rotary(model: Model) -> None:
    """Rotary frequencies are what they should be; remote code holds no other buffer outside the checkpoint.

    Such buffers are not in the checkpoint, and loading may leave them as uninitialised memory. Those of remote
    code must be what the formula of their rule gives, those of transformers what a new module of their class has.
    """
    ruled: set[str] = set()
    for name, part in model.module.named_modules():
        for buffer, expected in _expected(model, name, part):
            ruled.update((f"{name}.{buffer}", f"{name}.{buffer.replace('inv_freq', 'original_inv_freq')}"))
            _compare_frequencies(model, f"{name}.{buffer}", part._buffers[buffer], expected)
    if not is_remote(model.module):
        return
    for name, part in model.module.named_modules():
        for buffer in sorted(part._non_persistent_buffers_set):
            if f"{name}.{buffer}" not in ruled and part._buffers.get(buffer) is not None:
                raise VerificationError(
                    f"buffer {name}.{buffer} of {model.name} is in no checkpoint and dlens knows no rule for it; "
                    f"expected rotary frequencies only, by one of the rules {', '.join(RULES)}; check its values "
                    f"yourself, then pass verify=False"
                )


def _expected(model: Model, name: str, part: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Buffer name and expected value, for each rotary buffer of one module."""
    if any(found is part for _, found in rope_parts(part)):
        rotary: Any = part
        rule = vars(part).get("rope_type", "default")
        if rule in RULES:
            yield "inv_freq", torch.tensor(frequencies(rotary.config, rule), dtype=torch.float64)
        return
    held = [buffer for buffer in part._non_persistent_buffers_set if "inv_freq" in buffer]
    if not held or "config" not in vars(part):
        return
    new = _made_anew(part)
    if new is None:
        warnings.warn(
            f"the rotary frequencies of {model.name} at {name!r} were not proved, as dlens cannot make a "
            f"{type(part).__name__} of its config; look at their values if the model's texts look wrong",
            UnprovedWarning,
            stacklevel=2,
        )
        return
    yield from ((buffer, new._buffers[buffer]) for buffer in held)  # pyright: ignore


def _made_anew(part: nn.Module) -> nn.Module | None:
    """Another module of the same class and config, whose constructor fills its buffers."""
    kind: Any = type(part)
    try:
        with torch.device("cpu"):
            return kind(vars(part)["config"])
    except (TypeError, ValueError, AttributeError, KeyError, RuntimeError):
        return None


def _compare_frequencies(model: Model, name: str, found: Tensor | None, expected: Tensor) -> None:
    if found is None or found.is_meta:
        return
    # The tolerance is that of another device's exp; uninitialised memory does not come near it.
    expected = expected.to(found)
    tolerance = 4 * torch.finfo(found.dtype).eps
    if found.shape != expected.shape or not torch.allclose(found, expected, rtol=tolerance, atol=0):
        raise VerificationError(
            f"{name} of {model.name} begins {found.flatten()[:3].tolist()}; expected "
            f"{expected.flatten()[:3].tolist()}, recomputed from the config; the buffer was lost while loading: load "
            f"the checkpoint with dlens.load, or call the module's own reset of its rotary buffers"
        )
