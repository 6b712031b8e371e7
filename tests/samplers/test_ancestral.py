"""MDLM's sampler against a hand-written loop with the same draws."""

import pytest

from dlens.samplers import Ancestral
from tests.samplers import reference
from tests.samplers.fakes import MASK, Draws, Network, decode, prompt


@pytest.mark.parametrize("steps", [2, 7, 40])
@pytest.mark.parametrize("eps", [1e-5, 0.4])
def test_equals_the_published_loop(steps: int, eps: float) -> None:
    for seed, length in enumerate((5, 8, 11)):
        sampler, ids, plain = Ancestral(steps, eps), prompt(length, seed), Network(seed)
        out, network, _ = decode(sampler, [ids], 10, seed)
        assert out[0].tolist() == reference.ancestral(sampler, plain, ids, 10, Draws(seed=seed))
        assert network.calls == plain.calls <= sampler.planned_steps(10) == steps + 1


def test_a_canvas_that_did_not_change_is_not_computed_again() -> None:
    _, network, draws = decode(Ancestral(200), [prompt(4)], 6)
    assert network.calls <= 7 < len(draws.shapes)
    counts = [int((canvas == MASK).sum()) for canvas, _ in network.canvases]
    assert counts == sorted(set(counts), reverse=True)


def test_the_share_of_masks_falls_with_time() -> None:
    left = []
    for row in range(60):
        _, network, draws = decode(Ancestral(4), [prompt(3)], 16, rows=[row])
        left.append(int((network.canvases[1][0] == MASK).sum()) if network.calls > 1 else 0)
    # After the first of four steps 3/4 of 960 masks are left, give or take four standard deviations.
    assert abs(sum(left) - 720) < 4 * (960 * 0.75 * 0.25) ** 0.5


def test_values_that_mean_nothing_are_refused() -> None:
    for settings, message in (
        ({"steps": 0}, "steps=0; expected 1 or more"),
        ({"eps": 0}, "eps=0; expected more than 0 and at most 1"),
    ):
        with pytest.raises(ValueError, match=message):
            Ancestral(**settings)
