"""Load a model from a name, a folder, a torch module or an nnsight object, and prove that it was understood."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from dlens.axes import Logits
from dlens.checks import as_flag, quoted
from dlens.models.compression import read_compression
from dlens.models.families.fitting import fitting, placed
from dlens.models.families.registry import choose_family, choose_layout
from dlens.models.family import Family, Layout
from dlens.models.given import module_of
from dlens.models.layout.find import few_tokens, find_layout
from dlens.models.model import Model, Origin
from dlens.models.proofs.buffers import is_remote
from dlens.models.proofs.sites import as_built
from dlens.models.proofs.verify import alike, check_paths, probe_padding
from dlens.models.proofs.verify import verify as prove
from dlens.models.source import adapted, add_adapter, read_checkpoint, read_tokenizer, resolve
from dlens.models.wrapper import refuse_running

__all__ = ["load"]


def load(
    source: Any,
    *,
    tokenizer: Any = None,
    family: str | Family | None = None,
    layout: Layout | None = None,
    trust_remote_code: bool = False,
    verify: bool = True,
    **kwargs: Any,
) -> Model:
    """Load a model and check that dlens reads it right.

    Args:
        source: "trio/ar", "trio/diffusion" or "trio/ar-init" (shipped, float32 unless `dtype=` says
            otherwise); a name on the hub; a checkpoint folder, or one of a PEFT adapter; a torch module of
            transformers, under PEFT too; or an nnsight object.
        tokenizer: used instead of the checkpoint's; needed with a module only where text is given.
        family: a name or a Family; None takes `dlens_family` of the config, else what the model's type or class says.
        layout: where its parts are; None takes the family's, else finds them by one small forward. What was found,
            and why, `print(model.layout)` says.
        trust_remote_code: allow the checkpoint's own code to run.
        verify: prove the adapter by a few tiny forwards; without, nothing is run but what finds the layout.
        kwargs: passed to transformers: dtype, device_map, revision, gguf_file, attn_implementation ...

    Returns:
        The model. A checkpoint is in eval mode, and bidirectional where its family is; a module that
        was passed is left as it was.

    Raises:
        ValueError: the source is no model that dlens can trace, or the family is unknown.
        PermissionError: remote code without `trust_remote_code=True`.
        TypeError: an unknown argument, or a source of another kind.
        VerificationError: the model does not behave as its family says.

    Examples:
        >>> from dlens.models.load import load
        >>> model = load("trio/diffusion")
        >>> model.n_layers, model.d_model, model.family.objective
        (16, 192, 'diffusion')
    """
    trust_remote_code, verify = as_flag(trust_remote_code, "trust_remote_code"), as_flag(verify, "verify")
    if tokenizer is not None and not callable(tokenizer):
        raise TypeError(
            f"tokenizer={quoted(tokenizer)}; expected a tokenizer of transformers; "
            f"get one with AutoTokenizer.from_pretrained"
        )
    if isinstance(source, Model):
        return _again(source, tokenizer, family, layout, verify, kwargs)
    if isinstance(source, (str, Path)):
        given = {} if tokenizer is None else {"tokenizer": tokenizer}
        where, arguments = resolve(source, kwargs)
        base = adapted(where)
        module = read_checkpoint(base or where, trust_remote_code, arguments)
        if base is not None:
            add_adapter(module, where)
        if tokenizer is None:
            tokenizer = read_tokenizer(where, trust_remote_code, arguments)
        if tokenizer is None and base is not None:
            tokenizer = read_tokenizer(base, trust_remote_code, arguments)
        chosen = _chosen(family, layout, module)
        if not chosen.causal:
            _make_bidirectional(module)
        given |= {} if layout is None else {"layout": layout}
        origin = Origin(str(source), given | {"trust_remote_code": trust_remote_code, "family": family, **kwargs})
        built = _build(module, tokenizer, chosen, _asked(family), str(source), verify)
        return replace(built, origin=origin, compression=read_compression(base or where))
    if kwargs:
        raise TypeError(
            f"arguments {', '.join(kwargs)} with a loaded module; expected them with a name or a folder only; "
            f"set them when you load the module"
        )
    module = module_of(source)
    if tokenizer is None and module is not source:
        tokenizer = vars(source).get("tokenizer")
    chosen = _chosen(family, layout, module)
    return _build(module, tokenizer, chosen, _asked(family), type(module).__name__, verify)


def _again(
    model: Model,
    tokenizer: Any,
    family: str | Family | None,
    layout: Layout | None,
    verify: bool,
    kwargs: dict[str, Any],
) -> Model:
    """A Model passed once more: itself, or with another tokenizer, family or layout."""
    if kwargs:
        raise TypeError(f"arguments {', '.join(kwargs)} with a Model; expected none; pass them when you load it")
    given = {"tokenizer": tokenizer, "family": family, "layout": layout}
    changed = {key: value for key, value in given.items() if value is not None}
    origin = model.origin and Origin(model.origin.source, {**model.origin.arguments, **changed})
    if family is not None or layout is not None:
        chosen = _chosen(family or model.family.name, layout, model.module)
        built = _build(model.module, tokenizer or model.tokenizer, chosen, _asked(family), model.name, verify)
        return replace(built, origin=origin)
    # What was found with the other tokenizer is forgotten: it depends on the text it made.
    return model if tokenizer is None else replace(model, tokenizer=tokenizer, memo={}, origin=origin)


def _chosen(family: str | Family | None, layout: Layout | None, module: nn.Module) -> Family:
    """The family of a module, with the layout that the user gave."""
    if layout is not None and not isinstance(layout, Layout):
        raise TypeError(
            f"layout={quoted(layout)}; expected a Layout, or None where it is found; write dlens.Layout(blocks=...), "
            f"or leave it out"
        )
    chosen = choose_family(family, module.config, type(module).__name__)
    return chosen if layout is None else replace(chosen, layout=layout)


def _asked(family: str | Family | None) -> int | None:
    """The mask token of a Family that the user gave, which goes before the checkpoint's."""
    return family.mask_token_id if isinstance(family, Family) else None


