import itertools

import pytest
import torch

from dlens.samplers import Dream
from tests.samplers import reference
from tests.samplers.fakes import MASK, VOCAB, Draws, Network, decode, prompt

ALGORITHMS = ["origin", "maskgit_plus", "topk_margin", "entropy"]
CHOICES = [
    {},
    {"temperature": 0.7},
    {"temperature": 1.5, "top_p": 0.8},
    {"temperature": 1.0, "top_k": 4},
    {"top_p": 0.6, "top_k": 5},
    {"alg_temp": 0.4},
    {"temperature": 0.5, "top_p": 0.9, "alg_temp": 0.2},
]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(("new", "steps"), [(12, 12), (12, 5), (10, 1), (6, 9)])
def test_equals_the_published_algorithm(new: int, steps: int, algorithm: str) -> None:
    for seed, choice in itertools.product(range(2), CHOICES):
        if algorithm == "origin" and "alg_temp" in choice:
            continue
        sampler, ids, plain = Dream(steps, algorithm, **choice), prompt(4, seed), Network(seed)
        out, network, _ = decode(sampler, [ids], new, seed)
        assert out[0].tolist() == reference.dream(sampler, plain, ids, new, Draws(seed=seed))
        assert network.calls == plain.calls <= sampler.planned_steps(new)


@pytest.mark.parametrize("algorithm", ALGORITHMS[1:])
def test_one_token_a_step_by_default(algorithm: str) -> None:
    _, network, _ = decode(Dream(algorithm=algorithm), [prompt(3)], 40)
    masks = [int((canvas == MASK).sum()) for canvas, _ in network.canvases]
    assert masks == list(range(40, 0, -1))


def test_explicit_steps_follow_the_published_floor() -> None:
    _, network, _ = decode(Dream(40, "entropy"), [prompt(3)], 40)
    masks = [int((canvas == MASK).sum()) for canvas, _ in network.canvases]
    assert masks[:2] == [40, 40] and masks[-1] == 2 and len(masks) == 40


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("choice", CHOICES[:1] + CHOICES[-1:])
def test_a_batch_of_unequal_prompts_equals_each_alone(algorithm: str, choice: dict[str, float]) -> None:
    prompts = [prompt(2, 1), prompt(7, 2), prompt(4, 3)]
    sampler = Dream(5, algorithm, **choice)
    together = decode(sampler, prompts, 8)[0]
    for row, ids in enumerate(prompts):
        alone = decode(sampler, [ids], 8, rows=[row])[0]
        assert torch.equal(together[row, 7 - len(ids) :], alone[0])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("alg_temp", [None, 0.5])
def test_rows_commit_by_their_own_counts(algorithm: str, alg_temp: float | None) -> None:
    """With one count for the batch, a row with fewer masks had fixed tokens turned back into masks."""
    prompts = [[MASK] * 20 + prompt(4, 1), prompt(24, 2)]
    for steps in (3, 7, None):
        _, network, _ = decode(Dream(steps, algorithm, alg_temp=alg_temp), prompts, 4)
        seen = [canvas for canvas, _ in network.canvases]
        for before, after in itertools.pairwise(seen):
            assert torch.equal(after[before != MASK], before[before != MASK])
        if algorithm != "origin" and steps == 3:
            # floor(24 (1 - s/t)) and floor(4 (1 - s/t)) at the first of three steps, s/t = 0.667
            assert [(seen[1][row] == MASK).sum().item() for row in (0, 1)] == [24 - 7, 4 - 1]


def test_masks_inside_a_prompt_are_filled_with_the_rest() -> None:
    prompts = [[3, MASK, 4, MASK, 5], [6, 7, MASK]]
    for new, algorithm in itertools.product((0, 6), ALGORITHMS):
        sampler = Dream(algorithm=algorithm)
        out, network, _ = decode(sampler, prompts, new)
        assert not (out == MASK).any()
        assert out[0, [0, 2, 4]].tolist() == [3, 4, 5] and out[1, 2:4].tolist() == [6, 7]
        assert network.calls <= sampler.planned_steps(new, infill=2) == new + 2


def test_draws_follow_the_distribution() -> None:
    from dlens.samplers.read import invert

    p = torch.tensor([0.0, 0.5, 0.2, 0.0, 0.3, 0.0], dtype=torch.float64)
    uniform = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    share = torch.bincount(invert(p.repeat(10_000, 1), uniform), minlength=6) / 10_000
    assert torch.allclose(share.double(), p, atol=1e-4)
    edges = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert invert(p.repeat(2, 1), edges).tolist() == [1, 4]


def test_position_draws_follow_the_confidence() -> None:
    sampler = Dream(algorithm="entropy", alg_temp=0.5)
    confidence = torch.tensor([[0.1, 0.9, 0.4]], dtype=torch.float64).repeat(40_000, 1)
    generator = torch.Generator().manual_seed(0)
    keys = sampler._keys(confidence, lambda shape: torch.rand(tuple(shape), generator=generator, dtype=torch.float64))
    share = torch.bincount(keys.argmax(dim=1), minlength=3) / 40_000
    assert torch.allclose(share.double(), (confidence[0] / 0.5).softmax(dim=0), atol=0.01)


def test_values_that_mean_nothing_are_refused() -> None:
    for settings, message in (
        ({"steps": 0}, "steps=0; expected 1 or more; None is one token a step"),
        (
            {"algorithm": "random"},
            "algorithm='random'; expected one of origin, maskgit_plus, topk_margin, entropy; check",
        ),
        ({"top_p": 0.0}, "top_p=0.0; expected more than 0 and at most 1; it is a probability mass"),
        ({"top_k": 0}, "top_k=0; expected 1 or more; None is all tokens"),
        ({"alg_temp": -1.0}, "alg_temp=-1.0; expected 0 or more; None takes"),
        ({"eps": 0.0}, "eps=0.0; expected more than 0 and at most 0.5; it is the noise level"),
    ):
        with pytest.raises(ValueError, match=message):
            Dream(**settings)


def test_a_large_top_k_keeps_all() -> None:
    assert torch.equal(
        decode(Dream(6, "maskgit_plus", top_k=10 * VOCAB), [prompt(4)], 6)[0],
        decode(Dream(6, "maskgit_plus"), [prompt(4)], 6)[0],
    )
