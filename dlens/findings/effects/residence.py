"""Where a channel stands out: in which layers, at which tokens, at which steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlens.findings.layers.profile import profile
from dlens.findings.scores.batches import token_rows
from dlens.measures import Outliers
from dlens.samplers import Sampler
from dlens.tracing.chain import Trace
from dlens.tracing.probes.calibration import calibration_texts

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["residence"]

_TEXTS, _PROMPT_TOKENS = 8, 32


def residence(
    chain: Trace,
    channel: int,
    prompts: Any = None,
    *,
    sampler: Sampler | None = None,
    max_new_tokens: int = 32,
    batch_size: int = 8,
    seed: int = 0,
) -> xr.Dataset:
    """Where a channel of the stream stands out while the model decodes, at what leaves each block.

    Args:
        chain: the model.
        channel: which.
        prompts: anything `Trace.generate` takes; the first 32 tokens of 8 shipped texts by default.
        sampler, max_new_tokens, seed: of the decoding run.
        batch_size: prompts a run.

    Returns:
        By layer "energy_share", the channel's part of the stream's energy, "peak_share", the share of positions
        at which it is the largest, and "steps_led", the share of steps at which it is so at more than half of a
        prompt's positions. Over state, and noise where it is defined, also "energy_share_by_state",
        "peak_share_by_state" and "energy_share_by_noise". As `dlens.Outliers` defines them.
    """
    import xarray as xr

    rows = token_rows(chain.model, calibration_texts()[:_TEXTS] if prompts is None else prompts)
    rows = [row[:_PROMPT_TOKENS] for row in rows] if prompts is None else rows
    found = profile(
        chain,
        rows,
        inputs="trajectory",
        measures=[Outliers(top=chain.model.d_model)],
        sampler=sampler,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        seed=seed,
    )
    data = found.measures["outliers"]

    def pooled(variable: str, *by: str) -> xr.DataArray:
        return found.pooled("outliers", variable, by).sel(channel=channel, drop=True)

    values = {
        "energy_share": pooled("energy_share"),
        "peak_share": pooled("peak_share"),
        "steps_led": data["steps_led"].sel(channel=channel, drop=True),
        "energy_share_by_state": pooled("energy_share", "state"),
        "peak_share_by_state": pooled("peak_share", "state"),
    }
    if "noise" in data.dims:
        values["energy_share_by_noise"] = pooled("energy_share", "noise")
    about = {"channel": channel, "n_prompts": len(rows), "new_tokens": max_new_tokens, "seed": seed}
    return xr.Dataset(values, attrs=dict(data.attrs) | about)
