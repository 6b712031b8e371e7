"""The scale of a norm and what each head adds, on single modules."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dlens.models.inner import by_head, norm_scale

VALUE = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(0)) + 0.5


class Root(nn.Module):
    """A norm by the root of the mean square, as decoders of one's own spell it; `bias` as in Gemma's 1 + weight."""

    def __init__(self, eps: float, name: str = "", bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 2, 16))
        self.hidden = (eps,)  # under a name that says nothing
        self.bias = bias
        if name:
            setattr(self, name, eps)

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.hidden[0])
        return ((self.bias + self.weight) * wide).to(x.dtype)


def expected(value: Tensor, eps: float, centred: bool = False) -> Tensor:
    wide = value.float()
    wide = wide - wide.mean(-1, keepdim=True) if centred else wide
    return (wide.pow(2).mean(-1, keepdim=True) + eps).sqrt()


@pytest.mark.parametrize("name", ["eps", "variance_epsilon", "epsilon", "norm_eps"])
@pytest.mark.parametrize("eps", [1e-6, 1e-2])
def test_roots_of_the_mean_square(name: str, eps: float) -> None:
    norm = Root(eps, name)
    found = norm_scale(norm, norm, VALUE)
    assert found.shape == (2, 3, 1) and torch.equal(found, expected(VALUE, eps))
    assert torch.allclose(norm(VALUE), norm.weight * VALUE / found, atol=1e-6)


@pytest.mark.parametrize("eps", [1e-5, 1e-3])
@pytest.mark.parametrize("bias", [0.0, 1.0])
def test_what_is_added_shows_itself_where_no_name_says_it(eps: float, bias: float) -> None:
    norm = Root(eps, bias=bias).requires_grad_(False)
    assert torch.allclose(norm_scale(norm, norm, VALUE * 1e-3), expected(VALUE * 1e-3, eps), rtol=2e-3)


def test_layer_norms_divide_about_the_mean() -> None:
    norm = nn.LayerNorm(16, eps=1e-3)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    found = norm_scale(norm, norm, VALUE)
    assert torch.equal(found, expected(VALUE, 1e-3, centred=True))
    centred = VALUE - VALUE.mean(-1, keepdim=True)
    assert torch.allclose(norm(VALUE), norm.weight * centred / found + norm.bias, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_squared_wide(dtype: torch.dtype) -> None:
    norm, value = Root(1e-6, "eps").to(dtype), (300 * VALUE).to(dtype)
    found = norm_scale(norm, norm, value)
    assert found.dtype == torch.float32 and found.isfinite().all()
    assert torch.equal(found, expected(value, 1e-6))


@pytest.mark.parametrize("bias", [False, True])
def test_what_the_heads_add_is_the_projection_by_columns(bias: bool) -> None:
    project = nn.Linear(12, 16, bias=bias)
    z = torch.randn(2, 5, 4, 3, generator=torch.Generator().manual_seed(1))
    found = by_head(project, z)
    assert found.shape == (2, 5, 4, 16)
    for head in range(4):
        columns = project.weight[:, 3 * head : 3 * head + 3]
        assert torch.allclose(found[:, :, head], z[:, :, head] @ columns.T, atol=1e-6)
    added = 0 if project.bias is None else project.bias
    assert torch.allclose(found.sum(2) + added, project(z.flatten(2)), atol=1e-6)


def test_a_head_of_zeros_adds_nothing_for_all_its_bias() -> None:
    project = nn.Linear(4, 8)
    assert by_head(project, torch.zeros(1, 2, 2, 2)).abs().max() == 0
