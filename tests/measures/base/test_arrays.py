from dataclasses import dataclass
from typing import Any

import pytest
import torch
import xarray as xr

from dlens.measures import CKA, Cosine, CosinePairs, Drift, EffectiveRank, Norms, Recency
from dlens.measures.base.arrays import (
    DropsChannels,
    acted,
    check_channels,
    fused,
    labelled,
    left_out,
    scratch,
    wide,
    zeroed,
)
from dlens.measures.base.cells import Cells
from dlens.measures.base.measure import Span, Visit
from tests.measures.runs import SPANS

CELLS = Cells(torch.tensor([[-1, 0, 1]]), torch.tensor([3]))


def test_half_precision_is_widened_and_double_kept() -> None:
    for given, expected in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        assert wide(torch.ones(2, dtype=given)).dtype == expected


def test_channels_are_left_out_of_a_copy() -> None:
    value = torch.ones(1, 1, 2, 3)
    assert left_out(value, [1])[0, 0].tolist() == [[1, 0, 1], [1, 0, 1]]
    assert (value == 1).all() and left_out(value) is value


def test_what_is_not_measured_becomes_zero() -> None:
    value = torch.full((2, 1, 3, 2), 5.0)
    value[:, :, 0] = torch.nan
    assert zeroed(value, CELLS)[1, 0].tolist() == [[0, 0], [5, 5], [5, 5]]
    assert zeroed(value, CELLS, drop=[1])[0, 0].tolist() == [[0, 0], [5, 0], [5, 0]]


def test_a_block_acted_at_all_positions_of_a_row_or_at_none() -> None:
    visit = Visit(0, range(2), {}, CELLS, skipped=torch.tensor([[False], [True]]))
    found = acted(visit)
    assert found is not None and found.tolist() == [[True] * 3, [False] * 3]
    assert acted(Visit(0, range(2), {}, CELLS)) is None


def test_memory_to_work_in_is_one_as_long_as_a_run_lasts() -> None:
    visit = Visit(0, range(1), {}, CELLS)
    first, second = (scratch(visit, "pairs", shape, torch.float32) for shape in ((2, 3), (3, 2)))
    assert first.data_ptr() == second.data_ptr() and second.shape == (3, 2)
    assert scratch(visit, "stream", (2, 3), torch.float32).data_ptr() != first.data_ptr()
    assert scratch(visit, "pairs", (2, 4), torch.float32).numel() == 8


def test_a_channel_that_does_not_exist_is_named() -> None:
    check_channels((0, 6), 7)
    for channel in (7, -1):
        with pytest.raises(IndexError, match=f"drop names channel {channel}; expected 0 to 6; give a smaller number"):
            check_channels((channel,), 7)


def test_channels_are_kept_as_a_tuple_so_that_a_measure_can_be_a_key() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Some(DropsChannels):
        pass

    assert Some(drop=[3, 1]).left_out == Some(drop=(3, 1)).drop == (3, 1)
    assert hash(Some(drop=[3])) == hash(Some(drop=(3,)))


def test_the_kernels_run_on_cuda_alone() -> None:
    assert fused(torch.ones(2), torch.ones(2)) is None


def test_a_dataset_has_the_coordinates_of_its_dimensions() -> None:
    data = labelled({"x": (("layer", "rank"), torch.zeros(4, 2))}, SPANS[0], coords={"rank": [1, 2]}, n=3)
    assert set(data.coords) == {"layer", "rank"} and data.attrs == {"n": 3}
    assert data["layer"].values.tolist() == [0, 1, 2, 3] and data["rank"].values.tolist() == [1, 2]


@pytest.mark.parametrize("measure", [Cosine, CosinePairs, Recency, Norms, CKA, Drift, EffectiveRank])
def test_all_channels_cannot_be_left_out(measure: Any) -> None:
    span = Span(n_steps=2, n_layers=2, d_model=4, has_noise=True, device=torch.device("cpu"))
    measure(drop=[0, 1, 2, 2]).start(span)
    with pytest.raises(ValueError, match="drop names all 4 channels; expected fewer, as nothing would be left"):
        measure(drop=range(4)).start(span)


def test_datasets_of_one_span_share_nothing_that_can_be_written() -> None:
    span = SPANS[0]
    values = {"a": (("step", "layer"), torch.rand(span.n_steps, span.n_layers))}
    one, before = labelled(values, span), labelled(values, span)
    one["layer"].attrs["unit"] = "block"
    one.coords["layer"] = one["layer"] * 2
    one["step"] = ("step", [9] * span.n_steps)
    one.indexes["layer"].name = "depth"
    assert labelled(values, span).identical(before)
    plain = {dim: span.coords()[dim] for dim in ("step", "layer")}
    assert before.identical(xr.Dataset({"a": (("step", "layer"), values["a"][1].numpy())}, plain))
    more = labelled(values | {"b": (("channel",), torch.zeros(2))}, span, {"channel": [3, 5]}, n=4)
    assert more["channel"].values.tolist() == [3, 5] and more.attrs == {"n": 4} and "channel" not in before.coords
