"""What is read off the logits, against the logits themselves."""

from __future__ import annotations

import torch

import dlens
from dlens.evaluation.reading import ReadTokens, Wanted
from tests.reference import shallow


def test_numbers_are_those_of_the_captured_logits(diffusion: dlens.Model) -> None:
    model, rows = shallow(diffusion, 2), [[5, 6, 7], [8, 9]]
    read = ReadTokens(wanted=(Wanted([-3, -1], [6, 7]), Wanted([-2], [9])))
    plain = dlens.trace(model).capture("logits").forward(rows)["logits"]
    traced = dlens.trace(model).apply(read).capture("logits").forward(rows)["logits"]
    assert traced.equal(plain)  # nothing is changed
    logs = plain.log_softmax(-1)
    expected = [logs[0, 0, 6] + logs[0, 2, 7], logs[1, 1, 9]]
    assert torch.allclose(read.numbers()[:, 0], torch.stack(expected).double(), atol=1e-5)
    assert read.numbers()[:, 1].tolist() == [0, 0]
    best = plain[1, 1].argmax().item()
    sure = ReadTokens(wanted=(Wanted([-1], [0]), Wanted([-2], [best])))
    dlens.trace(model).apply(sure).forward(rows)
    assert sure.numbers()[1, 1] == 1


def test_guidance_joins_the_rows_of_both_halves(diffusion: dlens.Model) -> None:
    model, mask = shallow(diffusion, 2), diffusion.family.mask_token_id
    rows = [[5, 6, mask], [8, mask], [mask] * 3, [mask, mask]]
    logits = dlens.trace(model).capture("logits").forward(rows)["logits"]
    read = ReadTokens(wanted=(Wanted([-1], [7]), Wanted([-1], [9])), guidance=1.5)
    dlens.trace(model).apply(read).forward(rows)
    joined = logits[2:, -1] + 2.5 * (logits[:2, -1] - logits[2:, -1])
    expected = joined.log_softmax(-1)[[0, 1], [7, 9]].double()
    assert torch.allclose(read.numbers()[:, 0], expected, atol=1e-5)


def test_it_says_what_it_does(ar: dlens.Model) -> None:
    read = ReadTokens(wanted=(Wanted([-1], [7]),))
    assert read.words() == "read the likelihood of tokens in 1 rows" and read.details() == {"rows": 1}
    record = dlens.trace(shallow(ar, 1)).apply(read).forward([[5, 6]])
    assert record.plan[0]["op"] == "read_tokens" and record.plan[0]["at"] == "logits"
