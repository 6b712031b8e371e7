"""Likelihoods, against plain forwards and against LLaDA's published evaluation code written out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import dlens
from dlens.evaluation.draws import own_seed
from dlens.evaluation.likelihood import Bound, Pair, log_likelihoods
from dlens.findings.scores.decoding import Decoding
from tests.reference import shallow
from tests.unchecked import unchecked

PAIRS = [Pair((652, 401, 12), (5, 6, 7, 8)), Pair((30,), (40, 50)), Pair((9, 8, 7, 6, 5), (44,))]


class Published:
    """LLaDA's eval_llada.py, its model a plain torch module and its mini-batch as large as its number of draws."""

    def __init__(self, model: dlens.Model, draws: int, cfg: float = 0.0) -> None:
        self.model, self.cfg, self.batch_size = model.module, cfg, draws
        self.mask_id, self.shift = model.family.mask_token_id, model.family.shift

    def _forward_process(self, batch: Tensor, prompt_index: Tensor) -> tuple[Tensor, Tensor]:
        b, length = batch.shape
        target_len = int((length - prompt_index.sum()).item())
        k = torch.randint(1, target_len + 1, ())
        x = torch.round(torch.linspace(float(k), k + (b - 1) * (target_len / b), steps=b)).long()
        x = ((x - 1) % target_len) + 1
        indices = torch.arange(target_len).repeat(b, 1)
        is_mask = indices < x.unsqueeze(1)
        for i in range(b):
            is_mask[i] = is_mask[i][torch.randperm(target_len)]
        is_mask = torch.cat((torch.zeros(b, int(prompt_index.sum()), dtype=torch.bool), is_mask), dim=1)
        return torch.where(is_mask, self.mask_id, batch), (x / target_len).unsqueeze(1).repeat(1, length)

    @torch.no_grad()
    def get_logits(self, batch: Tensor, prompt_index: Tensor) -> Tensor:
        if self.cfg > 0.0:
            un_batch = batch.clone()
            un_batch[prompt_index.unsqueeze(0).repeat(batch.shape[0], 1)] = self.mask_id
            batch = torch.cat([batch, un_batch])
        logits = self.model(batch).logits
        if self.shift:  # Dream's evaluation code moves the logits by one
            logits = torch.cat([logits[:, :1], logits[:, :-1]], dim=1)
        if self.cfg > 0.0:
            logits, un_logits = torch.chunk(logits, 2, dim=0)
            logits = un_logits + (self.cfg + 1) * (logits - un_logits)
        return logits

    def get_loglikelihood(self, pair: Pair, seed: int) -> float:
        seq = torch.tensor([[*pair.context, *pair.continuation]]).repeat(self.batch_size, 1)
        prompt_index = torch.arange(seq.shape[1]) < len(pair.context)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(own_seed(seed, pair.context, pair.continuation))
            perturbed_seq, p_mask = self._forward_process(seq, prompt_index)
        mask_indices = perturbed_seq == self.mask_id
        logits = self.get_logits(perturbed_seq, prompt_index)
        loss = F.cross_entropy(logits[mask_indices], seq[mask_indices], reduction="none") / p_mask[mask_indices]
        return -(loss.sum() / self.batch_size).item()

    def suffix_greedy_prediction(self, pair: Pair) -> list[int]:
        length = len(pair.continuation)
        seq = torch.tensor([[*pair.context, *[self.mask_id] * length]])
        prompt_index = torch.arange(seq.shape[1]) < len(pair.context)
        for _ in range(length):
            mask_index = seq == self.mask_id
            logits = self.get_logits(seq, prompt_index)[mask_index]
            x0 = torch.argmax(logits, dim=-1)
            p = torch.softmax(logits.to(torch.float32), dim=-1)
            confidence = torch.gather(p, dim=-1, index=torch.unsqueeze(x0, -1)).squeeze(dim=-1)
            _, index = torch.sort(confidence, descending=True)
            x0[index[1:]] = self.mask_id
            seq[mask_index] = x0.clone()
        return seq[0, len(pair.context) :].tolist()


def values(trace: dlens.Trace, bound: Bound | None = None, batch_size: int = 8, seed: int = 0) -> list[float]:
    decoding = Decoding(batch_size=batch_size, seed=seed)
    return [each.value for each in log_likelihoods(trace, PAIRS, bound or Bound(), decoding)]


def test_an_ar_likelihood_is_the_sum_of_its_tokens(ar: dlens.Model) -> None:
    model = shallow(ar, 2)
    found = log_likelihoods(dlens.trace(model), PAIRS)
    for pair, likelihood in zip(PAIRS, found, strict=True):
        with torch.no_grad():
            logs = model.module(torch.tensor([[*pair.context, *pair.continuation]])).logits[0].log_softmax(-1)
        own = logs[len(pair.context) - 1 : -1]
        by_hand = sum(own[i, token].item() for i, token in enumerate(pair.continuation))
        assert likelihood.value == pytest.approx(by_hand, abs=1e-5 * len(pair.continuation))
        assert likelihood.greedy == (own.argmax(-1).tolist() == list(pair.continuation))


