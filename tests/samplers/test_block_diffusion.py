"""Block diffusion against a hand-written loop, over prompts that end within blocks."""

import itertools

import pytest

from dlens.samplers import BlockDiffusion
from tests.samplers import reference
from tests.samplers.fakes import EOS, MASK, BlockNetwork, Draws, decode_blocks, prompt
from tests.unchecked import unchecked

LENGTHS = (5, 8, 11, 13, 16, 19)
RULES = [
    {"steps": 8, "threshold": 0.6},
    {"steps": 3, "threshold": 0.5, "stop": "never"},
    {"steps": None, "threshold": 0.4},
    {"steps": 2, "threshold": None},
    {"steps": 8, "threshold": 0.9, "minimal_topk": 4},
    {"steps": None, "threshold": 0.5, "edit_threshold": 0.3, "max_post_steps": 3},
    {"steps": None, "threshold": 0.5, "small_block": 2, "first_alone": True, "stop": "token"},
    {"steps": None, "threshold": 0.5, "temperature": 0.7, "top_k": 7, "top_p": 0.8},
    {"steps": 4, "threshold": 0.3, "temperature": 1.2, "first_alone": True, "edit_threshold": 0.6},
]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("block", [4, 8, 16])
def test_equals_the_published_loops(rule: dict, block: int) -> None:
    sampler = BlockDiffusion(block, **rule)
    for seed, length in enumerate(LENGTHS):
        ids, plain = prompt(length, seed), BlockNetwork(seed, block=block)
        (out,), network, _ = decode_blocks(sampler, [ids], 11, seed)
        assert out == reference.block_diffusion(sampler, plain, ids, 11, Draws(seed=seed))
        assert network.calls == plain.calls <= sampler.planned_steps(11)


@pytest.mark.parametrize("rule", RULES)
def test_a_batch_of_unequal_prompts_equals_each_alone(rule: dict) -> None:
    prompts = [prompt(length, length) for length in (5, 11, 8)]
    sampler = BlockDiffusion(4, **rule)
    together, network, _ = decode_blocks(sampler, prompts, 10)
    alone = [decode_blocks(sampler, [ids], 10, rows=[row]) for row, ids in enumerate(prompts)]
    assert together == [rows[0] for rows, _, _ in alone]
    assert network.calls == max(one.calls for _, one, _ in alone)


def test_blocks_are_counted_from_the_first_token_of_a_row() -> None:
    _, network, _ = decode_blocks(
        BlockDiffusion(4, steps=None, threshold=None, stop="never"), [prompt(5), prompt(3)], 6
    )
    for canvas, _ in network.canvases:
        for row, start, length in ((0, 0, 5), (1, 2, 3)):
            masks = [place - start for place in range(canvas.shape[1]) if canvas[row, place] == MASK]
            opened = [place for place in range(length, -(-(length + 6) // 4) * 4) if place not in masks]
            # What is decoded reaches at most into the block of the first mask.
            assert not masks or not opened or max(opened) // 4 <= masks[0] // 4


def test_edits_change_what_was_decoded_and_never_the_prompt() -> None:
    plain = BlockDiffusion(8, steps=None, threshold=0.3, stop="never")
    edits = BlockDiffusion(8, steps=None, threshold=0.3, edit_threshold=0.1, max_post_steps=2, stop="never")
    (first,), network, _ = decode_blocks(plain, [prompt(5)], 11)
    (second,), edited, _ = decode_blocks(edits, [prompt(5)], 11)
    assert first[:5] == second[:5] == prompt(5) and first != second
    assert network.calls < edited.calls <= edits.planned_steps(11)
    canvases = [canvas[0].tolist() for canvas, _ in edited.canvases]
    changed = [
        place
        for before, after in itertools.pairwise(canvases)
        for place, (old, new) in enumerate(zip(before, after, strict=True))
        if old not in (new, MASK)
    ]
    assert changed and min(changed) >= 5


def test_a_confidence_equal_to_the_threshold_passes_where_it_is_not_strict() -> None:
    found = []
    (_,), network, _ = decode_blocks(BlockDiffusion(4, steps=None, threshold=None, stop="never"), [prompt(4)], 4)
    logits, _ = network.outputs[0]
    sure = logits[0].double()
    sure[:, MASK] = -float("inf")
    least = sorted(sure.softmax(-1).amax(-1).tolist())[0]
    for strict in (True, False):
        _, network, _ = decode_blocks(BlockDiffusion(4, steps=None, threshold=least, strict=strict), [prompt(4)], 4)
        found.append(int((network.canvases[1][0] == MASK).sum()) if network.calls > 1 else 0)
    assert found == [1, 0]


def test_an_end_of_sequence_ends_a_row() -> None:
    for stop in ("block", "token", "never"):
        ends = 0
        for seed in range(12):
            sampler = BlockDiffusion(4, steps=None, threshold=0.3, stop=stop)
            (out,), network, _ = decode_blocks(sampler, [prompt(6, seed)], 16, seed)
            (whole,), longer, _ = decode_blocks(BlockDiffusion(4, None, 0.3, stop="never"), [prompt(6, seed)], 16, seed)
            assert MASK not in out
            if network.calls < longer.calls:
                ends += 1
                first = min(out[6:].index(token) for token in (EOS, 19) if token in out[6:]) + 6
                assert out[: first + 1] == whole[: first + 1] and out[-1] == EOS
        assert (ends > 0) == (stop != "never")


def test_what_is_planned() -> None:
    assert BlockDiffusion(8, steps=None).planned_steps(16) == 23
    assert BlockDiffusion(8, steps=4).planned_steps(16) == 3 * 4
    assert BlockDiffusion(8, steps=4, minimal_topk=8).planned_steps(16) == 3 * 2
    assert BlockDiffusion(8, steps=None, edit_threshold=0.9, max_post_steps=2).planned_steps(16) == 23 + 3 * 2
    assert BlockDiffusion(8, steps=4, first_alone=True).planned_steps(16, infill=1) == 4 * 5
    assert BlockDiffusion(8).filled_up([5, 8], 16) == (3, 0)


def test_values_that_mean_nothing_are_refused() -> None:
    for settings, message in (
        ({"block_length": 0}, "block_length=0; expected 1 or more; it is that of the model's blocks"),
        ({"steps": 0}, "steps=0; expected 1 or more"),
        ({"threshold": 1.5}, "threshold=1.5; expected more than 0 and at most 1"),
        ({"edit_threshold": 0}, "edit_threshold=0; expected more than 0 and at most 1"),
        ({"max_post_steps": -1}, "max_post_steps=-1; expected 0 or more"),
        ({"small_block": 5}, "small_block=5 in blocks of 32; expected a number that divides"),
        ({"stop": "soon"}, "stop='soon'; expected one of never, block, token"),
        ({"strict": "no"}, "strict='no'; expected True or False"),
        ({"temperature": -1.0}, "temperature=-1.0; expected 0 or more"),
        ({"top_p": 2.0}, "top_p=2.0; expected more than 0 and at most 1"),
    ):
        with unchecked(), pytest.raises(ValueError, match=message):
            BlockDiffusion(**settings)
