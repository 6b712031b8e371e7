"""A model to trace, and one to leave alone."""

from __future__ import annotations

import copy
from dataclasses import replace

from torch import nn

import dlens
from dlens.models.families.decoder import MASKED

__all__ = ["MASK", "pair"]

MASK = 1


def pair(module: nn.Module) -> tuple[dlens.Model, dlens.Model]:
    """A diffusion model to trace, and one on a copy of the module that nothing ever wraps."""
    family = replace(MASKED, mask_token_id=MASK)
    plain = dlens.load(copy.deepcopy(module), family=family, verify=False)
    return dlens.load(module, family=family), plain
