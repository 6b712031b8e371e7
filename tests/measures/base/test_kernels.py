"""What measures give to the kernels of CUDA; a stand-in adds the same sums, as the kernels need a GPU."""

import pytest
import torch
from torch import Tensor

from dlens.measures import Cosine
from dlens.measures import cosine as module
from dlens.measures.base.cells import add_by_cell, cell_of
from tests.measures.runs import SPANS, assert_close, observe, random_run


class Kernels:
    """What the fused kernels are given, and what they add, in plain torch."""

    @staticmethod
    def add_cosine(
        pre: Tensor, post: Tensor, state: Tensor, noise: Tensor, acted: Tensor | None, cosine: Tensor, n: Tensor
    ) -> None:
        assert pre.ndim == 3 and pre[0].is_contiguous() and pre.shape[1] == state.numel()
        cell = cell_of(noise, state).flatten()
        value = torch.nn.functional.cosine_similarity(pre, post, dim=-1)
        counted = torch.ones_like(value) if acted is None else acted.to(value)
        add_by_cell(cosine, value * counted, cell)
        add_by_cell(n, counted, cell)


@pytest.mark.parametrize("skipped", [False, True])
@pytest.mark.parametrize("drop", [(), (1,)])
def test_the_kernels_are_given_rows_and_add_the_same(
    monkeypatch: pytest.MonkeyPatch, drop: tuple[int, ...], skipped: bool
) -> None:
    run = random_run(SPANS[0], skipped=skipped)
    expected = observe(Cosine(drop=drop), run, layers=3)
    monkeypatch.setattr(module, "fused", lambda value, sums: Kernels)
    found = observe(Cosine(drop=drop), run, layers=3)
    assert_close(found["cosine"], expected["cosine"].values)
    assert found["n"].identical(expected["n"])
