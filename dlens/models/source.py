"""Get a torch module and a tokenizer out of a checkpoint: a name on the hub, a folder, a GGUF file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from dlens.axes import respell
from dlens.models import compat

__all__ = ["TRIO", "TRIO_FOLDER", "read_checkpoint", "read_tokenizer", "resolve", "without_bar"]

TRIO_FOLDER = Path(__file__).parent / "trio"
TRIO = ("trio/ar", "trio/diffusion", "trio/ar-init")

_WHERE = (
    "revision", "token", "cache_dir", "subfolder", "local_files_only", "force_download", "code_revision", "proxies",
)  # fmt: skip
_HOW = (
    "dtype", "torch_dtype", "device_map", "attn_implementation", "quantization_config", "max_memory", "offload_folder",
    "offload_buffers", "offload_state_dict", "use_safetensors", "variant", "weights_only", "gguf_file", "tp_plan",
    "tp_size", "key_mapping", "experts_implementation", "generation_config", "use_kernels", "low_cpu_mem_usage",
)  # fmt: skip
_ADAPTER = "adapter_config.json"
_TOKENIZER_FILES = ("tokenizer*.json", "tokenizer.model", "vocab.*", "spiece.model", "tekken.json", "*.tiktoken")
# Autoregressive decoders that dllm adapted to fill masks -> the type of transformers that they are, but for causality.
_ADAPTED: Mapping[str, str] = MappingProxyType({"a2d-llama": "llama", "a2d-qwen2": "qwen2", "a2d-qwen3": "qwen3"})
# The class with the language model's head goes first; LLaDA and Dream name theirs AutoModel.
_HEADED = ("AutoModelForCausalLM", "AutoModelForMaskedLM", "AutoModel")
_REFUSED: Mapping[str, str] = MappingProxyType(
    {"diffusion_gemma": "an encoder-decoder diffusion model with uniform noise and no mask token"}
)


def resolve(source: str | Path, kwargs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Where a checkpoint is, and the arguments it is loaded with.

    Args:
        source: "trio/..." for a shipped model, a folder, or a name on the hub.
        kwargs: the user's arguments for transformers.

    Raises:
        ValueError: no such shipped model, or a folder that is none of a model.
    """
    name = str(source)
    if name.startswith("trio/"):
        if name not in TRIO:
            raise ValueError(f"no model {name!r} ships with dlens; expected {', '.join(TRIO)}; {respell(name, TRIO)}")
        return str(TRIO_FOLDER / name.removeprefix("trio/")), {"dtype": torch.float32} | kwargs
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if isinstance(source, Path) or name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise ValueError(f"no folder {name!r}; expected a checkpoint folder, or a name on the hub; check the path")
        return name, kwargs
    inner = folder / kwargs.get("subfolder", "")
    if not any((inner / name).is_file() for name in ("config.json", _ADAPTER)) and "gguf_file" not in kwargs:
        raise ValueError(
            f"folder {name!r} has no config.json; expected a checkpoint saved by save_pretrained; "
            f"give the folder that holds config.json, or gguf_file= for a GGUF checkpoint"
        )
    return str(folder), kwargs


