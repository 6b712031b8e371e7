import itertools

import pytest
import torch
from torch import Tensor

from dlens.samplers import Threshold
from tests.samplers import reference
from tests.samplers.fakes import MASK, TOKENS, Draws, Network, at, decode, make_canvas, prompt

RULES = [{"threshold": t} for t in (0.999, 0.9, 0.6, 0.2)] + [{"factor": f} for f in (0.0, 0.4, 1.0, 2.5)]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("block", [16, 8, 2])
def test_equals_the_published_algorithm(rule: dict[str, float], block: int) -> None:
    for seed, temperature in itertools.product(range(2), (0.0, 0.7)):
        sampler, ids, plain = (
            Threshold(**rule, block_length=block, temperature=temperature),
            prompt(5, seed),
            Network(seed),
        )
        out, network, _ = decode(sampler, [ids], 16, seed)
        assert out[0].tolist() == reference.threshold(sampler, plain, ids, 16, Draws(seed=seed))
        assert network.calls == plain.calls <= sampler.planned_steps(16) == 16


def test_it_ends_early_where_the_model_is_sure() -> None:
    calls = [decode(Threshold(threshold, block_length=16), [prompt(5)], 16)[1].calls for threshold in (1.0, 0.5, 0.01)]
    assert calls[0] == 16 and calls[0] > calls[1] > calls[2] == 1


@pytest.mark.parametrize("rule", RULES)
def test_a_batch_of_unequal_prompts_equals_each_alone_in_one_block(rule: dict[str, float]) -> None:
    prompts = [prompt(2, 1), prompt(7, 2), prompt(4, 3)]
    for temperature in (0.0, 0.7):
        sampler = Threshold(**rule, temperature=temperature)
        together, network, _ = decode(sampler, prompts, 12)
        alone = [decode(sampler, [ids], 12, rows=[row]) for row, ids in enumerate(prompts)]
        for row, ids in enumerate(prompts):
            assert torch.equal(together[row, 7 - len(ids) :], alone[row][0][0])
        assert network.calls == max(one.calls for _, one, _ in alone)


def test_rows_of_a_batch_wait_for_each_other_at_a_block_end() -> None:
    prompts = [prompt(2, 1), prompt(7, 2), prompt(4, 3)]
    sampler = Threshold(0.5, block_length=4)
    together, network, _ = decode(sampler, prompts, 12)
    for row, ids in enumerate(prompts):
        assert torch.equal(together[row, 7 - len(ids) :], decode(sampler, [ids], 12)[0][0])
    for canvas, _ in network.canvases:
        blocks = (canvas[:, 7:] == MASK).view(3, 3, 4)
        current = int(blocks.any(dim=2).any(dim=0).nonzero()[0])
        assert blocks[:, current + 1 :].all()


def fixed(confidences: list[float]) -> tuple[torch.Tensor, list[list[bool]]]:
    """A model that is sure of token 3 at each position by the given probability; the masks at each step."""
    p = torch.tensor(confidences, dtype=torch.float64)
    logits = ((1 - p) / 21).log()[None, :, None].repeat(1, 1, 23)
    logits[0, :, 3] = p.log()
    logits = torch.cat([torch.zeros(1, 1, 23, dtype=torch.float64), logits], dim=1)
    return logits, []


def masks_by_step(sampler: Threshold, confidences: list[float]) -> list[list[bool]]:
    logits, seen = fixed(confidences)

    def forward(canvas: Tensor, unconditional: Tensor | None = None, columns: Tensor | None = None) -> Tensor:
        seen.append((canvas[0, 1:] == MASK).tolist())
        return at(logits, columns)

    canvas, generated, _ = make_canvas([[5]], len(confidences))
    sampler.decode(forward, canvas, generated, len(confidences), TOKENS, Draws())
    return seen


def test_threshold_takes_all_that_reach_it_and_at_least_one() -> None:
    seen = masks_by_step(Threshold(0.8), [0.95, 0.5, 0.85, 0.6])
    assert seen == [[True] * 4, [False, True, False, True], [False, True, False, False]]


def test_factor_takes_the_longest_run_that_holds() -> None:
    # Needed of the n-th, n = 2, 3, 4: 1 - 1/3, 1 - 1/4, 1 - 1/5. The first is always taken.
    seen = masks_by_step(Threshold(factor=1.0), [0.5, 0.7, 0.76, 0.79])
    assert seen[1] == [True, True, False, False]
    # The last candidate too must hold: 0.79 < 0.8. The published loop takes it unchecked.
    seen = masks_by_step(Threshold(factor=1.0), [0.79, 0.9, 0.9, 0.9])
    assert seen[1:] == [[True, False, False, False]]
    # Nothing but the surest holds.
    seen = masks_by_step(Threshold(factor=1.0), [0.6, 0.9, 0.6, 0.6])
    assert seen[1] == [True, False, True, True]


@pytest.mark.parametrize("new", [0, 8])
def test_masks_inside_a_prompt_belong_to_the_first_block(new: int) -> None:
    prompts = [[3, MASK, 4, MASK, MASK, 5], [6, 7, MASK]]
    sampler = Threshold(0.5, block_length=4)
    out, network, _ = decode(sampler, prompts, new)
    assert not (out == MASK).any()
    assert network.calls <= sampler.planned_steps(new, infill=3) == new + 3
    assert out[0, [0, 2, 5]].tolist() == [3, 4, 5] and out[1, 3:5].tolist() == [6, 7]


def test_values_that_mean_nothing_are_refused() -> None:
    for settings, message in (
        ({"threshold": 1.5}, "threshold=1.5; expected more than 0 and at most 1; it is a probability"),
        ({"factor": -1.0}, "factor=-1.0; expected 0 or more; None uses the threshold"),
        ({"block_length": 0}, "block_length=0; expected 1 or more"),
        ({"temperature": -1.0}, "temperature=-1.0; expected 0 or more"),
    ):
        with pytest.raises(ValueError, match=message):
            Threshold(**settings)
    with pytest.raises(ValueError, match="block_length=5 with max_new_tokens=12; expected"):
        Threshold(block_length=5).planned_steps(12)
