from dataclasses import replace

import pytest
import torch

import dlens
from dlens.findings.scores.canvases import text_canvases
from dlens.findings.scores.loss import loss_of, losses_of, text_loss, weighted_cross_entropy

TEXTS = ["Once upon a time there was a fox", "def f(x):\n    return"]


def logits_of(model: dlens.Model, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model.module(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double()


def test_next_token_loss_equals_plain_torch(ar: dlens.Model) -> None:
    total, n = 0.0, 0
    for text in TEXTS:
        ids = ar.tokenizer(text)["input_ids"]
        scores = logits_of(ar, ids)[:-1].log_softmax(-1)
        total -= sum(float(scores[i, token]) for i, token in enumerate(ids[1:]))
        n += len(ids) - 1
    loss = text_loss(dlens.trace(ar), TEXTS)
    assert loss.value == pytest.approx(total / n, abs=1e-5)
    assert loss.n_tokens == n
    assert loss.estimator == "next-token cross-entropy"


@pytest.mark.parametrize("name", ["diffusion", "ar_init"])
def test_denoising_loss_equals_plain_torch(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    shift, mask, draws = model.family.shift, model.family.mask_token_id, 3
    generator = torch.Generator().manual_seed(5)
    total, n = 0.0, 0
    for text in TEXTS:
        ids = model.tokenizer(text)["input_ids"]
        start = torch.rand((), generator=generator).item()
        n += len(ids) - shift
        for draw in range(draws):
            rate = 0.999 * (draw + start) / draws + 0.001
            masked = (torch.rand(len(ids), generator=generator) < rate).tolist()
            canvas = [mask if m and i >= shift else t for i, (m, t) in enumerate(zip(masked, ids, strict=True))]
            scores = logits_of(model, canvas).log_softmax(-1)
            total -= sum(float(scores[i - shift, ids[i]]) / rate for i in range(shift, len(ids)) if masked[i])
    loss = text_loss(dlens.trace(model), TEXTS, draws=draws, seed=5)
    assert loss.value == pytest.approx(total / n / draws, abs=1e-5)
    assert loss.n_tokens == n


def test_batches_change_nothing(diffusion: dlens.Model) -> None:
    one, many = (text_loss(dlens.trace(diffusion), TEXTS, batch_size=size).value for size in (1, 16))
    assert one == pytest.approx(many, abs=1e-5)


def test_skipping_half_of_the_layers_costs(ar: dlens.Model) -> None:
    trace = dlens.trace(ar)
    assert text_loss(trace.skip(range(4, 12)), TEXTS).value > text_loss(trace, TEXTS).value + 0.5


def test_logits_meet_the_token_they_predict() -> None:
    logits = torch.full((1, 3, 4), -100.0)
    logits[0, 0, 1] = logits[0, 1, 2] = 100.0
    targets, weights = torch.tensor([[0, 1, 2]]), torch.tensor([[0.0, 1.0, 1.0]])
    assert weighted_cross_entropy(logits, targets, weights, shift=1) == pytest.approx(0.0)
    assert weighted_cross_entropy(logits, targets, weights, shift=0) > 100


@pytest.mark.parametrize("name", ["diffusion", "ar"])
def test_sets_that_share_forwards_keep_their_losses(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    drawn = zip([*TEXTS, "The end"], (3, 1, 2), strict=True)
    parts = [text_canvases(model, [text], draws, seed) for seed, (text, draws) in enumerate(drawn)]
    forwards: list[int] = []
    handle = model.module.register_forward_pre_hook(lambda *_: forwards.append(1))
    trace = dlens.trace(model).skip([5])
    alone = [loss_of(trace, canvases) for canvases in parts]
    n_alone, mixed = len(forwards), losses_of(trace, parts, 4, mixed=True)
    handle.remove()
    n_rows = sum(len(canvases.rows) for canvases in parts)
    assert n_alone == 3 and len(forwards) - n_alone == -(-n_rows // 4)
    assert [replace(loss, value=0.0) for loss in mixed] == [replace(loss, value=0.0) for loss in alone]
    assert [loss.value for loss in mixed] == pytest.approx([loss.value for loss in alone], abs=1e-5)
    assert len({round(loss.value, 3) for loss in mixed}) == 3, "losses that differ, or a mix-up would not show"