def adapted(source: str) -> str | None:
    """The model that the adapter in a folder was trained on; None where the folder holds a model of its own.

    Raises:
        ValueError: the adapter does not say.
    """
    path = Path(source) / _ADAPTER
    if not path.is_file() or (Path(source) / "config.json").is_file():
        return None
    base = json.loads(path.read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base:
        raise ValueError(
            f"{path} names no base model; expected base_model_name_or_path; load the base model, add the adapter with "
            f"peft, and pass the module to dlens.load"
        )
    return resolve(base, {})[0]


def add_adapter(module: nn.Module, folder: str) -> None:
    """Put the adapter of a folder into a model's layers.

    Raises:
        ImportError: peft is not installed.
        ValueError: its layers are not those of the model.
    """
    from peft import PeftModel  # pyright: ignore

    PeftModel.from_pretrained(module, folder).eval()


def read_checkpoint(source: str, trust_remote_code: bool, kwargs: dict[str, Any]) -> nn.Module:
    """Load the torch module, in eval mode.

    Raises:
        ValueError: a model that dlens refuses, an unknown argument, or weights that are missing.
        PermissionError: remote code that was not allowed.
    """
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if "gguf_file" in kwargs:
        _check_names(kwargs, {})
        with _in_words(source):
            return AutoModelForCausalLM.from_pretrained(source, **kwargs).eval()
    with _in_words(source):
        settings, _ = PreTrainedConfig.get_config_dict(source, **_where(kwargs))
    _refuse(source, settings)
    remote = settings.get("auto_map", {})
    native = _ADAPTED.get(str(settings.get("model_type")))
    if native is not None:
        own = {key: value for key, value in settings.items() if key not in ("auto_map", "model_type", "architectures")}
        remote, kwargs = {}, kwargs | {"config": CONFIG_MAPPING[native].from_dict(own | {"is_causal": False})}
    if remote and (trust_remote_code or settings.get("model_type") not in CONFIG_MAPPING):
        if not trust_remote_code:
            raise PermissionError(
                f"{source!r} brings its own code ({', '.join(sorted(set(remote.values())))}); expected "
                f"trust_remote_code=True to run it; read the code first, then pass trust_remote_code=True"
            )
        return _read_remote(source, remote, settings, kwargs)
    _check_names(kwargs, {**settings, "config": None})
    masked = any(name.endswith("ForMaskedLM") for name in settings.get("architectures") or ())
    kind = AutoModelForMaskedLM if masked else AutoModelForCausalLM
    with _in_words(source), without_bar() if Path(source).parent == TRIO_FOLDER else nullcontext():
        module, info = kind.from_pretrained(source, output_loading_info=True, **kwargs)  # pyright: ignore
    lacking = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
    if lacking:
        raise ValueError(
            f"{source!r} lacks {len(lacking)} weights, the first {lacking[0]!r}; expected every weight of "
            f"{type(module).__name__}, as the rest would be random; check that the checkpoint is complete"
        )
    return module.eval()


@contextmanager
def _in_words(source: str) -> Iterator[None]:
    """An error of a library that reads a folder says which one; those of the hub say so themselves."""
    try:
        yield
    except Exception as error:
        if not Path(source).is_dir():
            raise
        said = str(error).strip().split("\n")[0]
        raise ValueError(
            f"{source} cannot be read ({type(error).__name__}: {said}); expected what save_pretrained writes; one of "
            f"its files may be damaged, or of another version: save or download it again"
        ) from error


@contextmanager
def without_bar() -> Iterator[None]:
    """No progress bar of transformers, for what takes a moment."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _read_remote(source: str, remote: dict[str, str], settings: dict[str, Any], kwargs: dict[str, Any]) -> nn.Module:
    """Load a module by the code that comes with its checkpoint."""
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    reference = next((remote[name] for name in _HEADED if name in remote), None)
    if reference is None or "AutoConfig" not in remote:
        raise ValueError(
            f"{source!r} names {', '.join(remote)} in auto_map; expected AutoConfig and one of {', '.join(_HEADED)}; "
            f"load the module yourself and pass it to dlens.load with its tokenizer"
        )
    _check_names(kwargs, settings)
    where = _where(kwargs)
    with compat.importing():
        config_class = get_class_from_dynamic_module(remote["AutoConfig"], source, **where)
        model_class = get_class_from_dynamic_module(reference, source, **where)
    compat.prepare(model_class, config_class)
    where.pop("code_revision", None)
    own = {key: kwargs[key] for key in kwargs if key in settings}
    with _in_words(source):
        config = config_class.from_pretrained(source, **where, **own)
    rest = {key: value for key, value in kwargs.items() if key not in own and key != "code_revision"}
    with _in_words(source):
        module = model_class.from_pretrained(source, config=config, **rest)
    compat.repair(module)
    return module.eval()


def _where(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {key: kwargs[key] for key in _WHERE if key in kwargs}


def _refuse(source: str, settings: dict[str, Any]) -> None:
    model_type = settings.get("model_type")
    why = _REFUSED.get(str(model_type))
    if why is None and settings.get("is_encoder_decoder"):
        why = "an encoder-decoder model"
    if why is not None:
        raise ValueError(
            f"{source!r} (model type {model_type!r}) is {why}; expected a decoder-only model, or a masked diffusion "
            f"model built on one; dlens cannot trace this kind yet"
        )


def _check_names(kwargs: dict[str, Any], settings: dict[str, Any]) -> None:
    """Refuse an argument that neither transformers nor the config knows, as some are swallowed in silence."""
    known = (*_WHERE, *_HOW, *settings)
    for name in kwargs:
        if name not in known:
            raise TypeError(
                f"unknown argument {name!r}; expected one of {', '.join((*_WHERE, *_HOW))}, or a setting of the "
                f"model's config; {respell(name, known)}"
            )


def read_tokenizer(source: str, trust_remote_code: bool, kwargs: dict[str, Any]) -> Any:
    """The checkpoint's tokenizer, or None where it has none."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    where = _where(kwargs) | {key: kwargs[key] for key in ("gguf_file",) if key in kwargs}
    where.pop("code_revision", None)
    if Path(source).is_dir() and "gguf_file" not in kwargs:
        folder = Path(source) / kwargs.get("subfolder", "")
        if not any(next(folder.glob(pattern), None) for pattern in _TOKENIZER_FILES):
            return None
    with _in_words(source):
        settings = {} if "gguf_file" in kwargs else get_tokenizer_config(source, **where)
        plain = settings.get("tokenizer_class") in ("PreTrainedTokenizerFast", "TokenizersBackend")
        if plain and "auto_map" not in settings:
            # AutoTokenizer overrules this for some model types (Qwen2) and splits text by their rule instead.
            return PreTrainedTokenizerFast.from_pretrained(source, **where)
        return AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code, **where)
