"""Runs of the shipped models that several files read."""

from typing import Any

import pytest

import dlens
from dlens.measures import CosinePairs

TEXT = "Once upon a time there was a fox who lived in a house"


@pytest.fixture(scope="session")
def layers_read(ar: dlens.Model) -> Any:
    """A forward with the stream, and with measures of its layers."""
    measures = (dlens.CKA(), dlens.CKA(drop=[3], name="without"), CosinePairs(), dlens.Outliers(top=3))
    return dlens.trace(ar).measure(*measures).capture("resid_post").forward(TEXT)


@pytest.fixture(scope="session")
def recency_read(ar: dlens.Model) -> Any:
    """A forward with the stream and its recency."""
    return dlens.trace(ar).measure(dlens.Recency()).capture("resid_post").forward(TEXT)


@pytest.fixture(scope="session")
def recency_decoded(diffusion: dlens.Model) -> Any:
    """A denoising run with the stream of two steps and its recency."""
    return dlens.trace(diffusion).measure(dlens.Recency()).capture("resid_post", steps=[0, 3]).generate(TEXT, 4)
