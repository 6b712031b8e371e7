"""Rows are cut into files at the same forwards whatever was written before, and a full disk is said."""

from pathlib import Path

import pytest

from dlens.tracing.streams.shard import Mark, read_columns, shard_file, shards_in
from dlens.tracing.streams.writer import Writer
from tests.tracing.streams.made import part


def test_a_file_ends_with_the_forward_that_fills_it(tmp_path: Path) -> None:
    with Writer(tmp_path, "s", shard_bytes=3 * 8, number=0) as writer:
        for rows in ((0, 1), (2,), (3,), (), (4, 5)):
            writer.add(part(*rows))
        writer.close(Mark(1))
    found = shards_in(tmp_path, "s")
    assert [read_columns(shard).prompt.tolist() for shard in found] == [[0, 1, 2], [3, 4, 5]]
    assert [shard.mark for shard in found] == [Mark(0, 1), Mark(0, 1)]


def test_what_is_not_full_is_written_at_the_end_and_not_after_a_failure(tmp_path: Path) -> None:
    with Writer(tmp_path, "s", 10**6, number=0) as writer:
        writer.add(part(0))
        writer.close(Mark(7))
    assert [shard.mark for shard in shards_in(tmp_path, "s")] == [Mark(7)]
    with pytest.raises(KeyError), Writer(tmp_path, "s", 10**6, number=1) as writer:
        writer.add(part(1))
        raise KeyError
    assert not (tmp_path / shard_file(1)).exists()


def test_what_cannot_be_written_stops_the_stream(tmp_path: Path) -> None:
    (tmp_path / shard_file(0)).mkdir()
    with pytest.raises(OSError, match="cannot be written"), Writer(tmp_path, "s", 8, number=0) as writer:
        writer.add(part(0))
        writer.add(part(1))