def _make_bidirectional(module: nn.Module) -> None:
    """Switch causality off in the mask and in every attention module; a mask alone leaves SDPA causal."""
    module.config.is_causal = False  # pyright: ignore
    for part in module.modules():
        if "is_causal" in vars(part):
            part.is_causal = False  # pyright: ignore


def _build(module: nn.Module, tokenizer: Any, family: Family, mask: int | None, name: str, verify: bool) -> Model:
    refuse_running(module, "it cannot be looked at", "dlens.load")
    family = replace(family, inputs=fitting(family.inputs, module))
    layout = choose_layout(family, module.config) or find_layout(module, family.inputs, few_tokens(module))
    layout = as_built(layout, module)
    check_paths(module, layout)
    complete = replace(family, layout=layout, mask_token_id=_mask_token(family, mask, module.config, tokenizer))
    model = Model(module, tokenizer, complete, name)
    ends = tuple(token for token in family.end_token_ids if token < model.vocab_size)
    model = replace(model, family=replace(complete, end_token_ids=ends))
    if not verify:
        return replace(model, honours_padding=not is_remote(module))
    layout, logits = prove(model)
    return _padding(replace(model, family=replace(model.family, layout=layout)), logits)


def _padding(model: Model, logits: Logits) -> Model:
    """The model with whether it hides padding, and where it counts its positions from.

    Code that counts them from after the padding token's number (RoBERTa) is told them so: left to itself it would take
    padding for text, or another start in decoding.
    """
    start = (getattr(model.config, "pad_token_id", None) or 0) + 1
    told = replace(model, family=replace(model.family, inputs=placed(model.family.inputs, start)))
    hides = probe_padding(model, logits)
    if not hides and told.family.inputs is not model.family.inputs and alike(model, told):
        model, hides = told, probe_padding(told, logits)
    return replace(model, honours_padding=hides)


def _mask_token(family: Family, asked: int | None, config: Any, tokenizer: Any) -> int | None:
    """The mask token asked for, else the checkpoint's, the family's usual one, the tokenizer's."""
    if family.objective != "diffusion":
        return None
    known = (asked, getattr(config, "mask_token_id", None), family.mask_token_id)
    return next((token for token in known if token is not None), getattr(tokenizer, "mask_token_id", None))
