"""How a model reads text and writes it, in one name: its family's rules, its tokenizer, its padding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlens.digest import function_digest, value_digest

if TYPE_CHECKING:
    from dlens.models.model import Model

__all__ = ["reading"]


def reading(model: Model) -> str:
    """What the answers of a model depend on beside its module; `dlens.models.identity.identity` names that one.

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
    return value_digest([rules, function_digest(family.inputs), ids, _tokenizer(model.tokenizer)])


def _tokenizer(tokenizer: Any) -> Any:
    """What text becomes tokens by, and tokens text."""
    if tokenizer is None:
        return None
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = sorted(tokenizer.get_vocab().items()) if backend is None else backend.to_str()
    methods = [getattr(tokenizer, name) for name in ("decode", "convert_ids_to_tokens")]
    decoding = [function_digest(getattr(method, "__func__", method)) for method in methods]
    special = sorted(tokenizer.all_special_ids), getattr(tokenizer, "chat_template", None)
    return rules, special, getattr(tokenizer, "clean_up_tokenization_spaces", None), decoding
