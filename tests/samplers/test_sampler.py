"""What holds for every sampler that fills a canvas."""

import itertools

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from dlens.samplers import Ancestral, BlockDiffusion, Denoiser, Dream, FirstHitting, LLaDA, Threshold
from tests.samplers.fakes import EOS, MASK, PAD, TOKENS, VOCAB, Draws, Network, at, decode, make_canvas, prompt

SAMPLERS: list[Denoiser] = [
    LLaDA(8, 4),
    LLaDA(4, 8, 0.7, 1.0, eos_inf=True),
    LLaDA(4, 4, 0.5, remasking="random"),
    LLaDA(8, 8, confidence_eos_inf=True),
    Dream(5),
    Dream(5, "maskgit_plus", 0.7, top_p=0.9),
    Dream(8, "topk_margin", top_k=3),
    Dream(None, "entropy", 0.5, alg_temp=0.3),
    Threshold(0.5, block_length=4),
    Threshold(factor=1.0, temperature=0.7),
    Threshold(0.5, block_length=2, temperature=1.0),
    BlockDiffusion(4, steps=2, threshold=0.5),
    BlockDiffusion(4, None, 0.4, edit_threshold=0.3, temperature=0.7, top_p=0.9, stop="token"),
    BlockDiffusion(4, None, 0.4, small_block=2, first_alone=True, temperature=1.0, stop="never"),
    FirstHitting(4),
    FirstHitting(8, top_p=0.8, stop="never"),
    Ancestral(6),
    Ancestral(eps=0.3),
]

