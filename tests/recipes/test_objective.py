"""What the models are trained for, against what dlens measures and against counting."""

import pytest
import torch

import dlens
from dlens.findings.scores.loss import text_loss
from recipes.trio.objective import RUNS, build, loss_of, masked


def test_the_loss_of_ar_is_the_one_dlens_measures() -> None:
    model = build(RUNS["ar"], vocab_size=64, layers=2, seed=0)
    ids = torch.randint(2, 64, (3, 24), generator=torch.Generator().manual_seed(0))
    loss = loss_of(model, 1, ids, ids, torch.ones(3, 24))
    measured = text_loss(dlens.trace(dlens.load(model.eval(), family="autoregressive")), ids.tolist())
    assert loss.item() == pytest.approx(measured.value, rel=1e-5)


@pytest.mark.parametrize("name", ["diffusion", "ar-init"])
def test_the_loss_of_a_canvas_by_hand(name: str) -> None:
    run = RUNS[name]
    model = build(run, vocab_size=64, layers=2, seed=0)
    ids = torch.randint(2, 64, (2, 8), generator=torch.Generator().manual_seed(0))
    inputs, weights = ids.clone(), torch.zeros(2, 8)
    inputs[1, 5], weights[1, 5] = 1, 4.0
    loss = loss_of(model, run.shift, inputs, ids, weights)
    logits = model(input_ids=inputs).logits[1, 5 - run.shift]
    by_hand = -4.0 * logits.log_softmax(-1)[ids[1, 5]] / (2 * (8 - run.shift))
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_only_diffusion_looks_ahead() -> None:
    for name, run in RUNS.items():
        model = build(run, vocab_size=64, layers=2, seed=0)
        ids = torch.arange(2, 10)[None]
        first = [model(input_ids=x).logits[0, 0] for x in (ids, torch.cat([ids[:, :-1], ids[:, :1]], 1))]
        assert torch.equal(*first) == (name == "ar")


def test_masks_by_counting() -> None:
    tokens = torch.full((4000, 50), 7)
    question = torch.zeros_like(tokens, dtype=torch.bool)
    question[:, :20] = True
    inputs, weights = masked(tokens, question, 1, torch.Generator().manual_seed(0))
    hidden = inputs == 1
    rate = torch.where(hidden, 1 / weights, torch.nan).nanmean(1)
    known = ~rate.isnan()
    assert not hidden[:, 0].any() and torch.equal(hidden, weights > 0)
    # Rates are spread evenly over (0, 1), and each row masks its own share of an answer.
    high = rate[known & (rate > 0.4)].sort().values
    assert high.diff().max() < 1.5 / 4000 and high.diff().min() > 0.5 / 4000
    assert (hidden[known, 20:].float().mean(1) - rate[known]).mean().abs() < 0.005
    # Where much is masked, half of the rows have their questions whole.
    whole = ~hidden[rate > 0.5, 1:20].any(1)
    assert whole.float().mean().item() == pytest.approx(0.5, abs=0.03)
