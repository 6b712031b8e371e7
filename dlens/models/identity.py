"""What a module computes, in one name, and how a model reads text: what could change a logit changes it."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from inspect import ismethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dlens.digest import Reader, function_digest, unlike, value_digest
from dlens.models.packed import plain_tensors
from dlens.models.wrapper import inner_forward

if TYPE_CHECKING:
    from dlens.models.model import Model

__all__ = ["foreign_parts", "identity", "outline", "parts_of", "reading", "structure"]

_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
# What torch, nnsight and accelerate keep on every module, read apart or of no effect on what it computes.
_KEPT = frozenset((*vars(nn.Module()), "forward", "__nnsight__", "_hf_hook", "_old_forward"))
_PLAIN = frozenset((bool, int, float, str))
# Code of checkpoints stands in modules that are named by its commit.
_KNOWN = ("torch", "transformers", "transformers_modules", "accelerate", "nnsight", "dlens", "builtins", "functools")
# What transformers keeps of how a checkpoint was read, and would be spread over devices or saved.
_READ = frozenset(
    """_ep_plan _fsdp_plan _is_hf_initialized _keep_in_fp32_modules _keep_in_fp32_modules_strict
    _keys_to_ignore_on_load_missing _keys_to_ignore_on_load_unexpected _keys_to_ignore_on_save _no_split_modules
    _pp_plan _skip_keys_device_placement _tp_plan _tp_size _device_mesh _use_kernels _weight_conversions
    all_tied_weights_keys hf_device_map loss_type name_or_path warnings_issued""".split()
)
# Of a config, what says where it came from, or differs from process to process.
_NAMES = ("_name_or_path", "transformers_version", "_original_object_hash", "architectures")
_CHUNK = 1 << 20


def structure(module: nn.Module) -> str:
    """The name of a computation whatever its weights hold: parts, shapes, dtypes, settings, adapters, code.

    Args:
        module: a model.

    Returns:
        Hexadecimal digits; new ones at every call where a function of someone else's hooks into the module, as
        nothing is known of what it does.

    Examples:
        >>> a, b = nn.Linear(3, 2), nn.Linear(3, 2)
        >>> structure(a) == structure(b) != structure(nn.Linear(2, 3))
        True
    """
    return _digest(_facts(module, _form))


def identity(module: nn.Module) -> str:
    """The name of a computation: its structure, and every byte of what it computes with.

    Bytes are read at every call: torch counts the writes to a tensor, but not those to its `.data`.

    Args:
        module: a model.

    Returns:
        As `structure`.

    Examples:
        >>> part = nn.Linear(3, 2)
        >>> before = identity(part)
        >>> _ = part.weight.data[:, [0, 1]].neg_()
        >>> identity(part) == before
        True
        >>> _ = part.weight.data[0].neg_()
        >>> identity(part) == before
        False
    """
    return _digest(itertools.chain(_facts(module, _filled), _contents(module)))


def outline(module: nn.Module) -> int:
    """What decides how much a module computes, told in a millisecond: to notice a change of it in this process.

    Its parts by their kinds, the shapes of what they hold, their numbers, flags and words, and the kernel of
    attention.

    Examples:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        >>> before = outline(model)
        >>> del model[1]
        >>> outline(model) == before
        False
    """
    facts: list[Any] = [getattr(getattr(module, "config", None), "_attn_implementation", None)]
    for part in parts_of(module):
        held = (*part._parameters.values(), *part._buffers.values())
        facts += (type(part), *(None if tensor is None else (tensor.shape, tensor.dtype) for tensor in held))
        facts += _plain(vars(part))
    return hash(tuple(facts))


def parts_of(module: nn.Module) -> list[nn.Module]:
    """What `module.modules()` gives, in a tenth of its time.

    Examples:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU()))
        >>> parts_of(model) == list(model.modules())
        True
    """
    found: dict[nn.Module, None] = {}
    left = [module]
    while left:
        part = left.pop()
        if part not in found:
            found[part] = None
            left += [child for child in reversed(part._modules.values()) if child is not None]
    return list(found)


def _plain(settings: dict[str, Any]) -> list[Any]:
    """Numbers, flags, words and lists of words, by their names."""
    found: list[Any] = []
    # A copy, as a run in another thread hangs hooks on modules meanwhile.
    for key, value in list(settings.items()):
        kind = type(value)
        # How long the longest text was is no setting: forwards write it.
        if kind in _PLAIN and key not in _KEPT and "cached" not in key:
            found += (key, value)
        elif kind is list and value and set(map(type, value)) == {str}:
            found += (key, tuple(value))
    return found


def foreign_parts(module: nn.Module) -> list[str]:
    """The parts of a module around whose forward somebody's own function stands: a hook, or another forward.

    Examples:
        >>> def halved(part, args, out):
        ...     return out / 2
        >>> halved.__module__ = "notebook"
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        >>> handle = model[1].register_forward_hook(halved)
        >>> foreign_parts(model)
        ['1']
    """
    return [name for name, part in module.named_modules() if not all(map(_is_known, _around(part)))]


def _around(part: nn.Module) -> list[Any]:
    """The hooks of a part but dlens's own, which change nothing, and its forward where that is not its class's."""
    hooks = [
        hook for kind in _HOOKS for hook in tuple(vars(part)[kind].values()) if not _name(hook).startswith("dlens.")
    ]
    own = inner_forward(part)
    return hooks if own is type(part).forward else [*hooks, own]


def _digest(facts: Iterator[Any]) -> str:
    return hashlib.sha256("\n".join(map(repr, facts)).encode()).hexdigest()


def _facts(module: nn.Module, tensor: Callable[[Tensor], Any]) -> Iterator[Any]:
    config: Any = getattr(module, "config", None)
    apart = frozenset((*map(id, module.modules()), id(config)))
    reader = Reader(tensor, lambda value: type(value) if id(value) in apart else _plainer(value))
    yield None if config is None else reader.read(_settings(config))
    yield torch.get_float32_matmul_precision()
    yield [(torch.is_autocast_enabled(kind), str(torch.get_autocast_dtype(kind))) for kind in ("cpu", "cuda")]
    yield sorted((_name(kind), reader.read(kind)) for kind in {type(part) for part in module.modules()})
    for name, part in module.named_modules(remove_duplicate=False):
        yield name, _name(type(part)), _known(_around(part))
        # A copy, as a run in another thread may write there meanwhile.
        held = dict(vars(part))
        yield reader.named_values({key: value for key, value in held.items() if key not in _KEPT | _READ})
        yield [(key, _form(value)) for own in (part._parameters, part._buffers) for key, value in own.items()]
    hooks = torch.nn.modules.module
    yield _known((*hooks._global_forward_hooks.values(), *hooks._global_forward_pre_hooks.values()))


def _plainer(value: Any) -> Any:
    """What an object computes with, of those that hold more than that."""
    from transformers import GenerationConfig, PretrainedConfig

    if isinstance(value, PretrainedConfig):
        return _settings(value)
    if isinstance(value, GenerationConfig):
        return {key: item for key, item in value.to_dict().items() if key not in _NAMES}
    if isinstance(value, torch.ScriptObject):
        return value.__getstate__()  # pyright: ignore
    if type(value).__name__ == "MatmulLtState":
        # Where the last input had its outliers.
        return {key: item for key, item in list(vars(value).items()) if key != "idx"}
    return value


def _settings(config: Any) -> list[Any]:
    """A config, with what it leaves out of its own file: which kernels compute attention, masks and experts."""
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    attention, experts = (getattr(config, f"_{what}_implementation", None) for what in ("attn", "experts"))
    # Anyone may register a function under a kernel's name.
    kernels = [
        registered.get(name) if isinstance(name, str) else name
        for name, registered in (
            (attention, ALL_ATTENTION_FUNCTIONS),
            (attention, ALL_MASK_ATTENTION_FUNCTIONS),
            (experts, ALL_EXPERTS_FUNCTIONS),
        )
    ]
    settings = {key: value for key, value in config.to_dict().items() if key not in _NAMES}
    return [attention, experts, kernels, json.dumps(settings, sort_keys=True, default=str)]


def _known(functions: Any) -> Any:
    """Names of functions; something unlike anything before where one of them is somebody's own."""
    return [_name(function) for function in functions] if all(map(_is_known, functions)) else unlike()


