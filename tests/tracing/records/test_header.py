"""Every field of record.json is what it should be, or the file is named as damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import dlens
from dlens.tracing.records.header import Header, header_of, measure_file, read_header
from tests.refusing import assert_three_parts
from tests.tracing.records.made import made_record

REQUIRED = sorted(Header.__required_keys__)
GOOD = header_of(made_record(1)) | {"saved": "0" * 16}
DAMAGE = {
    "lists in lists": "[" * 200_000,
    "fields in fields": '{"format":' * 200_000,
    "10,000 digits": json.dumps(GOOD | {"n_steps": 0}).replace('"n_steps": 0', '"n_steps": ' + "9" * 10_000),
    **{f"{name} is null": json.dumps(GOOD | {name: None}) for name in GOOD if name != "flops"},
    **{f"no {name}": json.dumps({k: v for k, v in GOOD.items() if k != name}) for name in REQUIRED},
    "text for notes": json.dumps(GOOD | {"notes": "none"}),
    "number for a row's text": json.dumps(GOOD | {"text": [1]}),
    "null for axes": json.dumps(GOOD | {"captured": {"logits": None}}),
    "text for a layer": json.dumps(GOOD | {"captured": {"logits": GOOD["captured"]["logits"] | {"layers": ["1"]}}}),
    "one number of FLOPs": json.dumps(GOOD | {"flops": [1]}),
    "word for a token": json.dumps(GOOD | {"pieces": {"one": "1"}}),
    "file outside": json.dumps(GOOD | {"measures": {"even": "../../even.nc"}}),
    "save outside": json.dumps(GOOD | {"saved": "/../x"}),
    "labels of format 1": json.dumps(GOOD | {"measures": {"even": {"dims": {}}}}),
    "fewer than no steps": json.dumps(GOOD | {"n_steps": -1}),
}


def test_a_header_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(json.dumps(GOOD | {"of a later version": 1}))
    assert read_header(path) == json.loads(json.dumps(GOOD))


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_header_is_named(tmp_path: Path, case: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(DAMAGE[case])
    with pytest.raises(ValueError) as caught:
        read_header(path)
    assert type(caught.value) is ValueError
    assert_three_parts(str(caught.value), str(path))
    assert len(str(caught.value)) < 500


def test_any_key_of_a_measure_has_a_file() -> None:
    assert [measure_file(key) for key in ("cka", "a/b")] == ["measures/cka.nc", "measures/a%2Fb.nc"]


def test_a_damaged_header_is_named_by_load(tmp_path: Path) -> None:
    made_record(1).save(tmp_path)
    (tmp_path / "record.json").write_text(DAMAGE["notes is null"])
    with pytest.raises(ValueError, match="record.json is damaged"):
        dlens.load_record(tmp_path)
