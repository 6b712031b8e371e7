"""One file of rows: written whole, read by name, refused where it is another's."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from dlens.tracing.streams.shard import Mark, read_columns, read_values, shard_file, shards_in, write_shard
from tests.tracing.streams.made import NAME, part, places


def test_rows_come_back(tmp_path: Path) -> None:
    assert part(0, 1).nbytes == 2 * 4 * 2
    write_shard(tmp_path / shard_file(0), [part(0, 1), part(2)], Mark(4, 2), "s")
    write_shard(tmp_path / shard_file(2), [part(5)], Mark(6), "s")
    (found,) = shards_in(tmp_path, "s")
    assert (found.places, found.mark) == (3, Mark(4, 2))
    assert read_columns(found).position.tolist() == [20, 21, 22]
    assert read_values(found, NAME, None)[:, 0].tolist() == [0, 1, 2]
    assert read_values(found, NAME, torch.tensor([2])).tolist() == [[2] * 4]
    with safe_open(tmp_path / shard_file(0), "pt") as file:
        assert file.metadata() == {"dlens_stream": '{"stream": "s", "batch": 4, "steps": 2}'}
        assert set(file.keys()) == {f"values/{NAME}", *(f"places/{name}" for name in places(0).columns())}


def test_marks_are_in_order() -> None:
    assert Mark(0) < Mark(0, 3) < Mark(1) and max(Mark(2, 1), Mark(2)) == Mark(2, 1)


def test_files_of_another_stream_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    write_shard(tmp_path / shard_file(0), [part(0)], Mark(1), "other")
    with pytest.raises(ValueError, match="is of another stream than the index beside it; expected files of one"):
        shards_in(tmp_path, "s")
    (tmp_path / shard_file(0)).write_bytes(b"abc")
    with pytest.raises(ValueError, match="is damaged or lacks .*; expected what stream wrote; remove it"):
        shards_in(tmp_path, "s")
