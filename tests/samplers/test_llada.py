import pytest
import torch
from torch import Tensor

from dlens.samplers import LLaDA, Tokens
from tests.samplers import reference
from tests.samplers.fakes import EOS, MASK, TOKENS, TURN, Draws, Network, at, decode, make_canvas, prompt

SCHEDULES = [(16, 16, 16), (16, 4, 16), (16, 8, 8), (16, 4, 12), (12, 12, 1), (7, 7, 3), (12, 3, 8)]


def check_against_reference(sampler: LLaDA, new: int, seed: int) -> None:
    ids = prompt(5, seed)
    out, network, _ = decode(sampler, [ids], new, seed)
    plain = Network(seed)
    assert out[0].tolist() == reference.llada(sampler, plain, ids, new, Draws(seed=seed))
    assert network.calls == plain.calls == sampler.planned_steps(new)


@pytest.mark.parametrize("guidance", [0.0, 0.5, 2.0])
@pytest.mark.parametrize(("new", "block", "steps"), SCHEDULES)
def test_equals_the_published_algorithm(new: int, block: int, steps: int, guidance: float) -> None:
    for seed, temperature in enumerate((0.0, 0.8)):
        check_against_reference(LLaDA(steps, block, temperature, guidance), new, seed)
        check_against_reference(LLaDA(steps, block, temperature, guidance, "random"), new, seed)


def test_end_of_sequence_options() -> None:
    seen = set()
    for seed in range(5):
        for eos_inf, late in ((True, False), (False, True), (True, True)):
            sampler = LLaDA(6, 12, temperature=2.0, eos_inf=eos_inf, confidence_eos_inf=late)
            check_against_reference(sampler, 12, seed)
            out = decode(sampler, [prompt(5, seed)], 12, seed)[0]
            assert not (eos_inf and (out == EOS).any())
            seen |= {(late, end) for end in (EOS, TURN) if (out == end).any()}
    assert {(True, EOS), (True, TURN)} <= seen


def test_ends_are_committed_last() -> None:
    def forward(canvas: Tensor, unconditional: Tensor | None = None, columns: Tensor | None = None) -> Tensor:
        logits = torch.zeros(*canvas.shape, 23)
        for position, (token, height) in enumerate([(EOS, 9), (3, 1), (TURN, 8), (4, 2)], start=1):
            logits[0, position, token] = height
        return at(logits, columns)

    steps = []
    canvas, generated, _ = make_canvas([[5]], 4)
    sampler = LLaDA(confidence_eos_inf=True)

    def watched(canvas: Tensor, unconditional: Tensor | None = None, columns: Tensor | None = None) -> Tensor:
        steps.append((canvas[0, 1:] == MASK).tolist())
        return forward(canvas, columns=columns)

    out = sampler.decode(watched, canvas, generated, 4, TOKENS, Draws())
    assert out.tolist() == [[5, EOS, 3, TURN, 4]]
    assert steps[2] == [True, False, True, False]


def test_one_token_a_step_by_default() -> None:
    _, network, _ = decode(LLaDA(), [prompt(3)], 64)
    masks = [int((canvas == MASK).sum()) for canvas, _ in network.canvases]
    assert masks == list(range(64, 0, -1))
    assert all((canvas[0, 3 + 32 :] == MASK).all() for canvas, _ in network.canvases[:32])


@pytest.mark.parametrize("sampler", [LLaDA(8, 8), LLaDA(4, 4, 0.7, 1.0), LLaDA(8, 4, remasking="random"), LLaDA()])
def test_a_batch_of_unequal_prompts_equals_each_alone(sampler: LLaDA) -> None:
    prompts = [prompt(2, 1), prompt(7, 2), prompt(4, 3)]
    together = decode(sampler, prompts, 8)[0]
    for row, ids in enumerate(prompts):
        alone = decode(sampler, [ids], 8, rows=[row])[0]
        assert torch.equal(together[row, 7 - len(ids) :], alone[0])


def test_guidance_is_one_call_a_step_with_the_prompt_masked() -> None:
    prompts = [prompt(3, 1), prompt(5, 2)]
    sampler = LLaDA(4, 8, guidance=1.0)
    _, network, _ = decode(sampler, prompts, 8)
    assert network.calls == sampler.planned_steps(8) == 4
    for (canvas, _), bare in zip(network.canvases, network.unconditional, strict=True):
        assert bare is not None and (bare[:, :5] == MASK).all()
        assert torch.equal(bare[:, 5:], canvas[:, 5:])


