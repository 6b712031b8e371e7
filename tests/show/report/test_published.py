"""The papers' numbers are those that the claims report, in words."""

from __future__ import annotations

import re

import pytest

from dlens.findings.study.claims import CLAIMS, COMPRESSION_CLAIMS, PAPERS
from dlens.show.report.published import ADDRESSES, PUBLISHED, UNTESTED

BY_TITLE = {claim.title: claim for claim in (*CLAIMS, *COMPRESSION_CLAIMS)}
OWN = [(title, kind) for title, kinds in PUBLISHED.items() for kind in kinds]


@pytest.mark.parametrize(("title", "kind"), OWN)
def test_a_number_is_in_what_is_reported(title: str, kind: str) -> None:
    reported = BY_TITLE[title].bars[kind].reported  # pyright: ignore
    shares = [float(part) / 100 for part in re.findall(r"([\d.]+) %", reported)]
    value = PUBLISHED[title][kind].value  # pyright: ignore
    # A difference is that of the first shares of the two models.
    wanted = shares[0] - shares[3] if (title, kind) == OWN[2] else shares[-1 if "relative" in reported else 0]
    assert abs(value) == pytest.approx(abs(wanted))


@pytest.mark.parametrize(("title", "kind"), [own for own in OWN if "bits" in own[0] or "channel" in own[0]])
def test_losses_that_are_read_as_relative_are_said_so(title: str, kind: str) -> None:
    """What is known of them is by how many percent the score falls, not of what."""
    words = PUBLISHED[title][kind].words  # pyright: ignore
    assert "read as relative" in BY_TITLE[title].bars[kind].reported and "read as relative" in words  # pyright: ignore
    (fall,) = re.findall(r"−([\d.]+) %", words)
    assert PUBLISHED[title][kind].value == pytest.approx(1 - float(fall) / 100)  # pyright: ignore


def test_only_models_that_are_known_are_named() -> None:
    """Which autoregressive model lost 4 % without the channel is not known."""
    title = "Without that channel the model breaks"
    assert "Llama" not in BY_TITLE[title].bars["ar"].reported and "Llama" not in PUBLISHED[title]["ar"].words


def test_shares_of_answers_that_are_reported_are_all_here() -> None:
    known = {
        (claim.title, kind)
        for claim in BY_TITLE.values()
        for kind, bar in claim.bars.items()
        if re.search(r"GSM8K|sparser early", bar.reported)
    }
    assert known == set(OWN)


def test_every_paper_has_its_address_and_what_is_not_tested() -> None:
    assert set(ADDRESSES) == set(PAPERS) == {paper for paper, _ in UNTESTED}
    assert ADDRESSES["arXiv 2603.07475"] == "https://arxiv.org/abs/2603.07475"
