"""The sampler of a kind of model when none is named."""

from dlens.samplers import Autoregressive, BlockDiffusion, Denoiser, Dream, LLaDA, default_for
from tests.samplers.fakes import MASK, decode, decode_blocks, prompt


def test_defaults_are_one_token_a_step_at_temperature_0() -> None:
    assert default_for("autoregressive", shift=1) == Autoregressive(temperature=0.0)
    assert default_for("diffusion", shift=0) == LLaDA(temperature=0.0)
    assert default_for("diffusion", shift=1) == Dream(algorithm="entropy", temperature=0.0)
    for shift in (0, 1):
        sampler = default_for("diffusion", shift)
        assert isinstance(sampler, Denoiser)
        _, network, draws = decode(sampler, [prompt(3), prompt(6)], 20)
        masks = [(canvas == MASK).sum(dim=1).tolist() for canvas, _ in network.canvases]
        assert masks == [[n, n] for n in range(20, 0, -1)]
        assert draws.shapes == []
    assert all(
        default_for(*kind).planned_steps(20) == 20
        for kind in (("autoregressive", 1), ("diffusion", 0), ("diffusion", 1))
    )


def test_the_default_of_canvas_blocks_is_one_token_a_step_too() -> None:
    for shift in (0, 1):
        sampler = default_for("diffusion", shift, block_length=4)
        assert isinstance(sampler, BlockDiffusion) and sampler.first_alone == bool(shift)
        _, network, draws = decode_blocks(sampler, [prompt(5)], 7)
        masks = [int((canvas == MASK).sum()) for canvas, _ in network.canvases]
        assert masks == list(range(7, 7 - len(masks), -1)) and draws.shapes == []
