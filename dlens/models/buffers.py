"""Proof that buffers which no checkpoint holds are what their rule gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from dlens.errors import VerificationError
from dlens.models.compat import rope_parts
from dlens.models.model import Model

__all__ = ["check_rotary", "is_remote"]


def is_remote(module: nn.Module) -> bool:
    """Whether the module's class is code that came with a checkpoint."""
    return type(module).__module__.startswith("transformers_modules.")


def check_rotary(model: Model) -> None:
    """Rotary frequencies are what their rule gives; remote code holds no other buffer outside the checkpoint.

    Such buffers are not in the checkpoint, and loading may leave them as uninitialised memory.
    """
    ruled: set[str] = set()
    for name, part in model.module.named_modules():
        for buffer, expected in _rotary_rules(part):
            ruled.update((f"{name}.{buffer}", f"{name}.{buffer.replace('inv_freq', 'original_inv_freq')}"))
            _compare_frequencies(model, f"{name}.{buffer}", part._buffers[buffer], expected)
    if not is_remote(model.module):
        return
    for name, part in model.module.named_modules():
        for buffer in sorted(part._non_persistent_buffers_set):
            if f"{name}.{buffer}" not in ruled and part._buffers.get(buffer) is not None:
                raise VerificationError(
                    f"buffer {name}.{buffer} of {model.name} is in no checkpoint and dlens knows no rule for it; "
                    f"expected rotary frequencies only; check its values yourself, then pass verify=False"
                )


def _rotary_rules(part: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Buffer name and expected value, for each rotary buffer of one module whose rule is known."""
    rotary: Any = part
    settings = vars(part)
    if any(found is part for _, found in rope_parts(part)):
        yield "inv_freq", rotary.rope_init_fn(rotary.config, None, **settings.get("rope_kwargs", {}))[0]
    elif "inv_freq" in part._buffers and isinstance(settings.get("rope_type"), str):
        yield "inv_freq", _native_rule(part, settings["rope_type"])(rotary.config)[0]
    elif isinstance(settings.get("rope_type"), dict):
        for kind, rope_type in settings["rope_type"].items():
            if f"{kind}_inv_freq" in part._buffers:
                yield f"{kind}_inv_freq", _native_rule(part, rope_type)(rotary.config, layer_type=kind)[0]


def _native_rule(part: Any, rope_type: str) -> Any:
    """The rule that a module of transformers makes its own frequencies by."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    return part.compute_default_rope_parameters if rope_type == "default" else ROPE_INIT_FUNCTIONS[rope_type]


def _compare_frequencies(model: Model, name: str, found: Tensor | None, expected: Tensor) -> None:
    assert found is not None
    if found.is_meta:
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
