"""Dream and DiffuCoder: masked diffusion whose logits are shifted by one, as in the AR model they came from."""

from __future__ import annotations

from typing import Any

from einops import repeat

from dlens.axes import TokenIds, TokenMask
from dlens.models.family import Family, position_ids

__all__ = ["DREAM"]


def _inputs(ids: TokenIds, attention_mask: TokenMask | None) -> dict[str, Any]:
    """A 4-d mask that hides padded keys only: a padded query that sees nothing would be NaN."""
    if attention_mask is None:
        return {"input_ids": ids, "attention_mask": "full", "use_cache": False}
    keys = repeat(attention_mask, "batch key -> batch 1 query key", query=ids.shape[1])
    return {
        "input_ids": ids,
        "attention_mask": keys,
        "position_ids": position_ids(attention_mask),
        "use_cache": False,
    }


DREAM = Family(
    name="dream",
    objective="diffusion",
    shift=1,
    mask_token_id=151666,
    model_types=("Dream",),
    inputs=_inputs,
)
