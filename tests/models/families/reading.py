"""One value of a module by a plain hook, and its output with parts replaced."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlens.models.family import Fill, Site

IDS = torch.tensor([[5, 9, 2, 7, 31, 4]])


def read(module: Any, site_module: Any, site: Site, inputs: dict[str, Any]) -> Tensor:
    """One value by a plain hook."""
    kept: list[Any] = []

    def hook(part: Any, args: Any, kwargs: Any, output: Any) -> None:
        whole = (args[0] if args else kwargs["hidden_states"]) if site.end == "input" else output
        kept.append(whole[site.index] if isinstance(whole, tuple) else whole)

    handle = site_module.register_forward_hook(hook, with_kwargs=True)
    with torch.no_grad():
        module(**inputs)
    handle.remove()
    assert len(kept) == 1
    return kept[0]


def zeroed(module: Any, block: Any, fills: tuple[Fill, ...], inputs: dict[str, Any]) -> Tensor:
    """The block's output with these modules replaced by their fills."""
    hidden = read(module, block, Site("", "input"), inputs)
    parts = [block.get_submodule(fill.path) for fill in fills]
    for part, fill in zip(parts, fills, strict=True):
        value = fill.make(hidden, block)
        part.forward = lambda *args, value=value, **kwargs: value
    found = read(module, block, Site(""), inputs)
    for part in parts:
        del part.forward
    return found