def _is_known(function: Any) -> bool:
    return _name(function).split(".")[0] in _KNOWN


def _name(function: Any) -> str:
    while isinstance(function, functools.partial) or ismethod(function):
        function = function.func if isinstance(function, functools.partial) else function.__func__
    own = function if hasattr(function, "__qualname__") else type(function)
    return f"{own.__module__}.{own.__qualname__}"


def _form(tensor: Tensor | None) -> Any:
    return None if tensor is None else (tuple(tensor.shape), str(tensor.dtype), tensor.device.type, _name(type(tensor)))


def _filled(tensor: Tensor) -> Any:
    return _form(tensor), [_checksum(part) for part in plain_tensors(tensor)]


def _contents(module: nn.Module) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Sums of the weights and buffers that a module computes with."""
    known: dict[Any, tuple[int, ...]] = {}
    apart = frozenset((*map(id, module.modules()), id(getattr(module, "config", None))))
    for name, part in module.named_modules():
        offloaded = getattr(vars(part).get("_hf_hook"), "weights_map", None) or {}
        for key, value in (part._parameters | part._buffers).items():
            stands = offloaded[key] if isinstance(value, Tensor) and value.is_meta and key in offloaded else value
            for tensor in plain_tensors(stands, apart):
                # Tied weights are read once; what is made for the moment may stand where another one stood.
                place = (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor is value else None
                if place is None or place not in known:
                    known[place] = _checksum(tensor)
                yield f"{name}.{key}", known[place]


def _checksum(tensor: Tensor) -> tuple[int, ...]:
    """Sums of a tensor's 64-bit words modulo 2^64, each times an odd number of its place.

    One changed word always changes it, and so do words that change places, but for a chance of about 2^-63.
    """
    if tensor.is_meta:
        return ()
    # A GPU is waited for once.
    return tuple(torch.stack([_weighted(part) for part in _words(tensor.detach()).split(_CHUNK)]).tolist())


def _weighted(words: Tensor) -> Tensor:
    odd = _odd(words.device)[: len(words)]
    # The product of integers is four times as fast as a sum of them on a CPU, and missing elsewhere.
    return torch.dot(words, odd) if words.device.type == "cpu" else (words * odd).sum()


def _words(tensor: Tensor) -> Tensor:
    """The bytes of a tensor as whole 64-bit words, filled up with zeros."""
    raw = tensor.contiguous().reshape(-1).view(torch.uint8)
    lacking = -len(raw) % 8
    return (nn.functional.pad(raw, (0, lacking)) if lacking else raw).view(torch.int64)


@functools.cache
def _odd(device: torch.device) -> Tensor:
    """Odd numbers, always the same."""
    generator = torch.Generator().manual_seed(1)
    bounds = torch.iinfo(torch.int64)
    drawn = torch.randint(bounds.min, bounds.max, (_CHUNK,), generator=generator)
    return (drawn | 1).to(device)


def reading(model: Model) -> str:
    """What the answers of a model depend on beside its module; `identity` names that one.

    Examples:
        >>> import dlens
        >>> from dataclasses import replace
        >>> model = dlens.load("trio/diffusion")
        >>> reading(model) == reading(replace(model)) != reading(replace(model, honours_padding=False))
        True
    """
    family = model.family
    rules = [family.name, family.objective, family.shift, family.mask_token_id, family.end_token_ids]
    ids = [model.eos_token_id, model.pad_token_id, model.honours_padding]
    return value_digest([rules, function_digest(family.inputs), ids, _of_tokenizer(model.tokenizer)])


def _of_tokenizer(tokenizer: Any) -> Any:
    """What text becomes tokens by, and tokens text."""
    if tokenizer is None:
        return None
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = sorted(tokenizer.get_vocab().items()) if backend is None else backend.to_str()
    methods = [getattr(tokenizer, name) for name in ("decode", "convert_ids_to_tokens")]
    decoding = [function_digest(getattr(method, "__func__", method)) for method in methods]
    special = sorted(tokenizer.all_special_ids), getattr(tokenizer, "chat_template", None)
    return rules, special, getattr(tokenizer, "clean_up_tokenization_spaces", None), decoding
