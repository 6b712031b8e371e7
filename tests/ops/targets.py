"""Small models' facts and a place in them, for operations on hand-written numbers."""

from typing import Any

import torch

from dlens.ops.base.edit import Place
from dlens.ops.base.target import Target

DIFFUSION = Target("tiny", n_layers=4, d_model=3, has_noise=True)
AR = Target("tiny-ar", n_layers=4, d_model=3, has_noise=False)

# [batch 1, position 2, d_model 3]
VALUE = torch.tensor([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]])


def place(layer: int = 0, step: int = 0, **changes: Any) -> Place:
    """A place in a run of one row and two positions."""
    facts: dict[str, Any] = {
        "point": "resid_post",
        "layer": layer,
        "step": step,
        "noise_now": lambda: (0.5,),
        "masked": torch.tensor([[False, True]]),
        "rows": (0,),
        "columns": slice(0, 2),
        "halves": 1,
    }
    return Place(**(facts | changes))
