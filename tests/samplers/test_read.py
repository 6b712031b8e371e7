from typing import Any

import torch
from torch import Tensor

from dlens.samplers import LLaDA, Tokens
from dlens.samplers.read import Candidates, gumbel, invert, keep_top_k, keep_top_p, keep_within_p, read


def scores(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64)


def kept(values: torch.Tensor) -> list[int]:
    return values[0].isfinite().nonzero().squeeze(1).tolist()


def test_top_p_keeps_the_smallest_set_above_the_mass() -> None:
    p = scores(0.1, 0.4, 0.2, 0.3).log()
    assert [kept(keep_top_p(p, mass)) for mass in (0.05, 0.39, 0.45, 0.75, 0.95)] == [
        [1],
        [1],
        [1, 3],
        [1, 2, 3],
        [0, 1, 2, 3],
    ]
    assert kept(keep_top_p(scores(0, 0, 0, 0), 0.3)) == [0, 1]


def test_top_k_keeps_ties_of_the_last() -> None:
    assert kept(keep_top_k(scores(1, 4, 2, 3), 2)) == [1, 3]
    assert kept(keep_top_k(scores(1, 4, 3, 3), 2)) == [1, 2, 3]
    assert kept(keep_top_k(scores(1, 4), 10)) == [0, 1]


def test_gumbel_draws_follow_the_distribution() -> None:
    values = scores(0.5, -1.0, 1.5).repeat(60_000, 1)
    uniform = torch.rand(values.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for temperature in (0.5, 1.0, 2.0):
        share = torch.bincount(gumbel(values, temperature, uniform).argmax(dim=1), minlength=3) / 60_000
        assert torch.allclose(share.double(), (values[0] / temperature).softmax(dim=0), atol=0.01)


def test_a_large_vocabulary_is_read_in_parts() -> None:
    vocab, seen, shapes = 2**20, [], []
    logits = torch.zeros(1, 7, vocab)
    logits[0, torch.arange(7), torch.arange(7) * 1000 + 5] = torch.tensor([9.0, 3, 4, 5, 6, 7, 8])

    def pick(part: torch.Tensor, uniform: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        assert uniform is not None and uniform.shape == part.shape
        seen.append(len(part))
        return part.argmax(dim=1), part.amax(dim=1)

    def noise(columns: int, vocab: int) -> torch.Tensor:
        shapes.append((columns, vocab))
        return torch.full((1, 1, 1), 0.5, dtype=torch.float64).expand(1, columns, vocab)

    open = torch.tensor([[True, False, True, True, True, True]])
    guess = read(logits[:, 1:], Candidates(open), 0, pick, noise, draws=9)
    assert guess.tokens[open].tolist() == [1005, 3005, 4005, 5005, 6005]
    assert guess.confidence[open].tolist() == [3, 5, 6, 7, 8]
    assert seen == [3, 2, 0] and shapes == [(4, vocab), (4, vocab), (1, vocab)]


def test_a_run_over_a_large_vocabulary_commits_the_likeliest() -> None:
    vocab = 2**20
    best = torch.arange(9) * 100_000 + 7
    logits = torch.zeros(1, 9, vocab)
    logits[0, torch.arange(9), best] = 20.0 + torch.arange(9)
    canvas = torch.cat([torch.tensor([[4]]), torch.ones(1, 8, dtype=torch.long)], dim=1)

    def forward(canvas: Tensor, unconditional: Tensor | None = None, columns: Any = None) -> Tensor:
        return logits[:, columns]

    out = LLaDA(2, 8).decode(forward, canvas, canvas == 1, 8, Tokens(mask=1), lambda shape: torch.rand(0))
    assert out[0].tolist() == [4, *best[1:].tolist()]


def test_what_is_kept_within_a_mass() -> None:
    scores = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.05, 0.95, 0.0, 0.0]], dtype=torch.float64).log()
    kept = keep_within_p(scores, 0.81).isfinite()
    # One token that alone has more than the mass stays; the one that crosses it does not.
    assert kept.tolist() == [[True, True, False, False], [False, True, False, False]]
    assert keep_top_p(scores, 0.81).isfinite()[0].tolist() == [True, True, True, False]


def test_a_draw_is_where_the_cumulated_probability_passes() -> None:
    chances = torch.tensor([[0.25, 0.5, 0.25]] * 5, dtype=torch.float64)
    uniform = torch.tensor([0.0, 0.249, 0.25, 0.74, 0.999], dtype=torch.float64)
    assert invert(chances, uniform).tolist() == [0, 0, 1, 1, 2]
