from typing import Any

import numpy as np
import pytest
import torch

from dlens.widgets.layer_collapse_numbers import (
    at_layer,
    by_step,
    check_row,
    held_layers,
    measured_shares,
    measured_similarity,
    share_of,
    similarity,
    steps_of,
    stream,
)
from tests.widgets.records import layered, record


def test_the_stream_and_the_measures_agree(layers_read: Any) -> None:
    h, positions = stream(layers_read, 0, 0)
    assert positions == list(range(layers_read.tokens.shape[-1]))
    for kind, drop in (("cosine", None), ("cka", None), ("cka", 3)):
        expected = measured_similarity(layers_read, kind, drop)
        np.testing.assert_allclose(similarity(h, kind, drop), expected, atol=2e-5)
    assert measured_similarity(layers_read, "cosine", 3) is None
    channels, expected = measured_shares(layers_read)  # pyright: ignore
    energy = h.square().sum(1)
    np.testing.assert_allclose(energy[:, channels] / energy.sum(-1, keepdim=True), expected, rtol=1e-4)


def test_shares_of_a_token_and_of_a_step() -> None:
    given = layered()
    h = stream(given, 0, 1)[0]
    torch.testing.assert_close(sum(share_of(h, channel) for channel in range(5)), torch.ones(3, 6))
    assert float(share_of(h, 3)[2, 2]) == pytest.approx(float(h[2, 2, 3] ** 2 / (h[2, 2] ** 2).sum()))
    found = by_step(given, 0, layer=2, channel=3)
    assert [step for step, _ in found] == [0, 1]
    assert found[1][1] == pytest.approx(float((h[2, :, 3] ** 2).sum() / (h[2] ** 2).sum()))


def test_padding_is_left_out() -> None:
    pad = torch.zeros(1, 6, dtype=torch.bool)
    pad[:, :2] = True
    assert stream(layered(is_pad=pad), 0, 0)[1] == [2, 3, 4, 5]


def test_similarity_by_hand() -> None:
    h = torch.tensor([[[3.0, 4.0]], [[4.0, 3.0]]])
    np.testing.assert_allclose(similarity(h, "cosine"), [[1, 0.96], [0.96, 1]])
    np.testing.assert_allclose(similarity(h, "cosine", drop=0), [[1, 1], [1, 1]])
    assert np.isnan(similarity(h, "cka")).all()


def test_what_is_held_is_said() -> None:
    given, nothing = layered(), record(torch.tensor([[0, 1]]))
    assert (held_layers(given), steps_of(given)) == ("resid_post of layers 0, 1, 2", (0, 1))
    assert (held_layers(nothing), steps_of(nothing)) == ("no resid_post", ())
    assert torch.equal(at_layer(given, 0, 1, 2), stream(given, 0, 1)[0][2])
    check_row(nothing, 0, "Widget")
    with pytest.raises(IndexError, match="row 1 of 1"):
        check_row(nothing, 1, "Widget")
    with pytest.raises(ValueError, match="^Widget got \\[1, 0\\] tokens"):
        check_row(record(torch.zeros(1, 0, dtype=torch.long)), 0, "Widget")