def test_guidance_changes_the_result_and_none_is_one_canvas() -> None:
    plain, network, _ = decode(LLaDA(8, 8), [prompt(6)], 8)
    guided = decode(LLaDA(8, 8, guidance=3.0), [prompt(6)], 8)[0]
    assert not torch.equal(plain, guided)
    assert network.unconditional == [None] * 8


@pytest.mark.parametrize("sampler", [LLaDA(), LLaDA(block_length=4, guidance=1.0), LLaDA(steps=4, block_length=8)])
def test_masks_inside_a_prompt_belong_to_the_first_block(sampler: LLaDA) -> None:
    prompts = [[3, MASK, 4, MASK, MASK, 5], [6, 7, MASK]]
    out, network, _ = decode(sampler, prompts, 8)
    assert not (out == MASK).any()
    size = sampler.block_length or 8
    started = (
        next(i for i, (c, _) in enumerate(network.canvases) if (c[:, 6 + size :] != MASK).any()) if size < 8 else 0
    )
    assert all((network.canvases[i][0][:, : 6 + size] != MASK).all() for i in range(started, network.calls) if started)
    assert network.calls == sampler.planned_steps(8, infill=3)
    assert out[0, [0, 2, 5]].tolist() == [3, 4, 5] and out[1, 3:5].tolist() == [6, 7]


@pytest.mark.parametrize(("sampler", "calls"), [(LLaDA(), 3), (LLaDA(steps=2), 2), (LLaDA(block_length=32), 3)])
def test_infilling_without_new_tokens_is_one_block(sampler: LLaDA, calls: int) -> None:
    out, network, _ = decode(sampler, [[3, MASK, 4, MASK, MASK, 5], [6, 7, MASK]], 0)
    assert not (out == MASK).any()
    assert network.calls == calls == sampler.planned_steps(0, infill=3)


@pytest.mark.parametrize(
    ("sampler", "new", "infill", "message"),
    [
        (
            LLaDA(block_length=5),
            12,
            0,
            "block_length=5 with max_new_tokens=12; expected .* divides .*; use one of 1, 2",
        ),
        (LLaDA(block_length=32), 12, 0, "block_length=32 .*; use .* max_new_tokens=32"),
        (LLaDA(steps=13), 12, 0, "steps=13 for 12 tokens; expected at most one step a token; give steps=12"),
        (LLaDA(steps=5, block_length=4), 12, 0, "steps=5 in 3 blocks; expected a multiple .*; give steps=6"),
        (LLaDA(steps=4), 0, 3, "steps=4 for 3 tokens"),
    ],
)
def test_settings_that_do_not_fit_are_refused(sampler: LLaDA, new: int, infill: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sampler.planned_steps(new, infill)
    network = Network()
    canvas, generated, _ = make_canvas([[3] + [MASK] * infill], new)
    with pytest.raises(ValueError, match=message):
        sampler.decode(network, canvas, generated, new, TOKENS, Draws())
    assert network.calls == 0


def test_values_that_mean_nothing_are_refused() -> None:
    for settings, message in (
        ({"steps": 0}, "steps=0; expected 1 or more; None is one token a step"),
        ({"block_length": 0}, "block_length=0; expected 1 or more"),
        ({"temperature": -1.0}, "temperature=-1.0; expected 0 or more"),
        ({"guidance": -0.5}, "guidance=-0.5; expected 0 or more"),
        ({"remasking": "entropy"}, "remasking='entropy'; expected one of low_confidence, random; check the spelling"),
        ({"remasking": "random", "confidence_eos_inf": True}, "confidence_eos_inf=True .*; expected .*; use eos_inf"),
    ):
        with pytest.raises(ValueError, match=message):
            LLaDA(**settings)


@pytest.mark.parametrize("name", ["eos_inf", "confidence_eos_inf"])
def test_end_options_without_an_end_token_are_refused(name: str) -> None:
    network = Network()
    canvas, generated, _ = make_canvas([[3]], 4)
    with pytest.raises(ValueError, match=f"{name}=True .*; expected a tokenizer .*; set tokenizer.eos_token"):
        LLaDA(**{name: True}).decode(network, canvas, generated, 4, Tokens(MASK), Draws())
    assert network.calls == 0
