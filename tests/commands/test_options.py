import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest

from dlens import caches
from dlens.caches import Cache
from dlens.commands.options import CacheName, SamplerOptions, cache_of, named_workers, numbers, parse_layers
from dlens.models.families.decoder import MASKED
from dlens.models.family import Family
from dlens.samplers import BlockDiffusion, FirstHitting, Sampler


def test_a_model_of_canvas_blocks_says_how_long_they_are() -> None:
    def built(family: Family, **given: object) -> Sampler:
        return SamplerOptions(**given).build(SimpleNamespace(family=family))  # pyright: ignore

    blocks = replace(MASKED, block_length=4)
    assert built(blocks, sampler="block", steps=2) == BlockDiffusion(4, steps=2)
    assert built(blocks, threshold=0.5) == BlockDiffusion(4, steps=None, threshold=0.5)
    assert built(blocks, sampler="first-hitting") == FirstHitting(4)
    assert built(MASKED, sampler="block", block_length=8) == BlockDiffusion(8)


def test_layers_are_read_from_text() -> None:
    assert parse_layers("3, 5-7,-1") == [3, 5, 6, 7, -1]


def test_every_cache_has_a_name() -> None:
    found = {type(cache_of(name)) for name in get_args(CacheName)}
    assert found == {kind for kind in vars(caches).values() if isinstance(kind, type) and issubclass(kind, Cache)} - {
        Cache
    }
    assert cache_of(None) == "auto"


def test_workers_are_read_from_text() -> None:
    assert [named_workers(text) for text in ("0", "12", "slurm")] == [0, 12, "slurm"]


def test_numbers_go_to_a_file_beside_what_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "numbers.json"
    with numbers(path) as found:
        found |= {"a": (1.5, float("nan")), "b": {3: "x"}}
        print("words")
    assert json.loads(path.read_text()) == {"a": [1.5, None], "b": {"3": "x"}}
    assert capsys.readouterr().out == f"words\nWrote {path}\n"
    with numbers(None):
        print("words")
    assert capsys.readouterr().out == "words\n"


def test_numbers_can_be_all_of_the_output(capsys: pytest.CaptureFixture[str]) -> None:
    with numbers(Path("-")) as found:
        found["a"] = 1
        print("words")
    said = capsys.readouterr()
    assert json.loads(said.out) == {"a": 1} and said.err == "words\n"


def test_a_file_that_cannot_be_written_is_refused_first(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x.txt to write; expected a name that ends in .json"), numbers(Path("x.txt")):
        pytest.fail("it computes")
    with pytest.raises(ZeroDivisionError), numbers(tmp_path / "x.json"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