heat = st.sampled_from([0.0, 0.6])
blocks = st.sampled_from([None, 1, 2, 3, 4, 6, 12])
llada = {
    "steps": st.sampled_from([None, 12]),
    "block_length": blocks,
    "temperature": heat,
    "guidance": st.sampled_from([0.0, 1.5]),
    "remasking": st.sampled_from(["low_confidence", "random"]),
    "eos_inf": st.booleans(),
}
dream = {
    "steps": st.one_of(st.none(), st.integers(1, 20)),
    "algorithm": st.sampled_from(["origin", "maskgit_plus", "topk_margin", "entropy"]),
    "temperature": heat,
    "top_p": st.sampled_from([None, 0.2, 0.9]),
    "top_k": st.one_of(st.none(), st.integers(1, 30)),
    "alg_temp": st.sampled_from([None, 0.0, 0.1, 2.0]),
    "eps": st.sampled_from([1e-3, 0.3]),
}
threshold = {
    "threshold": st.floats(0.01, 1.0),
    "factor": st.one_of(st.none(), st.floats(0, 3)),
    "block_length": blocks,
    "temperature": heat,
}
block = {
    "block_length": st.sampled_from([1, 2, 4, 16]),
    "steps": st.one_of(st.none(), st.integers(1, 20)),
    "threshold": st.one_of(st.none(), st.floats(0.01, 1.0)),
    "minimal_topk": st.sampled_from([None, 1, 4]),
    "first_alone": st.booleans(),
    "edit_threshold": st.one_of(st.none(), st.floats(0.01, 1.0)),
    "max_post_steps": st.integers(0, 3),
    "stop": st.sampled_from(["never", "block", "token"]),
    "temperature": heat,
}
hitting = {"block_length": st.sampled_from([1, 2, 4, 16]), "top_p": st.sampled_from([None, 0.2, 0.9])}
ancestral = {"steps": st.one_of(st.none(), st.integers(1, 20)), "eps": st.sampled_from([1e-5, 0.3])}
kinds = st.one_of(
    *(
        st.tuples(st.just(kind), st.fixed_dictionaries(choices))
        for kind, choices in (
            (LLaDA, llada),
            (Dream, dream),
            (Threshold, threshold),
            (BlockDiffusion, block),
            (FirstHitting, hitting),
            (Ancestral, ancestral),
        )
    )
)
tokens_or_masks = st.lists(st.one_of(st.integers(0, PAD - 1), st.just(MASK)), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(kind=kinds, prompts=st.lists(tokens_or_masks, min_size=1, max_size=3), seed=st.integers(0, 1000))
@example(kind=(Ancestral, {"steps": None, "eps": 0.3}), prompts=[[0], [0, 0, MASK, 0, 0], [0, MASK]], seed=1)
def test_a_finished_canvas_holds_no_mask_and_the_prompt_as_it_was(
    kind: tuple[type[Denoiser], dict], prompts: list[list[int]], seed: int
) -> None:
    sampler = kind[0](**kind[1])
    canvas, generated, pads = make_canvas(prompts, 12)
    given_canvas, network = canvas.clone(), Network(seed, pads)
    out = sampler.decode(network, canvas, generated, 12, TOKENS, Draws(range(len(prompts)), seed))
    assert not (out == MASK).any()
    assert torch.equal(out[~generated], given_canvas[~generated])
    assert torch.equal(canvas, given_canvas)
    infill = max(ids.count(MASK) for ids in prompts)
    assert 1 <= network.calls <= sampler.planned_steps(12, infill)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_logits_and_canvases_are_never_edited(sampler: Denoiser, dtype: torch.dtype) -> None:
    canvas, generated, pads = make_canvas([prompt(3), prompt(5)], 8)
    network = Network(0, pads, dtype)
    sampler.decode(network, canvas, generated, 8, TOKENS, Draws(range(2)))
    for live, copy in network.outputs + network.canvases:
        assert torch.equal(live, copy)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_changed_model_draws_the_same_numbers(sampler: Denoiser) -> None:
    prompts = [[3, MASK, 4], prompt(5)]
    shapes = [decode(sampler, prompts, 8, seed)[2].shapes for seed in range(6)]
    for a, b in itertools.combinations(shapes, 2):
        assert all(x == y for x, y in zip(a, b, strict=False))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_is_drawn_is_what_decides(sampler: Denoiser) -> None:
    runs = [decode(sampler, [prompt(3)], 8, seed=0, rows=[row])[0] for row in (0, 0, 1, 2, 3)]
    assert torch.equal(runs[0], runs[1])
    random = bool(decode(sampler, [prompt(3)], 8)[2].shapes)
    assert random == any(not torch.equal(runs[0], run) for run in runs[2:])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_mask_token_is_never_sampled(sampler: Denoiser) -> None:
    canvas, generated, pads = make_canvas([prompt(3)], 8)
    network, calls = Network(), []

    def forward(canvas: Tensor, unconditional: Tensor | None = None, columns: Tensor | None = None) -> Tensor:
        calls.append(canvas)
        logits = network(canvas, unconditional, columns)
        return logits.index_fill(-1, torch.tensor([MASK]), 50.0)

    out = sampler.decode(forward, canvas, generated, 8, TOKENS, Draws())
    assert not (out == MASK).any()
    assert len(calls) <= sampler.planned_steps(8)


@pytest.mark.parametrize(
    "sampler", [LLaDA(), Dream(algorithm="maskgit_plus"), Dream(algorithm="entropy"), Threshold(1.0)]
)
def test_confidences_that_bfloat16_rounds_together_are_kept_apart(sampler: Denoiser) -> None:
    """Position 2 is surer than position 1, yet both probabilities are 1 in bfloat16."""
    logits = torch.zeros(1, 4, VOCAB, dtype=torch.bfloat16)
    logits[0, 1, 5], logits[0, 2, 6], logits[0, 3, 7] = 12.0, 13.0, 2.0
    assert logits.softmax(dim=-1)[0, 1, 5] == logits.softmax(dim=-1)[0, 2, 6]
    order = []

    def forward(canvas: Tensor, unconditional: Tensor | None = None, columns: Tensor | None = None) -> Tensor:
        order.append((canvas[0, 1:] == MASK).tolist())
        return at(logits, columns)

    canvas, generated, _ = make_canvas([[4]], 3)
    sampler.decode(forward, canvas, generated, 3, TOKENS, Draws())
    assert order == [[True, True, True], [True, False, True], [False, False, True]]


@pytest.mark.parametrize(
    "sampler", [LLaDA(), Dream(algorithm="topk_margin"), Dream(algorithm="entropy"), Threshold(1.0)]
)
def test_equal_confidences_go_to_the_leftmost_and_equal_tokens_to_the_lowest(sampler: Denoiser) -> None:
    logits = torch.zeros(2, 41, VOCAB)
    logits[:, :, [EOS, 9, 8]] = 3.0
    order = []

    def forward(canvas: Tensor, unconditional: Tensor | None = None, columns: Tensor | None = None) -> Tensor:
        order.append((canvas == MASK).sum(dim=1).tolist())
        assert (canvas[0, 1 : 41 - order[-1][0]] == 8).all()
        return at(logits, columns)

    canvas, generated, _ = make_canvas([[4], [5]], 40)
    sampler.decode(forward, canvas, generated, 40, TOKENS, Draws(range(2)))
    assert order == [[n, n] for n in range(40, 0, -1)]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_mask_token_that_is_not_to_be_filled_is_left(sampler: Denoiser) -> None:
    canvas, generated, pads = make_canvas([[3, MASK, 4], [MASK, 5]], 8)
    generated[1, 1] = False
    out = sampler.decode(Network(0, pads), canvas, generated, 8, TOKENS, Draws(range(2)))
    assert (out == MASK).nonzero().tolist() == [[1, 1]]
