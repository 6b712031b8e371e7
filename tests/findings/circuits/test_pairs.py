"""Pairs of prompts: their tokens, where they ask, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import dlens
from tests.refusing import WRONG, assert_three_parts
from tests.unchecked import unchecked


@pytest.mark.parametrize("task", ["trio-math", "trio-code"])
def test_rows_part_where_the_answers_do(task: str, ar: dlens.Model) -> None:
    pairs = dlens.pairs(task, ar, 12)
    for clean, corrupted, right, wrong, at in zip(
        pairs.clean, pairs.corrupted, pairs.right, pairs.wrong, pairs.at, strict=True
    ):
        assert len(clean) == len(corrupted) == at + 1 and right != wrong
        changed = [place for place, (a, b) in enumerate(zip(clean, corrupted, strict=True)) if a != b]
        assert 1 <= len(changed) <= 2 and changed[-1] - changed[0] == len(changed) - 1
        # The number that was changed is what the answer goes on with.
        assert right in [clean[place] for place in changed] and wrong in [corrupted[place] for place in changed]
    assert len(set(pairs.clean)) == 12


def test_more_pairs_only_add(ar: dlens.Model) -> None:
    pairs = dlens.pairs("trio-code", ar, 40)
    assert pairs[:8] == dlens.pairs("trio-code", ar, 8) and pairs != dlens.pairs("trio-code", ar, 40, seed=1)


def test_a_canvas_has_a_mask_for_each_token_that_follows(ar: dlens.Model, diffusion: dlens.Model) -> None:
    prompts, canvases = (dlens.pairs("trio-math", model, 4) for model in (ar, diffusion))
    mask = diffusion.family.mask_token_id
    for prompt, canvas, at, words in zip(prompts.clean, canvases.clean, canvases.at, canvases.words, strict=True):
        assert canvas[: len(prompt)] == prompt and set(canvas[len(prompt) :]) == {mask} and canvas[at - 1] != mask
        assert len(canvas) - len(prompt) < len(ar.tokenizer(words)["input_ids"])
    assert canvases.right == prompts.right and all(
        at == len(row) for at, row in zip(canvases.at, prompts.clean, strict=True)
    )


@pytest.mark.parametrize("name", ["ar", "diffusion", "ar_init"])
def test_the_metric_asks_there(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    pairs = dlens.pairs("trio-code", model, 3)
    trace = dlens.trace(model).gradient("embed", of=pairs.metric()).capture("logits")
    record = trace.forward([list(row) for row in pairs.clean])
    for row, (ids, at) in enumerate(zip(pairs.clean, pairs.at, strict=True)):
        shift = model.family.shift if model.family.objective == "diffusion" else 0
        logits = record["logits"][row, record["logits"].shape[1] - len(ids) + at - shift]
        assert record.metric[row] == logits[pairs.right[row]] - logits[pairs.wrong[row]]
    assert record.metric.min() > 0


def test_names_take_turns(ar: dlens.Model) -> None:
    pairs = dlens.pairs("ioi", ar, 20)
    text = ar.tokenizer.decode
    for clean, corrupted, right, wrong in zip(pairs.clean, pairs.corrupted, pairs.right, pairs.wrong, strict=True):
        assert [(a, b) for a, b in zip(clean, corrupted, strict=True) if a != b] == [(wrong, right)]
        assert text([right]).strip() in text(clean) and clean.count(wrong) + clean.count(right) >= 2
    assert len(set(pairs.clean)) == 20


ENTRY = {"clean": "Tom has 3", "corrupted": "Tom had 3", "right": " dogs", "wrong": " toys"}


def written(folder: Path, *changes: dict[str, str]) -> str:
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(ENTRY | change) for change in changes))
    return str(path)


def test_a_file_of_ones_own(tmp_path: Path, diffusion: dlens.Model) -> None:
    pairs = dlens.pairs(written(tmp_path, {}, {"right": " red dogs"}), diffusion, 2)
    text, mask = diffusion.tokenizer, diffusion.family.mask_token_id
    assert text.decode(pairs.clean[0][:4]) == "Tom has 3" and pairs.clean[0][4:] == (mask,) and pairs.at == (4, 4)
    assert text.decode([pairs.right[0]]) == " dogs" and text.decode([pairs.wrong[0]]) == " toys"
    assert pairs.clean[1].count(mask) == 2 and text.decode([pairs.right[1]]) == " red"
    assert pairs.words[0] == "Tom has|had 3 dogs|toys"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corrupted": "Tom had 3 big"}, r"have \d and \d tokens; expected prompts of one length"),
        ({"corrupted": "Tom has 3"}, "are the same tokens"),
        ({"wrong": " dogs"}, "have answers of which one begins the other"),
        ({"clean": "Tom has ca", "corrupted": "Tom had ca", "right": "ts"}, "end within a token of the answer"),
    ],
)
def test_pairs_of_a_file_that_do_not_fit_are_told(
    change: dict[str, str], message: str, tmp_path: Path, ar: dlens.Model
) -> None:
    with pytest.raises(ValueError, match=message):
        dlens.pairs(written(tmp_path, change), ar, 1)


def words(model: dlens.Model, row: tuple[int, ...]) -> str:
    return model.tokenizer.decode(row).replace("<|mask|>", "_")


def test_the_last_canvas_lacks_what_would_give_the_answer_away(diffusion: dlens.Model) -> None:
    first, last = (dlens.pairs("trio-math", diffusion, 2, shown=shown) for shown in (0, 1))
    question = "Question: Rose has 37 toys. Rose gives away {}. How many toys does Rose have now?\nAnswer: 37 - "
    assert [words(diffusion, rows[0]) for rows in (last.clean, last.corrupted)] == [
        question.format(number) + "__ = 11. #### 11" for number in (26, 18)
    ]
    assert words(diffusion, first.clean[0]) == question.format(26) + 11 * "_" and first == dlens.pairs(
        "trio-math", diffusion, 2
    )
    assert words(diffusion, last.corrupted[1]).endswith("Answer: __ + 11 = 37. 37 - 6 = 31. #### 31")
    for name in ("right", "wrong", "at", "words"):
        assert getattr(last, name) == getattr(first, name)


def by_hand(model: dlens.Model, canvas: tuple[int, ...]) -> list[int]:
    """The places of the masks in the order in which the most confident token is taken."""
    ids, order = torch.tensor([canvas]), []
    while (masked := ids[0] == model.family.mask_token_id).any():
        with torch.no_grad():
            chances = model.module(**model.family.inputs(ids, None)).logits[0].double().softmax(-1)
        if model.family.shift:
            chances = chances.roll(1, dims=0)
        chances[:, model.family.mask_token_id] = 0
        confidence, tokens = chances.max(-1)
        place = int(confidence.where(masked, -1.0).argmax())
        ids[0, place] = tokens[place]
        order.append(place)
    return order


@pytest.mark.parametrize("name", ["diffusion", "ar_init"])
def test_what_the_model_fills_first_stands_first(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    first, middle, last = (dlens.pairs("trio-math", model, 1, shown=shown) for shown in (0.0, 0.5, 1.0))
    mask = model.family.mask_token_id
    rest = [place for place in by_hand(model, first.clean[0]) if last.clean[0][place] != mask]
    assert len(rest) == 9
    for given, asked, full in (
        (first.clean[0], middle.clean[0], last.clean[0]),
        (first.corrupted[0], middle.corrupted[0], last.corrupted[0]),
    ):
        expected = list(given)
        for place in rest[:5]:
            expected[place] = full[place]
        assert asked == tuple(expected)


def test_what_both_answers_hold_at_a_place_stands(tmp_path: Path, diffusion: dlens.Model) -> None:
    changes = [("26 dogs", "16 dogs"), ("26 dogs", "18 dogs"), ("26 dogs", "3 dogs"), ("3 dogs and toys", "4 dogs")]
    entries = [{"clean": "Tom has 3", "right": f" {right}", "wrong": f" {wrong}"} for right, wrong in changes]
    path = written(tmp_path, *entries)
    text = diffusion.tokenizer.decode
    held = [words(diffusion, row) for row in dlens.pairs(path, diffusion, 2, shown=1).corrupted]
    assert held == ["Tom had 3 _6 dogs", "Tom had 3 __ dogs"]
    assert text(dlens.pairs(path, diffusion, 1, shown=1).right) == "2"
    with pytest.raises(ValueError, match=re.escape("of 'Tom has|had 3 26|3 dogs'; expected answers that agree")):
        dlens.pairs(path, diffusion, 3, shown=1)
    other = written(tmp_path, entries[3])
    assert [words(diffusion, row) for row in dlens.pairs(other, diffusion, 1, shown=1).clean] == ["Tom has 3 _ dogs__"]


@pytest.mark.parametrize("shown", [-0.1, 1.1, float("nan")])
def test_a_share_out_of_range_is_told(shown: float, diffusion: dlens.Model) -> None:
    with pytest.raises(ValueError, match=r"shown=.*; expected a share from 0 to 1 of what follows the token asked for"):
        dlens.pairs("trio-math", diffusion, 1, shown=shown)


def test_where_nothing_can_be_shown_is_told(ar: dlens.Model, diffusion: dlens.Model) -> None:
    with pytest.raises(ValueError, match=r"shown=0\.5 on trio/ar; expected a diffusion model, as an autoregressive"):
        dlens.pairs("trio-math", ar, 1, shown=0.5)
    with pytest.raises(
        ValueError, match=r"shown=0\.5 of .*; expected answers that agree in a token after the one asked"
    ):
        dlens.pairs("ioi", diffusion, 1, shown=0.5)


def test_too_few_and_unknown_are_told(tmp_path: Path, ar: dlens.Model) -> None:
    with pytest.raises(ValueError, match=r"has 1 pairs for trio/ar; expected n=2; ask for fewer"):
        dlens.pairs(written(tmp_path, {}), ar, 2)
    with pytest.raises(ValueError, match="n=0; expected at least 1"):
        dlens.pairs("ioi", ar, 0)
    with pytest.raises(ValueError, match="pair 0 has 2 and 1 tokens and asks at 0"):
        dlens.Pairs(((1, 2),), ((1,),), (3,), (4,), (0,), ("",))
    with pytest.raises(ValueError, match="pairs of 2 clean, 1 corrupted"):
        dlens.Pairs(((1,), (2,)), ((1,),), (3,), (4,), (0,), ("",))


def test_batches_keep_pairs_together(pairs: dlens.Pairs) -> None:
    assert [len(part) for part in pairs.batches(2)] == [2, 1]
    mixed = pairs[[0, 2, 1]]
    parts: Any = list(mixed.batches(2, one_length=True))
    assert [part.right for part in parts] == [(30, 31), (32,)]
    assert torch.tensor([len(row) for part in parts for row in part.clean]).tolist() == [5, 5, 3]


@pytest.mark.parametrize("wrong", [*WRONG.values(), 0, -1], ids=[*WRONG, "0", "-1"])
def test_a_batch_is_of_a_whole_number_of_pairs(wrong: Any) -> None:
    one = dlens.Pairs(((5,),), ((6,),), (1,), (2,), (0,), ("a",))
    with unchecked(), pytest.raises(ValueError) as caught:
        list(one.batches(wrong))
    assert_three_parts(str(caught.value), "batch_size")
