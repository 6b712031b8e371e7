"""The table behind `dlens models`: what ships with dlens, and what it loads."""

from __future__ import annotations

import json
from dataclasses import dataclass

from dlens.models.families.registry import families
from dlens.models.source import TRIO, TRIO_FOLDER

__all__ = ["KnownModel", "known_models"]

_NOTES = {
    "trio/ar": "shipped; 7.9 M parameters, next-token prediction",
    "trio/diffusion": "shipped; 7.9 M parameters, masked diffusion from scratch",
    "trio/ar-init": "shipped; 7.9 M parameters, masked diffusion started from trio/ar",
    "autoregressive": "decoders of transformers: Llama, Qwen, Mistral, Gemma, GPT-2, Pythia ...",
    "masked": "a decoder of transformers with is_causal=False, trained to fill masks; BERT, ModernBERT",
    "masked-shifted": "the same, with logits shifted by one as in the AR model it came from",
    "llada": "LLaDA 8B and 1.5, by their own code (trust_remote_code)",
    "dream": "Dream and DiffuCoder, by their own code (trust_remote_code)",
    "llada2": "LLaDA2.0 and 2.1, block diffusion, by their own code (trust_remote_code)",
    "sdar": "SDAR, block diffusion, by its own code (trust_remote_code)",
    "fast-dllm-v2": "Fast-dLLM v2, block diffusion, by its own code (trust_remote_code)",
    "llada-moe": "LLaDA-MoE, by its own code (trust_remote_code)",
    "rnd1": "RND1, by its own code (trust_remote_code)",
    "bd3lm": "BD3-LM, block diffusion, by its own code (trust_remote_code, attn_backend='sdpa')",
    "mdlm": "MDLM, by its own code (trust_remote_code)",
}


@dataclass(frozen=True)
class KnownModel:
    """One row of the table.

    Args:
        name: what `dlens.load` takes as its source (shipped models) or as `family=`.
        family: name of the family.
        objective: "diffusion" or "autoregressive".
        shift: the logits at position i - shift predict the token at i.
        layers, width: size of a shipped model, None for a family.
        note: what it is, in a few words.
    """

    name: str
    family: str
    objective: str
    shift: int
    layers: int | None
    width: int | None
    note: str


def known_models() -> tuple[KnownModel, ...]:
    """Shipped models first, then families, the user's own included.

    Examples:
        >>> [row.name for row in known_models()][:3]
        ['trio/ar', 'trio/diffusion', 'trio/ar-init']
    """
    by_name = {family.name: family for family in families()}
    rows = []
    for name in TRIO:
        config = json.loads((TRIO_FOLDER / name.removeprefix("trio/") / "config.json").read_text())
        family = by_name[config["dlens_family"]]
        size = (config["num_hidden_layers"], config["hidden_size"])
        rows.append(KnownModel(name, family.name, family.objective, family.shift, *size, _NOTES[name]))
    for family in by_name.values():
        note = _NOTES.get(family.name, "registered by you")
        rows.append(KnownModel(family.name, family.name, family.objective, family.shift, None, None, note))
    return tuple(rows)
