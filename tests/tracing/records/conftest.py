"""A record with captures, measures and a found outlier channel, made once."""

from __future__ import annotations

import pytest

import dlens
from tests.tracing.plain import PROMPTS


@pytest.fixture(scope="module")
def record(diffusion: dlens.Model) -> dlens.Record:
    trace = dlens.trace(diffusion).skip([3]).ablate_outlier().capture("resid_post", layers=[0, -1], steps=range(2, 5))
    return trace.capture("blocks.4.hook_attn_out").measure(dlens.Cosine(), dlens.Outliers()).generate(PROMPTS[:2], 8)
