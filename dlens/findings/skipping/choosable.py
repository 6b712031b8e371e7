"""What a plan may choose from: a model without operations, and the blocks that may go."""

from __future__ import annotations

from typing import Any

from dlens.findings.layers.profile import Profile
from dlens.ops.base.given import as_index
from dlens.tracing.chain import Trace, trace

__all__ = ["bare", "choosable"]


def bare(model: Any, what: str) -> Trace:
    """A trace without operations, of whatever was given.

    Raises:
        ValueError: a profile, or a trace that has operations.
    """
    if isinstance(model, Profile):
        raise ValueError(
            f"{what} with a profile of {model.model}; expected a model, as it runs one; pass what dlens.load returned, "
            f"or its name"
        )
    if isinstance(model, Trace) and model.ops:
        raise ValueError(
            f"{what} with a trace that has operations, the first '{model.ops[0].words()}'; expected a model without "
            f"any; pass trace.model"
        )
    return model if isinstance(model, Trace) else trace(model)


def choosable(name: str, n_layers: int, n: int, keep_first: int, keep_last: int) -> tuple[int, range]:
    """The number asked for, and the layers that may be chosen.

    Raises:
        ValueError: nothing may be chosen, or no block would stay.
    """
    n, first, last = as_index(n, "n"), as_index(keep_first, "keep_first"), as_index(keep_last, "keep_last")
    if n_layers < 2:
        raise ValueError(f"{name} has {n_layers} block; expected at least two, as one must stay; take a deeper model")
    if not 0 < n < n_layers:
        raise ValueError(
            f"n={n} of the {n_layers} blocks of {name}; expected 1 to {n_layers - 1}, as one must stay; ask for fewer"
        )
    if min(first, last) < 0 or first + last >= n_layers:
        raise ValueError(
            f"keep_first={first} and keep_last={last} of the {n_layers} blocks of {name}; expected numbers from 0 that "
            f"leave a block to choose; keep fewer"
        )
    return n, range(first, n_layers - last)
