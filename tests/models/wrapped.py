"""A small model run under nnsight and without it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import dlens

IDS = torch.tensor([[5, 9, 2, 7, 31, 4]])


def clean(model: dlens.Model) -> torch.Tensor:
    """Logits of the model as it is."""
    with torch.no_grad():
        return model.module(**model.family.inputs(IDS, None)).logits


def traced(model: dlens.Model) -> torch.Tensor:
    """Logits with block 1 skipped through nnsight itself."""
    import nnsight

    root: Any = model.nnsight
    with torch.no_grad(), root.trace(**model.family.inputs(IDS, None)):
        root.model.layers[1].skip(root.model.layers[1].input)
        logits = nnsight.save(root.lm_head.output)
    return logits


def marks(module: nn.Module) -> list[str]:
    """What nnsight left on the parts of a module."""
    return [name for part in module.modules() for name in ("forward", "__nnsight__") if name in vars(part)]
