from typing import Any

import numpy as np
import pytest
import torch

from dlens.widgets.token_recency_numbers import (
    ALL_LEVELS,
    from_measure,
    from_stream,
    levels_of,
    noise_of,
    token_similarity,
)
from tests.widgets.records import captured, turning


def test_the_stream_and_the_measure_agree(recency_read: Any) -> None:
    measured, streamed = from_measure(recency_read, 5, ALL_LEVELS), from_stream(recency_read, 0, 5, 0)
    assert measured is not None and measured.about == "no noise level"
    near = len(streamed.similarity)
    np.testing.assert_allclose(measured.similarity[:near], streamed.similarity, atol=1e-5)
    assert np.isnan(measured.similarity[near:]).all()
    np.testing.assert_allclose(measured.index, streamed.index, atol=1e-5)


def test_noise_levels_are_those_that_occur(recency_decoded: Any) -> None:
    assert levels_of(recency_decoded) == [2, 4, 7, 9]
    found = from_measure(recency_decoded, 3, 9)
    assert found is not None and found.about == "90 to 100 % masked"
    expected = recency_decoded.measures["recency"]["similarity"].values[9, 3]
    np.testing.assert_array_equal(found.similarity, expected)
    assert from_measure(recency_decoded, 3, 8) is None
    every = from_measure(recency_decoded, 3, ALL_LEVELS)
    assert every is not None and every.about == "all noise levels"
    data = recency_decoded.measures["recency"]
    mean = np.average(
        data["similarity"].values[[2, 4, 7, 9], 3, :5], axis=0, weights=data["pairs"].values[[2, 4, 7, 9], :5]
    )
    np.testing.assert_allclose(every.similarity[:5], mean)


def test_numbers_by_hand() -> None:
    given = turning()
    matrix = token_similarity(given, 0, 1, 0)
    assert matrix.tolist() == [[1, 0, -1, 0], [0, 1, 0, -1], [-1, 0, 1, 0], [0, -1, 0, 1]]
    profile = from_stream(given, 0, 1, 0)
    np.testing.assert_allclose(profile.similarity, [0, -1, 0], atol=1e-6)
    # Distances 2 and 3 are far for four positions.
    np.testing.assert_allclose(profile.index, [0.5, 0.5], atol=1e-6)
    assert noise_of(given, 0, 0) == 1 and noise_of(given, 0, 1) == pytest.approx(2 / 3)


def test_one_position_has_no_pairs() -> None:
    profile = from_stream(turning(positions=1), 0, 0, 0)
    assert profile.similarity.shape == (0,) and np.isnan(profile.index).all()


def test_groups_are_means_of_cosines() -> None:
    h = torch.randn(1, 1, 1, 7, 3, generator=torch.Generator().manual_seed(0))
    given = turning(positions=7, layers=1, steps=1, captured=captured(h, (0,)))
    whole, grouped = (token_similarity(given, 0, 0, 0, size) for size in (1, 3))
    torch.testing.assert_close(grouped[0, 1], whole[:3, 3:6].mean())
    torch.testing.assert_close(grouped[2, 1], whole[6:, 3:6].mean())
