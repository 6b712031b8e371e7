from typing import Any

import numpy as np
import pytest
import torch

from dlens.widgets.denoising_numbers import (
    POSITION_KINDS,
    all_thoughts,
    check_denoising,
    first_choices,
    frames_of,
    mask_id,
    piece,
    thoughts,
    title,
    visible,
)
from tests.widgets.records import MASK, WINDOWS, denoised, record, top_tokens


def measured(steps: int = 3, **fields: Any) -> Any:
    return denoised(steps, measures={"top_tokens": top_tokens(steps, 2, steps + 1)}, **fields)


def test_frames_are_what_stood_there() -> None:
    frames = frames_of(measured(), 0)
    assert frames.ids.tolist() == [[0, 9, 9, 9], [0, 1, 9, 9], [0, 1, 2, 9], [0, 1, 2, 3]]
    assert frames.committed.tolist() == [-1, 0, 1, 2]
    assert frames.kind.tolist() == [0, 1, 1, 1]
    np.testing.assert_allclose(frames.noise, [1, 2 / 3, 1 / 3, 0])
    # " upon" had 0.75 when it was committed; " a" and " fox" were not among the alternatives.
    np.testing.assert_array_equal(frames.confidence, [np.nan, 0.75, np.nan, np.nan])


def test_what_the_model_thought_of() -> None:
    kept = thoughts(measured(), 0, step=7, position=2, layer=0)
    assert kept["step"] == 2 and kept["message"] == ""
    assert kept["alternatives"] == [[" upon", 0.5], ["<b>bold</b>", 0.125]]
    assert kept["lens"] == [[0, " upon", 0.5], [1, " upon", 0.75]]
    assert "TopTokens" in thoughts(denoised(), 0, 0, 0, 0)["message"]
    assert "Layer 5 was not measured" in thoughts(measured(), 0, 0, 0, 5)["message"]


def unpacked(held: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(held["data"], "<f4" if held["dtype"] == "float32" else "<i4").reshape(held["shape"])


def test_the_first_choice_of_every_layer_at_a_step() -> None:
    held = first_choices(measured(), 0, 9)
    assert (held["step"], held["layers"], held["words"]) == (2, [0, 1], [" upon"])
    np.testing.assert_array_equal(unpacked(held), [[0.5] * 4, [0.75] * 4])
    assert unpacked(held["ids"]).tolist() == [[0] * 4] * 2
    one = denoised(3, measures={"t": top_tokens(3, 2, 4).isel(layer=[1])})
    assert first_choices(denoised(), 0, 0) == first_choices(one, 0, 0) == {}


def test_all_that_was_thought_is_what_is_told_place_by_place() -> None:
    data = top_tokens(3, 2, 4)
    data["token"][1, 0, 0, 2, 1] = -1
    given = denoised(3, measures={"t": data})
    held = all_thoughts(given, 0)
    ids, chances = unpacked(held["ids"]), unpacked(held["chances"])
    assert ids.shape == chances.shape == (3, 2, 4, 2) and ids[1, 0, 2, 1] == -1
    for step, layer, position in np.ndindex(3, 2, 4):
        pairs = zip(ids[step, layer, position], chances[step, layer, position], strict=True)
        told = [[held["words"][i], float(chance)] for i, chance in pairs if i >= 0]
        assert told == thoughts(given, 0, step, position, layer)["alternatives"]
    assert all_thoughts(denoised(), 0) == {}


def test_the_chance_of_the_likeliest_token_at_every_step() -> None:
    np.testing.assert_array_equal(frames_of(measured(), 0).chances, np.full((3, 4), 0.75))
    assert np.isnan(frames_of(denoised(), 0).chances).all()


def test_the_entropy_at_every_step() -> None:
    wanted = np.repeat(np.float32([[2], [1], [2 / 3]]), 4, 1)
    np.testing.assert_array_equal(frames_of(measured(), 0).entropy, wanted)
    # Records of before have none.
    old = denoised(3, measures={"t": top_tokens(3, 2, 4).drop_vars("entropy")})
    assert np.isnan(frames_of(old, 0).entropy).all() and frames_of(old, 0).entropy.shape == (3, 4)


def test_what_a_step_did_not_compute() -> None:
    assert frames_of(denoised(), 0).computed is None and not frames_of(denoised(), 0).left_out(1, 0)
    frames = frames_of(denoised(computed=WINDOWS), 0)
    found = [[p for p in range(4) if frames.left_out(step, p)] for step in range(4)]
    assert found == [[], [0, 3], [0, 1], []], "the finished text has no step"


def test_masks_are_known_from_the_record_alone() -> None:
    assert mask_id(denoised()) == MASK


def test_positions_are_of_three_kinds() -> None:
    pad = torch.tensor([[True, False, False, False]])
    canvas = torch.tensor([[[0, 1, MASK, MASK]], [[0, 1, 2, MASK]]])
    frames = frames_of(record(torch.tensor([[0, 1, 2, 3]]), canvas, prompt=2, is_pad=pad), 0)
    assert [POSITION_KINDS[kind] for kind in frames.kind] == ["padding", "prompt", "generated", "generated"]


def test_a_record_without_a_canvas_is_refused() -> None:
    with pytest.raises(ValueError, match=r"which has no canvas; expected a denoising run; use \.generate"):
        check_denoising(record(torch.tensor([[0, 1]])))
    given = denoised()
    assert check_denoising(given) is given


def test_tokens_and_runs_have_words() -> None:
    given = denoised(plan=({"op": "skip", "words": "skip layers 1"}, {"op": "capture", "words": "capture"}))
    assert (piece(given, 3), piece(given, 77)) == (" fox", "[77]")
    assert (title(given), title(denoised())) == ("made up: skip layers 1", "made up: as it is")
    assert [visible(text) for text in (" a b ", "\t", "", "  ")] == ["·a b·", "⇥", "∅", "··"]
