"""What remote code written for transformers 4 needs to load, and to load right, on transformers 5.

Each shim acts only where its symptom is present, and only on the remote classes themselves: nothing of
transformers is changed.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

__all__ = ["default_rope", "importing", "prepare", "repair", "rope_parts"]

# Names that remote code imports and transformers 5 dropped; what they were is not used where it was asked for.
_DROPPED: dict[str, dict[str, Any]] = {
    "transformers.utils": {"LossKwargs": TypedDict("LossKwargs", {}, total=False)},
    "transformers.utils.import_utils": {"is_torch_fx_available": lambda: False},
    "transformers.pytorch_utils": {"is_torch_greater_or_equal_than_1_13": True},
    "transformers.cache_utils": {"SlidingWindowCache": type("SlidingWindowCache", (), {})},
}
_IMPORTING = threading.RLock()


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


@contextmanager
def importing() -> Iterator[None]:
    """While remote code is imported: names that transformers 5 dropped, and flash_attn where it is not installed.

    What is imported keeps them; afterwards transformers, and what can be imported, is as it was.
    """
    with _IMPORTING:
        added: list[tuple[Any, str]] = []
        for path, names in _DROPPED.items():
            module = import_module(path)
            for name, value in names.items():
                if name not in vars(module):
                    added.append((module, name))
                    setattr(module, name, value)
        stand_ins = {} if _is_installed("flash_attn") else _flash_attn()
        sys.modules.update(stand_ins)
        try:
            yield
        finally:
            for module, name in added:
                delattr(module, name)
            for name in stand_ins:
                sys.modules.pop(name, None)


def _is_installed(package: str) -> bool:
    try:
        import_module(package)
    except ImportError:
        return False
    return True


def _flash_attn() -> dict[str, ModuleType]:
    """Modules that compute what functions of flash_attn do, in plain PyTorch; without version or file, so that nobody
    takes them for the package."""
    functions: dict[str, dict[str, Callable[..., Any]]] = {
        "flash_attn": {"flash_attn_func": _flash_attention, "flash_attn_varlen_func": _unknown},
        "flash_attn.flash_attn_interface": {"flash_attn_varlen_qkvpacked_func": _packed_attention},
        "flash_attn.bert_padding": dict.fromkeys(("index_first_axis", "pad_input", "unpad_input"), _unknown),
        "flash_attn.layers": {},
        "flash_attn.layers.rotary": {"apply_rotary_emb_qkv_": _rotate_packed},
        "flash_attn.ops": {},
        "flash_attn.ops.triton": {},
        "flash_attn.ops.triton.layer_norm": {"rms_norm_fn": _rms_norm},
    }
    made: dict[str, ModuleType] = {}
    for name, members in functions.items():
        module = made[name] = ModuleType(name)
        module.__spec__, module.__path__ = ModuleSpec(name, None, is_package=True), []
        vars(module).update(members)
        parent, _, own = name.rpartition(".")
        if parent:
            setattr(made[parent], own, module)
    return made


def _unknown(*args: Any, **kwargs: Any) -> Any:
    raise ImportError(
        "the checkpoint's code calls a function of flash_attn that dlens has no stand-in for; expected one that "
        "computes attention, a norm or rotations; install flash_attn, or load with attn_implementation='sdpa'"
    )


def _flash_attention(
    q: Tensor, k: Tensor, v: Tensor, causal: bool = False, softmax_scale: float | None = None, **kwargs: Any
) -> Tensor:
    """Attention of heads [batch, position, head, d_head]; a causal query is aligned with the last key."""
    q, k, v = (heads.transpose(1, 2) for heads in (q, k, v))
    mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril(k.shape[2] - q.shape[2])
    mixed = nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=mask if causal else None, scale=softmax_scale, enable_gqa=q.shape[1] != k.shape[1]
    )
    return mixed.transpose(1, 2)


def _packed_attention(
    qkv: Tensor, cu_seqlens: Tensor, max_seqlen: int, dropout_p: float = 0.0, causal: bool = False, **kwargs: Any
) -> Tensor:
    """Attention within rows of one length, [row and position, 3, head, d_head] in a line."""
    heads = qkv.unflatten(0, (-1, int(max_seqlen)))
    return _flash_attention(*heads.unbind(2), causal=causal).flatten(0, 1)


def _rotate_packed(qkv: Tensor, cos: Tensor, sin: Tensor, **kwargs: Any) -> Tensor:
    """Rotate queries and keys of [batch, position, 3, head, d_head] in place, each by [position, d_head / 2] angles."""
    first, second = qkv[:, :, :2].chunk(2, dim=-1)
    cos, sin = (angle[: qkv.shape[1], None, None].to(qkv.dtype) for angle in (cos, sin))
    qkv[:, :, :2] = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return qkv


def _rms_norm(x: Tensor, weight: Tensor, bias: Tensor | None = None, eps: float = 1e-6, **kwargs: Any) -> Tensor:
    """x over the root of its mean square, in float32, times the weight."""
    wide = x.float()
    normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    scaled = normed * weight.float()
    return (scaled if bias is None else scaled + bias.float()).to(x.dtype)


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
    """Fill again what `from_pretrained` leaves empty: rotary buffers, as uninitialised memory, and tensors that are
    plain attributes, such as BD3-LM's mask, without memory.

    They are in no checkpoint, and remote code does not tell transformers 5 how to make them.
    """
    _remake(module)
    for _, part in rope_parts(module):
        rotary: Any = part
        frequencies, rotary.attention_scaling = rotary.rope_init_fn(
            rotary.config, rotary.inv_freq.device, **vars(rotary).get("rope_kwargs", {})
        )
        rotary.register_buffer("inv_freq", frequencies, persistent=False)
        rotary.original_inv_freq = frequencies


def _remake(module: Any) -> None:
    """Take plain tensors that were made without memory from another module of the same class."""
    lost = [
        (path, name)
        for path, part in module.named_modules()
        for name, value in vars(part).items()
        if isinstance(value, Tensor) and value.is_meta
    ]
    new = type(module)(module.config) if lost else module
    for path, name in lost:
        setattr(module.get_submodule(path), name, getattr(new.get_submodule(path), name))