def test_what_greedy_decoding_gives_is_greedy(ar: dlens.Model) -> None:
    model = shallow(ar, 2)
    given = dlens.trace(model).generate([[652, 401, 12]], 4, progress=False).tokens[0, 3:].tolist()
    right, wrong = Pair((652, 401, 12), tuple(given)), Pair((652, 401, 12), (*given[:-1], given[-1] + 1))
    assert [each.greedy for each in log_likelihoods(dlens.trace(model), [right, wrong])] == [True, False]


@pytest.mark.parametrize("guidance", [0.0, 1.5])
@pytest.mark.parametrize("name", ["diffusion", "ar_init"])
def test_the_bound_is_that_of_the_published_code(name: str, guidance: float, request: pytest.FixtureRequest) -> None:
    model = shallow(request.getfixturevalue(name), 2)
    model = replace(model, family=request.getfixturevalue(name).family)
    published = Published(model, 12, guidance)
    expected = [published.get_loglikelihood(pair, seed=3) for pair in PAIRS]
    assert values(dlens.trace(model), Bound(12, guidance), seed=3) == pytest.approx(expected, rel=1e-5)


def test_batches_order_and_padding_change_nothing(diffusion: dlens.Model) -> None:
    model = shallow(diffusion, 2)
    trace, bound = dlens.trace(model), Bound(6)
    expected = values(trace, bound, batch_size=1)
    assert values(trace, bound, batch_size=7) == pytest.approx(expected, rel=1e-5)
    alone = [log_likelihoods(trace, [pair], bound)[0].value for pair in reversed(PAIRS)]
    assert alone[::-1] == pytest.approx(expected, rel=1e-5)
    by_length = dlens.trace(replace(model, honours_padding=False))
    assert values(by_length, Bound(6, guidance=1.0)) == pytest.approx(values(trace, Bound(6, guidance=1.0)), rel=1e-5)
    assert values(trace, bound, seed=1) != pytest.approx(expected, rel=1e-3)


def test_one_token_is_one_draw_without_chance(diffusion: dlens.Model) -> None:
    """A single masked token has one count and one place, so the bound is its log-probability, whatever the draws."""
    model, pair = shallow(diffusion, 2), PAIRS[2]
    with torch.no_grad():
        logits = model.module(torch.tensor([[*pair.context, model.family.mask_token_id]])).logits[0, -1]
    (found,) = log_likelihoods(dlens.trace(model), [pair], Bound(5))
    assert found.value == pytest.approx(logits.log_softmax(-1)[44].item(), rel=1e-5)


@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_the_greedy_check_is_that_of_the_published_code(diffusion: dlens.Model, guidance: float) -> None:
    model = shallow(diffusion, 2)
    published = Published(model, 1, guidance)
    right = [replace(pair, continuation=tuple(published.suffix_greedy_prediction(pair))) for pair in PAIRS]
    wrong = [replace(pair, continuation=(*pair.continuation[:-1], 77)) for pair in right]
    found = log_likelihoods(dlens.trace(model), [*right, *wrong], Bound(1, guidance, check_greedy=True))
    assert [each.greedy for each in found] == [True] * 3 + [False] * 3
    unchecked = log_likelihoods(dlens.trace(model), right, Bound(1, guidance))
    assert not any(each.greedy for each in unchecked)


def test_operations_act_in_the_batches_where_they_find_something(diffusion: dlens.Model) -> None:
    trace = dlens.trace(shallow(diffusion, 2))
    plain, changed = values(trace, Bound(4), batch_size=1), values(trace.skip([1]), Bound(4), batch_size=1)
    noisy = values(trace.skip([1], noise=(0.5, 1.0)), Bound(4), batch_size=1)
    assert noisy[2] == plain[2] and noisy[1] != plain[1] and changed[2] != plain[2]  # at most 1 of 6 is a mask there
    with pytest.raises(dlens.NeverFired, match="found nothing to act on in any text"):
        log_likelihoods(trace.skip([1], noise=(0.5, 1.0)), PAIRS[2:], Bound(4))


def test_what_has_no_likelihood_is_refused(ar: dlens.Model, diffusion: dlens.Model) -> None:
    with pytest.raises(ValueError, match="guidance=1.5; expected 0, as trio/ar is autoregressive .*; leave it out"):
        log_likelihoods(dlens.trace(ar), PAIRS, Bound(guidance=1.5))
    for pair in (Pair((), (5,)), Pair((5,), ())):
        with pytest.raises(ValueError, match="a context of . tokens .*; expected at least one each; begin with"):
            log_likelihoods(dlens.trace(ar), [pair])
    mask = diffusion.family.mask_token_id
    assert mask is not None
    with pytest.raises(ValueError, match="a text with the mask token of trio/diffusion .*; expected none, .*; drop"):
        log_likelihoods(dlens.trace(diffusion), [Pair((5, mask), (6,))])
    with pytest.raises(ValueError, match="draws=0; expected at least 1, .*; give for example 128"):
        Bound(draws=0)
    for guidance in (-1, None, float("inf"), "1"):
        with unchecked(), pytest.raises(ValueError, match="guidance=.*; expected 0 or more; 0 is no guidance"):
            Bound(guidance=guidance)  # pyright: ignore
