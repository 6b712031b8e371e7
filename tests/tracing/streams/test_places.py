"""Columns of places and rows: chosen, joined, made."""

import torch

from dlens.tracing.streams.places import Places, joined, rows_of
from tests.tracing.streams.made import places


def test_places_are_chosen_and_joined_column_by_column() -> None:
    joined = Places.joined([places(0, 1), places(2)])
    assert len(joined) == 3 and joined.token.tolist() == [30, 31, 32]
    assert list(joined.columns()) == ["prompt", "step", "position", "token", "state", "noise"]
    assert joined.at(torch.tensor([2, 0])).position.tolist() == [22, 20]
    assert joined.at(torch.tensor([False, True, False])).step.tolist() == [11]


def test_rows_have_their_layer() -> None:
    rows = joined([rows_of(torch.eye(2), 3, places(0, 1)), rows_of(torch.zeros(1, 2), 5, places(7))])
    assert rows.layer.tolist() == [3, 3, 5] and rows.prompt.tolist() == [0, 1, 7] and len(rows) == 3
    assert rows.at(rows.layer == 3).values.tolist() == [[1, 0], [0, 1]]
    assert rows.at(slice(1, 3)).token.tolist() == [31, 37]
    assert joined([rows]) is rows
