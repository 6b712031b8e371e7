"""The known families and layouts, and how a checkpoint gets its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from dlens.axes import respell
from dlens.checks import quoted, whole
from dlens.models.families.adapted import FAST_DLLM, LLADA_MOE, RND1, SDAR, llada_moe_layout
from dlens.models.families.decoder import AUTOREGRESSIVE, MASKED, MASKED_SHIFTED
from dlens.models.families.dit import BD3LM, MDLM, dit_layout
from dlens.models.families.dream import DREAM
from dlens.models.families.llada import LLADA, llada_layout
from dlens.models.families.llada2 import LLADA2
from dlens.models.family import Family, Layout

__all__ = ["choose_family", "choose_layout", "families", "fills_masks", "register_family"]

_FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        AUTOREGRESSIVE,
        MASKED,
        MASKED_SHIFTED,
        LLADA,
        DREAM,
        LLADA2,
        SDAR,
        FAST_DLLM,
        LLADA_MOE,
        RND1,
        BD3LM,
        MDLM,
    )
}
# Of what cannot be found: LLaDA's halves, which have no modules of their own, what adaLN scales on its way to the
# stream, and experts that are added to a shared one.
_LAYOUTS: Mapping[str, Callable[[Any], Layout]] = {
    "llada": llada_layout,
    "lladamoe": llada_moe_layout,
    "bd3lm": dit_layout,
    "mdlm": dit_layout,
}
# What configs call the tokens of a canvas block.
_BLOCK_NAMES = ("block_size", "bd_size", "block_length")


def families() -> tuple[Family, ...]:
    """The families that `dlens.load` knows, in the order in which they were named."""
    return tuple(_FAMILIES.values())


def register_family(family: Family) -> Family:
    """Make a family known, by its name and by the model types it selects.

    Args:
        family: what differs; `layout` may stay None for a model that is laid out like a known one.

    Returns:
        The same family.

    Raises:
        ValueError: another family has this name, or it is none.

    Examples:
        A model of 2-tuple blocks with its mask token at 7:

        >>> from dlens.models.family import Family, Layout, Site
        >>> layout = Layout(
        ...     blocks="decoder.blocks", embed="decoder.tokens", norm="decoder.norm", head="unembed",
        ...     sites={
        ...         "attn_out": Site("attention"),
        ...         "resid_mid": Site("norm_2", "input"),
        ...         "mlp_out": Site("mlp"),
        ...     },
        ...     block_tuple=2,
        ... )
        >>> family = Family(
        ...     name="mine", objective="diffusion", shift=0, layout=layout, mask_token_id=7,
        ...     model_types=("my_dllm",),
        ...     inputs=lambda ids, mask: (
        ...         {"input_ids": ids} if mask is None else {"input_ids": ids, "attention_mask": mask}
        ...     ),
        ... )
        >>> register_family(family).name
        'mine'
    """
    if not isinstance(family, Family):
        raise ValueError(f"{quoted(family)} to register; expected a Family; make one, as dlens.Family(name=..., ...)")
    known = _FAMILIES.setdefault(family.name, family)
    if known is not family and known != family:
        raise ValueError(
            f"a family named {family.name!r} is known already; expected a name of its own; give another name, or pass "
            f"the family itself: dlens.load(..., family=family)"
        )
    return family


def choose_family(family: str | Family | None, config: Any, architecture: str = "") -> Family:
    """The family asked for, else the one the checkpoint names, else the one its model type or its class selects.

    Args:
        family: a name, a Family, or None.
        config: the model's config; `dlens_family` in it names a family.
        architecture: the model's class.

    Raises:
        TypeError: it is neither.
        ValueError: no family has that name.
    """
    if isinstance(family, Family):
        return family
    if family is not None and not isinstance(family, str):
        raise TypeError(f"family={family!r}; expected a name, a Family, or None; give one of {', '.join(_FAMILIES)}")
    settings = config.to_dict()
    name = family or settings.get("dlens_family")
    if name is not None:
        if name not in _FAMILIES:
            raise ValueError(
                f"family {name!r}; expected one of {', '.join(_FAMILIES)}; "
                f"{respell(name, _FAMILIES)}; a new one is added with dlens.register_family"
            )
        return _as_built(_FAMILIES[name], settings)
    for known in reversed(_FAMILIES.values()):
        if config.model_type in known.model_types:
            return _as_built(known, settings)
    masked = not settings.get("is_causal", True) or fills_masks(architecture)
    return MASKED if masked else AUTOREGRESSIVE


def fills_masks(architecture: str) -> bool:
    """Whether transformers lists a class as a masked language model, as BERT's, and not as a causal one too.

    Examples:
        >>> fills_masks("BertForMaskedLM"), fills_masks("LlamaForCausalLM")
        (True, False)
    """
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    causal = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    return architecture in MODEL_FOR_MASKED_LM_MAPPING_NAMES.values() and architecture not in causal


def _as_built(family: Family, settings: Mapping[str, Any]) -> Family:
    """A family whose attention is causal between canvas blocks, with the length that the checkpoint names."""
    named = next((settings[name] for name in _BLOCK_NAMES if whole(settings.get(name)) is not None), None)
    if family.block_length is None or named is None:
        return family
    return replace(family, block_length=named)


def choose_layout(family: Family, config: Any) -> Layout | None:
    """The family's own layout, else the one written for the model type; None where it is to be found."""
    if family.layout is not None:
        return family.layout
    return _LAYOUTS[config.model_type](config) if config.model_type in _LAYOUTS else None
