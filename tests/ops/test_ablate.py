"""Ablate on hand-written numbers."""

import pytest
import torch

from dlens.ops.ablate import Ablate, AblateOutlier
from dlens.ops.base.scope import Scope
from tests.ops.targets import DIFFUSION, VALUE, place
from tests.unchecked import unchecked

PER_LAYER = torch.arange(12.0).reshape(4, 3)


@pytest.mark.parametrize(
    ("op", "layer", "expected"),
    [
        (Ablate(channels=(0, 2)), 0, [[0, 2, 0], [0, 5, 0]]),
        (Ablate(), 0, [[0, 0, 0], [0, 0, 0]]),
        (Ablate(channels=(1,), value=torch.tensor(9.0)), 0, [[1, 9, 3], [4, 9, 6]]),
        (Ablate(channels=(2, 0), value=torch.tensor([7.0, 8.0])), 0, [[8, 2, 7], [8, 5, 7]]),
        (Ablate(channels=(2,), value=torch.tensor([7.0, 8.0, 9.0])), 0, [[1, 2, 9], [4, 5, 9]]),
        (Ablate(value=torch.tensor([7.0, 8.0, 9.0])), 0, [[7, 8, 9], [7, 8, 9]]),
        (Ablate(channels=(1,), value=PER_LAYER), 2, [[1, 7, 3], [4, 7, 6]]),
        (Ablate(channels=(1, 0), value=PER_LAYER[:, :2]), 3, [[10, 9, 3], [10, 9, 6]]),
        (Ablate(channels=(0,), value="mean", means=PER_LAYER), 1, [[3, 2, 3], [3, 5, 6]]),
        (Ablate(channels=(2, 1, 0), value="mean", means=PER_LAYER), 1, [[3, 4, 5], [3, 4, 5]]),
        (Ablate(channels=(2, 1, 0), value=torch.tensor([7.0, 8.0, 9.0])), 0, [[9, 8, 7], [9, 8, 7]]),
        (Ablate(channels=(2, 1, 0), value=PER_LAYER), 1, [[5, 4, 3], [5, 4, 3]]),
    ],
)
def test_channels_are_set(op, layer, expected):
    op.check(DIFFUSION)
    before = VALUE.clone()
    assert op.edit(VALUE, place(layer)).tolist() == [expected]
    assert torch.equal(VALUE, before)


def test_the_value_takes_the_type_of_the_stream():
    edited = Ablate(channels=(0,), value=torch.tensor(0.5, dtype=torch.float64)).edit(VALUE.bfloat16(), place())
    assert edited.dtype == torch.bfloat16 and edited[0, 0, 0] == 0.5


def test_words_and_plan():
    op = Ablate(channels=(5, 7), layers=(3,), tokens="masked", scope=Scope(2))
    assert op.words() == "ablate channels 5, 7 to zero in resid_post of layers 3 on masked tokens at steps 2"
    assert Ablate(value=PER_LAYER[0], at="mlp_out", tokens=[0, 1]).words() == (
        "ablate all channels to given values in mlp_out of all layers on positions 0, 1"
    )
    expected = {"op": "ablate", "channels": [5, 7], "value": "zero", "at": "resid_post", "layers": [3]}
    assert op.to_json() == expected | {"tokens": "masked tokens", "steps": [2]}


@pytest.mark.parametrize("channel", [3, -1])
def test_a_channel_out_of_range_raises(channel):
    for op in (Ablate(channels=(0, channel)), AblateOutlier(channel=channel)):
        with pytest.raises(IndexError, match=f"channel {channel} of tiny; expected 0 to 2; give a smaller number"):
            op.check(DIFFUSION)


@pytest.mark.parametrize("shape", [(4,), (2, 2), (4, 4), (1, 4, 3)])
def test_values_of_a_wrong_shape_raise(shape):
    with pytest.raises(ValueError, match=r"value has shape \(.*; expected one number, \[2\], \[3\] or .*; reshape it"):
        Ablate(channels=(0, 1), value=torch.zeros(shape)).check(DIFFUSION)


def test_an_unknown_value_word_raises():
    message = "value='median'; expected 'zero', 'mean' or a tensor; did you mean 'mean'"
    with unchecked(), pytest.raises(ValueError, match=message):
        Ablate(value="median").check(DIFFUSION)
    with unchecked(), pytest.raises(ValueError, match=message):
        AblateOutlier(value="median").check(DIFFUSION)


def test_the_outlier_stands_for_all_blocks_but_the_last():
    op = AblateOutlier(channel=1, tokens="prompt", scope=Scope([0]))
    plain = op.resolved(DIFFUSION)
    assert plain == Ablate(channels=(1,), layers=(0, 1, 2), tokens="prompt", scope=Scope([0]))
    assert AblateOutlier(channel=1, layers=(3,)).resolved(DIFFUSION).layers == (3,)
    assert plain.edit(VALUE, place()).tolist() == [[[1, 0, 3], [4, 0, 6]]]


def test_the_outlier_in_words():
    assert AblateOutlier().words() == (
        "ablate the outlier channel (found when the run starts) to zero in resid_post of all layers but the last"
    )
    found = AblateOutlier(channel=2, share=0.625, layers=(0, 1), value="mean")
    assert found.words() == "ablate outlier channel 2, 62.5% of the energy to mean in resid_post of layers 0, 1"
    assert found.to_json() == {
        "op": "ablate_outlier", "channel": 2, "share": 0.625, "value": "mean",
        "at": "resid_post", "layers": [0, 1], "tokens": "all tokens",
    }  # fmt: skip


@pytest.mark.parametrize("value", [torch.tensor(1j), torch.tensor(float("nan")), 1j], ids=str)
def test_a_value_of_an_operation_made_by_hand_is_read_too(value):
    with unchecked(), pytest.raises(ValueError, match="^value .*; expected .*; "):
        Ablate(channels=(0,), value=value).check(DIFFUSION)
    with unchecked(), pytest.raises(ValueError, match="channels .*; expected whole numbers.*; pass a list"):
        Ablate(channels={1: 2}).check(DIFFUSION)  # pyright: ignore
