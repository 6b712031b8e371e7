"""The index of a stream: read back as written, refused where it is damaged or asks something else."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dlens.tracing.planning.streamed import StreamedPoint
from dlens.tracing.streams.header import INDEX, Header, read_header, refuse_unlike, write_header

HEADER = Header(
    asked={"model": "a", "prompts": "b"},
    model="tiny",
    family="masked",
    kind="forward",
    has_noise=True,
    n_layers=4,
    n_steps=1,
    n_prompts=2,
    points=(StreamedPoint("resid_post", (0, 3)), StreamedPoint("embed", ())),
    plan=({"words": "capture resid_post"},),
)


def test_it_comes_back_as_written(tmp_path: Path) -> None:
    write_header(tmp_path, HEADER)
    assert read_header(tmp_path) == HEADER
    write_header(tmp_path, replace(HEADER, complete=True))
    found = read_header(tmp_path)
    assert found.complete and found.stream == HEADER.stream
    assert replace(HEADER, asked={"model": "c", "prompts": "b"}).stream != HEADER.stream


def test_another_format_and_a_damaged_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"has no {INDEX}; expected a folder written by trace.capture"):
        read_header(tmp_path)
    write_header(tmp_path, HEADER)
    held = json.loads((tmp_path / INDEX).read_text())
    for damaged in (held | {"format": 9}, held | {"points": 3}, {}, [], held | {"more": 1}):
        (tmp_path / INDEX).write_text(json.dumps(damaged))
        with pytest.raises(ValueError, match="is damaged or by a newer dlens .*; expected what stream wrote; update"):
            read_header(tmp_path)


def test_what_differs_is_named(tmp_path: Path) -> None:
    refuse_unlike(tmp_path, HEADER, HEADER)
    other = replace(HEADER, asked={"model": "c", "prompts": "d"})
    with pytest.raises(ValueError, match="a stream of tiny with another model, another prompts; expected the same"):
        refuse_unlike(tmp_path, HEADER, other)
