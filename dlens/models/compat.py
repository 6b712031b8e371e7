"""What remote code written for transformers 4 needs to load, and to load right, on transformers 5.

Each shim acts only where its symptom is present, and only on the remote classes themselves: nothing of
transformers is changed.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["default_rope", "prepare", "repair", "rope_parts"]


def prepare(model_class: type, config_class: type) -> None:
    """Patch remote classes before anything is made of them.

    Args:
        model_class: the remote model class.
        config_class: its config class.
    """
    if not hasattr(config_class, "use_cache"):
        config_class.use_cache = False  # pyright: ignore
    if not hasattr(model_class, "all_tied_weights_keys"):
        # Set by `post_init`, which some models never call; an instance that does hides this.
        model_class.all_tied_weights_keys = {}  # pyright: ignore
    if isinstance(vars(model_class).get("_tied_weights_keys"), list):
        model_class._tied_weights_keys = None  # pyright: ignore
    for method, argument in (("tie_weights", "missing_keys"), ("validate", "user_set_attributes")):
        for part in _remote_classes(model_class):
            _accept(part, method, argument)
    _own_rope_table(sys.modules[model_class.__module__])


def _remote_classes(model_class: type) -> Iterator[type]:
    """The model class, and generation configs that the remote code defines for it."""
    from transformers import GenerationConfig

    yield model_class
    for value in vars(sys.modules[model_class.__module__]).values():
        if isinstance(value, type) and issubclass(value, GenerationConfig) and value is not GenerationConfig:
            yield value


def _accept(owner: type, method: str, argument: str) -> None:
    """Let a method that transformers 5 calls with a new argument accept and ignore it."""
    original: Callable[..., Any] | None = vars(owner).get(method)
    if original is None:
        return
    parameters = inspect.signature(original).parameters
    if argument in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    setattr(owner, method, lambda self, *args, **kwargs: original(self))


def _own_rope_table(module: Any) -> None:
    """Give remote code its own rotary table with the "default" rule that transformers 5 dropped.

    A global entry would override the rules that native models bring themselves.
    """
    table = vars(module).get("ROPE_INIT_FUNCTIONS")
    if table is not None and "default" not in table:
        module.ROPE_INIT_FUNCTIONS = {**table, "default": default_rope}


def default_rope(config: Any, device: Any = None, seq_len: int | None = None, **kwargs: Any) -> tuple[Tensor, float]:
    """Unscaled rotary frequencies, base ** (-2i / dim), and their scale of 1.

    Args:
        config: holds the base in `rope_parameters["rope_theta"]` or `rope_theta`, the head's width, and the share of
            it that is rotated.
        device: where the frequencies go.
        seq_len: not used.
        kwargs: not used.

    Returns:
        [dim / 2] frequencies in radians a position, and the factor of cos and sin.
    """
    settings = config.to_dict()
    parameters = settings.get("rope_parameters") or {}
    base = parameters.get("rope_theta") or settings["rope_theta"]
    share = parameters.get("partial_rotary_factor") or settings.get("partial_rotary_factor") or 1.0
    dim = int((settings.get("head_dim") or config.hidden_size // config.num_attention_heads) * share)
    exponent = torch.arange(0, dim, 2, dtype=torch.int64).to(device=device, dtype=torch.float) / dim
    return 1.0 / (base**exponent), 1.0


def rope_parts(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The rotary modules of remote code: those that hold `inv_freq` and the rule it was made by."""
    for name, part in module.named_modules():
        if "inv_freq" in part._buffers and "rope_init_fn" in vars(part):
            yield name, part


def repair(module: nn.Module) -> None:
    """Fill rotary buffers again after `from_pretrained`, which leaves them as uninitialised memory.

    They are in no checkpoint, and remote code does not tell transformers 5 how to make them.
    """
    for _, part in rope_parts(module):
        rotary: Any = part
        frequencies, rotary.attention_scaling = rotary.rope_init_fn(
            rotary.config, rotary.inv_freq.device, **vars(rotary).get("rope_kwargs", {})
        )
        rotary.register_buffer("inv_freq", frequencies, persistent=False)
        rotary.original_inv_freq = frequencies
