"""Models that several folders of tests run, and plain copies of them."""

from __future__ import annotations

from typing import Any

import pytest

import dlens
from tests.reference import fresh
from tests.tracing.plain import PROMPTS


@pytest.fixture(scope="session", params=["diffusion", "ar_init"])
def model(request: pytest.FixtureRequest) -> dlens.Model:
    """Both diffusion models of the trio in turn: logits as they are, and shifted by one."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def plain(model: dlens.Model) -> Any:
    """The same weights in a module that dlens never saw."""
    return fresh(model.module)


@pytest.fixture(scope="session")
def plain_ar(ar: dlens.Model) -> Any:
    """The weights of the autoregressive model in a module that dlens never saw."""
    return fresh(ar.module)


@pytest.fixture(scope="session")
def record(diffusion: dlens.Model) -> dlens.Record:
    """A denoising run with captures, measures and a found outlier channel."""
    trace = dlens.trace(diffusion).skip([3]).ablate_outlier().capture("resid_post", layers=[0, -1], steps=range(2, 5))
    return trace.capture("blocks.4.hook_attn_out").measure(dlens.Cosine(), dlens.Outliers()).generate(PROMPTS[:2], 8)
