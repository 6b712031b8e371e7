"""BD3-LM's sampler against a hand-written loop with the same draws."""

import pytest

from dlens.samplers import FirstHitting
from tests.samplers import reference
from tests.samplers.fakes import MASK, BlockNetwork, Draws, decode_blocks, prompt


@pytest.mark.parametrize("top_p", [None, 0.6])
@pytest.mark.parametrize("block", [4, 8, 16])
def test_equals_the_published_loop(top_p: float | None, block: int) -> None:
    for seed, length in enumerate((5, 8, 11, 13, 16, 19)):
        for stop in ("never", "block"):
            sampler = FirstHitting(block, top_p, stop)
            ids, plain = prompt(length, seed), BlockNetwork(seed, block=block)
            (out,), network, _ = decode_blocks(sampler, [ids], 9, seed)
            assert out == reference.first_hitting(sampler, plain, ids, 9, Draws(seed=seed))
            assert network.calls == plain.calls <= sampler.planned_steps(9) == 9 + block - 1


def test_a_batch_of_unequal_prompts_equals_each_alone() -> None:
    prompts = [prompt(length, length) for length in (5, 11, 8)]
    sampler = FirstHitting(4)
    together, _, _ = decode_blocks(sampler, prompts, 10)
    assert together == [decode_blocks(sampler, [ids], 10, rows=[row])[0][0] for row, ids in enumerate(prompts)]


def test_one_token_a_step_in_the_first_block_that_has_masks() -> None:
    _, network, _ = decode_blocks(FirstHitting(4, stop="never"), [prompt(6)], 6)
    canvases = [canvas[0].tolist() for canvas, _ in network.canvases]
    assert [canvas.count(MASK) for canvas in canvases] == [6, 5, 4, 3, 2, 1]
    assert [canvas[8:].count(MASK) for canvas in canvases] == [4, 4, 4, 3, 2, 1]


def test_places_are_drawn_evenly() -> None:
    firsts = []
    for seed in range(300):
        _, network, _ = decode_blocks(FirstHitting(4, stop="never"), [prompt(4)], 4, rows=[seed])
        firsts.append(next(place for place in range(4, 8) if network.canvases[1][0][0, place] != MASK))
    counts = [firsts.count(place) for place in range(4, 8)]
    assert sum((count - 75) ** 2 / 75 for count in counts) < 16.3  # chi-square of 3 degrees, p 0.001


def test_values_that_mean_nothing_are_refused() -> None:
    for settings, message in (
        ({"block_length": 0}, "block_length=0; expected 1 or more"),
        ({"top_p": 0}, "top_p=0; expected more than 0 and at most 1"),
        ({"stop": "late"}, "stop='late'; expected one of"),
    ):
        with pytest.raises(ValueError, match=message):
            FirstHitting(**settings)
