"""The torch module within what a user gives: an nnsight object, a PEFT model; what hides its parts is named."""

from __future__ import annotations

import sys
from typing import Any

from torch import nn

__all__ = ["module_of"]


def module_of(source: Any) -> nn.Module:
    """The torch module of a module, an nnsight object, or a PEFT model whose adapters stand in its layers.

    Raises:
        TypeError: it is none of these.
        ValueError: it is compiled, has no weights, is an encoder-decoder, or has adapters outside its layers.
    """
    from transformers import PreTrainedConfig

    source = _of_peft(_of_nnsight(source))
    _refuse_compiled(source)
    if not isinstance(source, nn.Module) or not isinstance(getattr(source, "config", None), PreTrainedConfig):
        raise TypeError(
            f"{type(source).__name__} is no model; expected a name, a folder, a transformers module (with its "
            f".config), or an nnsight object around one; for other modules give them a PreTrainedConfig"
        )
    if any(parameter.is_meta and "_hf_hook" not in vars(source) for parameter in source.parameters()):
        raise ValueError(
            f"{type(source).__name__} has parameters on the meta device; expected weights; load them first (nnsight: "
            f"dispatch=True)"
        )
    if source.config.is_encoder_decoder:  # pyright: ignore
        raise ValueError(
            f"{type(source).__name__} is an encoder-decoder model; expected a decoder-only model; "
            f"dlens cannot trace this kind yet"
        )
    return source


def _of_nnsight(source: Any) -> Any:
    if "nnsight" not in sys.modules:
        return source
    from nnsight import Envoy

    return source._module if isinstance(source, Envoy) else source


def _of_peft(source: Any) -> Any:
    """The model under PEFT; its adapters are layers of it, and stay switched on or off as they are."""
    if "peft" not in sys.modules:
        return source
    from peft import PeftModel  # pyright: ignore
    from peft.tuners.tuners_utils import BaseTuner  # pyright: ignore

    if not isinstance(source, PeftModel):
        return source
    if not isinstance(source.base_model, BaseTuner):
        kinds = ", ".join(sorted(str(config.peft_type).rpartition(".")[2] for config in source.peft_config.values()))
        raise ValueError(
            f"a PEFT model with {kinds}, which changes the inputs and not the layers; expected adapters within layers, "
            f"such as LORA; give its base model: source.get_base_model()"
        )
    return source.get_base_model()


def _refuse_compiled(source: Any) -> None:
    for name, part in source.named_modules() if isinstance(source, nn.Module) else ():
        if "_orig_mod" in part._modules or vars(part).get("_compiled_call_impl") is not None:
            raise ValueError(
                f"{name or type(source).__name__} is compiled by torch.compile; expected a module whose parts run one "
                f"by one, as a compiled one hides them; give the module as it was before (._orig_mod of what "
                f"torch.compile returned), and compile after tracing"
            )
