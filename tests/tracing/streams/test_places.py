"""Columns of places and rows: chosen, joined, made."""

import torch

from dlens.tracing.streams.places import Places, joined, picked, rows_of
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


def test_rows_are_picked_from_several_parts_in_any_order() -> None:
    values = torch.arange(12.0).view(6, 2)
    parts = [
        rows_of(values[:3], 3, places(0, 1, 2)),
        rows_of(values[3:4], 4, places(3)),
        rows_of(values[4:], 5, places(4, 5)),
    ]
    whole = joined(parts)
    for index in ([5, 0, 3, 2, 0], [4], [0, 1, 2, 3, 4, 5]):
        found, expected = picked(parts, torch.tensor(index)), whole.at(torch.tensor(index))
        assert torch.equal(found.values, expected.values) and found.prompt.tolist() == index
        assert torch.equal(found.layer, expected.layer) and torch.equal(found.token, expected.token)
