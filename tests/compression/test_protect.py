"""Weights of chosen channels stay."""

import pytest
import torch

import dlens
from dlens.compression.matrices import matrices_of
from dlens.compression.protect import kept_weights, protected_channels
from dlens.compression.recipe import Recipe
from dlens.findings.effects.weights import channel_weights
from tests.reference import shallow


def test_the_rows_and_columns_of_a_channel_stay(ar: dlens.Model) -> None:
    model = shallow(ar, 2)
    channels = (7, 30)
    kept = {matrix: kept_weights(model, Recipe(bits=3, protect=channels), matrix) for matrix in matrices_of(model)[0]}
    assert all(mask is not None for mask in kept.values())
    marked = sum(int(mask.sum()) for mask in kept.values() if mask is not None)
    lengths = [len(view) for channel in channels for view in channel_weights(model, channel, "columns")]
    # Rows without the biases that go with them.
    lengths += [len(view) for channel in channels for view in channel_weights(model, channel, "rows") if len(view) > 1]
    assert marked == sum(lengths)
    down = next(mask for matrix, mask in kept.items() if matrix.name == "mlp.down_proj")
    assert down is not None and down.nonzero()[:, 0].unique().tolist() == [7, 30]


@pytest.mark.parametrize("settings", [{"method": "gptq", "bits": 3}, {"method": "sparsegpt", "sparsity": 0.5}])
def test_they_are_the_same_to_the_bit_and_the_rest_is_not(ar: dlens.Model, settings: dict) -> None:
    model = shallow(ar, 2)
    small = dlens.compress(model, **settings, protect="outlier", rows=2)
    (channel,) = small.compression.settings["protect"]
    assert channel == protected_channels(model, "outlier")[0]
    for old, new in zip(matrices_of(model)[0], matrices_of(small)[0], strict=True):
        mask = kept_weights(model, Recipe(bits=3, protect=(channel,)), old)
        assert torch.equal(old.weight[mask], new.weight[mask])
        assert float((old.weight[~mask] != new.weight[~mask]).float().mean()) > 0.4
    assert all(0 < one.kept < 0.01 and one.levels in (None, 8) for one in small.compression.treated)


def test_what_is_no_channel_is_refused(ar: dlens.Model) -> None:
    for protect, said in (
        ([192], r"protect=\[192\] on trio/ar; expected channels from 0 to 191"),
        ([], r"protect=\[\] on trio/ar"),
        ("largest", r"protect='largest'; expected channels of the stream, or 'outlier'"),
        (1.5, r"channel 1.5; expected a whole number"),
    ):
        with pytest.raises(ValueError, match=said):
            protected_channels(ar, protect)
    assert protected_channels(ar, None) is None
