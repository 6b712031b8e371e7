"""Rows read from disk: in order, shuffled, chosen, and what is refused."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import dlens
from dlens.tracing.planning.streamed import StreamedPoint
from dlens.tracing.streams import activations as module
from dlens.tracing.streams.activations import Activations, load_activations
from dlens.tracing.streams.header import Header, write_header
from dlens.tracing.streams.places import Places
from dlens.tracing.streams.shard import Mark, Part, read_values, shard_file, write_shard
from tests.refusing import assert_three_parts
from tests.unchecked import unchecked

HEADER = Header(
    asked={"model": "tiny"},
    model="tiny",
    family="masked",
    kind="denoising",
    has_noise=True,
    n_layers=4,
    n_steps=6,
    n_prompts=6,
    points=(StreamedPoint("resid_post", (1, 3)),),
    plan=(),
    complete=True,
)
NAMES = ("blocks.1.hook_resid_post", "blocks.3.hook_resid_post")


def shard(folder: Path, number: int) -> None:
    """Prompts 2n and 2n + 1 at steps 0 to 2: row r of layer l of shard n has the value 100 n + 10 l + r."""
    prompt = torch.tensor([0, 0, 0, 1, 1, 1], dtype=torch.int32) + 2 * number
    step = torch.tensor([0, 1, 2] * 2, dtype=torch.int32)
    state = torch.tensor([1, 1, 2, 0, 1, 2], dtype=torch.int8)
    noise = torch.tensor([1.0, 0.3, 0.0] * 2, dtype=torch.float64)
    places = Places(prompt, step, step, step + 40, state, noise)
    rows = torch.arange(6.0)[:, None].expand(-1, 2) + 100 * number
    values = {name: (rows + 10 * layer).contiguous() for name, layer in zip(NAMES, (1, 3), strict=True)}
    write_shard(folder / shard_file(number), [Part(Mark(0), places, values)], Mark(number + 1), HEADER.stream)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Activations:
    folder = tmp_path_factory.mktemp("kept")
    for number in range(3):
        shard(folder, number)
    write_header(folder, HEADER)
    return load_activations(folder)


def first(rows: Any) -> list[int]:
    return rows[:, 0].int().tolist()


def test_rows_are_those_of_the_files_layer_by_layer(kept: Activations) -> None:
    expected = [100 * n + 10 * layer + row for n in range(3) for layer in (1, 3) for row in range(6)]
    assert len(kept) == 36 and kept.shape == (36, 2)
    assert [first(batch) for batch in kept.batches(15)] == [expected[:15], expected[15:30], expected[30:]]
    rows = kept.read()
    assert first(rows.values) == expected and rows.layer.tolist()[:7] == [1] * 6 + [3]
    assert rows.token.tolist()[:3] == [40, 41, 42] and rows.noise[:3].tolist() == [1.0, 0.3, 0.0]
    assert [[len(own) for own in parts] for parts in kept.by_file()] == [[6, 6]] * 3


def test_a_seed_gives_an_order_of_all_rows(kept: Activations, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = first(kept.read().values)
    orders = [[value for batch in kept.batches(7, shuffle=seed) for value in first(batch)] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2] and sorted(orders[0]) == sorted(orders[2]) == plain != orders[0]
    assert [len(batch) for batch in kept.batches(7, shuffle=0)] == [7] * 5 + [1]
    # Pools of one file: rows of a file stay together, files come in another order.
    monkeypatch.setattr(module, "_POOL_BYTES", 1)
    values = [value for batch in kept.batches(5, shuffle=3) for value in first(batch)]
    assert sorted(values) == plain and values != plain
    assert [len({value // 100 for value in values[at : at + 12]}) for at in (0, 12, 24)] == [1] * 3


def test_a_pool_is_let_go_of_before_the_next_is_read(kept: Activations, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_POOL_BYTES", 1)
    held: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []

    def read(*asked: Any) -> torch.Tensor:
        alive.append(sum(one() is not None for one in held))
        values = read_values(*asked)
        held.append(weakref.ref(values))
        return values

    monkeypatch.setattr(module, "read_values", read)
    assert [len(batch) for batch in kept.batches(12, shuffle=0)] == [12] * 3
    # Two layers a file: when the second is read, the first of the same file is held.
    assert alive == [0, 1] * 3


def test_values_and_columns_stay_together(kept: Activations) -> None:
    for rows in kept.rows(8, shuffle=5):
        value = rows.values[:, 0].int()
        assert torch.equal(value // 100, rows.prompt // 2) and torch.equal(value % 100 // 10, rows.layer)
        assert torch.equal(value % 10, rows.prompt % 2 * 3 + rows.step)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"layers": 3, "states": "prompt"}, [33, 133, 233]),
        ({"layers": [-1], "steps": -4, "prompts": slice(0, 2)}, [32, 35]),
        ({"layers": 1, "noise": (0.0, 0.3), "prompts": [5]}, [214, 215]),
        ({"layers": 1, "noise": (0.3, 1.0), "prompts": -1}, [213]),
        ({"layers": 1, "states": ["masked", "decoded"], "steps": "early", "prompts": 3}, [114]),
    ],
)
def test_rows_are_chosen(kept: Activations, asked: dict[str, Any], expected: list[int]) -> None:
    chosen = kept.select(**asked)
    assert first(chosen.read().values) == expected and len(chosen) == len(expected)
    assert [first(batch) for batch in chosen.batches(100)] == [expected]


def test_what_is_not_named_stays_as_it_is(kept: Activations) -> None:
    chosen = kept.select(layers=3, states="masked").select(steps=0).select(prompts=[0])
    assert first(chosen.read().values) == [30]


def test_a_point_is_named_where_there_are_several(kept: Activations) -> None:
    both = replace(
        kept, header=replace(HEADER, points=(*HEADER.points, StreamedPoint("embed", ()))), point=None, layers=()
    )
    assert repr(both) == "Activations of tiny, denoising: resid_post and embed, 18 rows of 6 prompts"
    assert first(both.select(point="resid_post", layers=1, prompts=0).read().values) == [10, 11, 12]
    with pytest.raises(ValueError) as caught:
        both.batches(4)
    assert_three_parts(str(caught.value), "holds resid_post, embed")


REFUSED: dict[str, tuple[type[Exception], str, Callable[[Activations], Any]]] = {
    "size": (ValueError, "size=0", lambda a: a.batches(0)),
    "shuffle": (ValueError, "seed=-1", lambda a: a.batches(4, shuffle=-1)),
    "point": (ValueError, "point='z'", lambda a: a.select(point="z")),
    "layer": (IndexError, "layers [2]", lambda a: a.select(layers=[1, 2])),
    "step": (IndexError, "names step 6", lambda a: a.select(steps=6)),
    "state": (ValueError, "states='maskd'", lambda a: a.select(states="maskd")),
    "no state": (ValueError, "states=[]", lambda a: a.select(states=[])),
    "noise": (ValueError, "noise=(1, 0)", lambda a: a.select(noise=(1, 0))),
    "prompt": (IndexError, "prompt 6", lambda a: a.select(prompts=6)),
    "no row": (ValueError, "no row", lambda a: a.select(states="masked", noise=(0.5, 0.6)).read()),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_there_is_refused(kept: Activations, case: str) -> None:
    kind, came, action = REFUSED[case]
    with unchecked(), pytest.raises(kind) as caught:
        action(kept)
    assert_three_parts(str(caught.value), came)


def test_noise_of_a_model_without_any_is_refused(kept: Activations) -> None:
    with pytest.raises(ValueError) as caught:
        replace(kept, header=replace(HEADER, has_noise=False)).select(noise=(0.0, 1.0))
    assert_three_parts(str(caught.value), "noise=(0.0, 1.0) of a stream of tiny")


def test_a_stream_that_is_not_finished_is_read_when_asked_for(tmp_path: Path) -> None:
    write_header(tmp_path, replace(HEADER, complete=False))
    for partial in (False, True):
        with pytest.raises(ValueError, match="ended before its first file; expected a finished one; stream again"):
            load_activations(tmp_path, partial=partial)
    shard(tmp_path, 0)
    with pytest.raises(ValueError, match="ended after batch 1; expected a finished one; stream again"):
        load_activations(tmp_path)
    assert len(load_activations(tmp_path, partial=True)) == 12
    with pytest.raises(FileNotFoundError, match=r"has no index.json; expected a folder written by trace"):
        dlens.load_activations(tmp_path / "nowhere")
