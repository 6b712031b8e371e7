"""Gather the rows of forwards into shards, and write them while the model goes on."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, final

from dlens.tracing.streams.shard import Mark, Part, shard_file, write_shard

__all__ = ["Writer"]


@final
class Writer:
    """Writes a shard whenever enough rows came; used in a `with`, which waits for the disk at its end.

    A shard ends with a forward, where its rows are `shard_bytes` or more, so what is in which shard depends on the rows
    alone. One shard is being written while the next one grows: memory holds no more.

    Args:
        folder: where.
        stream: the name of the stream.
        shard_bytes: size of a shard.
        number: of the first shard that is written.
    """

    def __init__(self, folder: Path, stream: str, shard_bytes: int, number: int) -> None:
        self._folder = folder
        self._stream = stream
        self._shard_bytes = shard_bytes
        self._number = number
        self._parts: list[Part] = []
        self._size = 0
        self._mark = Mark(0)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="dlens-stream")
        self._writing: Future[None] | None = None

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *failed: Any) -> None:
        # What was computed before a failure is kept, but not the rows of a shard that is not full.
        self._pool.shutdown()

    def add(self, part: Part) -> None:
        """The rows of a forward.

        Raises:
            OSError: the shard before cannot be written.
        """
        self._mark = part.mark
        if len(part.places):
            self._parts.append(part)
            self._size += part.nbytes
        if self._size >= self._shard_bytes:
            self._flush()

    def close(self, mark: Mark) -> None:
        """Write what is left, and wait.

        Args:
            mark: how far the stream has come.
        """
        self._mark = mark
        if self._parts:
            self._flush()
        self._wait()

    def _flush(self) -> None:
        self._wait()
        path = self._folder / shard_file(self._number)
        self._writing = self._pool.submit(write_shard, path, self._parts, self._mark, self._stream)
        self._number, self._parts, self._size = self._number + 1, [], 0

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()
            self._writing = None
