"""The run on the page of a report."""

from __future__ import annotations

import dlens
from dlens.show.report.example import example


def test_the_first_model_that_denoises_shows_a_run(ar: dlens.Model, diffusion: dlens.Model) -> None:
    html = str(example([dlens.trace(ar), dlens.trace(diffusion)], seed=0))
    assert "How trio/diffusion denoises 32 tokens" in html and html.count("<script") == 1
    # With the figures of a report it stays below two megabytes.
    assert len(html) < 400_000


def test_without_such_a_model_there_is_none(ar: dlens.Model) -> None:
    assert example([dlens.trace(ar)], seed=0) is None
