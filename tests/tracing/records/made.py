"""A small record that no model made, with a number in every part of it."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr

import dlens
from dlens.tracing.records.captured import Captured
from dlens.tracing.records.record import Flops


def made_record(number: int) -> dlens.Record:
    """A record of a forward; odd ones have one more measure."""
    tokens = torch.full((1, 4), number)
    measure = xr.Dataset({"v": ("layer", np.full(2, number))})
    return dlens.Record(
        kind="forward",
        model="made",
        family="made",
        n_layers=2,
        tokens=tokens,
        is_pad=torch.zeros(1, 4, dtype=torch.bool),
        is_prompt=torch.ones(1, 4, dtype=torch.bool),
        text=[str(number)],
        canvas=None,
        committed_at=torch.full_like(tokens, -1),
        step_of_position=None,
        n_steps=1,
        planned_steps=1,
        captured={
            "logits": Captured(torch.full((1, 4, 8), number), ("batch", "position", "vocab"), (), (), (0, 1, 2, 3))
        },
        measures={"even": measure} | ({"odd": measure} if number % 2 else {}),
        plan=(),
        settings={"seed": number},
        notes=(),
        unfired=(),
        seconds=1.0,
        versions={},
        memo={"pieces": {}, "flops": Flops(number, number)},
    )


def number_of(record: dlens.Record) -> int:
    """The number that a made record holds, the same in every part."""
    parts = [int(record.text[0]), record.settings["seed"], record.flops, *record.tokens.unique().tolist()]
    parts += record["logits"].unique().tolist()
    parts += [value for dataset in record.measures.values() for value in dataset["v"].values.tolist()]
    [number] = set(parts)
    assert list(record.measures) == (["even", "odd"] if number % 2 else ["even"])
    return number
