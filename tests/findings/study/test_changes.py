"""Changes skip and set what they say, at every depth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import dlens
from dlens.findings.study import changes as module
from dlens.findings.study import parts
from dlens.findings.study.changes import changes, runs_of_blocks
from dlens.tracing.probes.outlier import channel_shares


def test_changes_skip_and_set_what_they_say(ar: dlens.Model) -> None:
    chain = dlens.trace(ar)
    found = changes(chain, parts.reading(chain, [[5, 6, 7, 8]]))
    apart = found["apart"].layers
    assert len(apart) == 3 and all(b - a > 1 for a, b in zip(apart, apart[1:], strict=False))
    assert found["early run"].layers == (2, 3, 4) and found["late run"].layers == (11, 12, 13)
    [outlier], [random] = found["no outlier"].channels, found["no random"].channels
    assert outlier != random and outlier not in found["no next"].channels
    record = found["no outlier"].applied(chain).capture("resid_post").forward("Once upon a time")
    assert not record["resid_post"][:-1, ..., outlier].any() and record["resid_post"][-1, ..., outlier].all()


@pytest.mark.parametrize("seed", range(3))
def test_the_outlier_is_that_of_early_blocks_and_the_largest_is_taken_out_where_it_is_another(
    seed: int, ar: dlens.Model
) -> None:
    chain = dlens.trace(ar)
    reading = parts.reading(chain, [[5, 6, 7, 8]])
    shares = channel_shares(ar, chain.target).argsort(descending=True).tolist()
    apart = changes(chain, replace(reading, channel=shares[0], early_channels=(shares[1], shares[2])), seed)
    alike = changes(chain, replace(reading, channel=shares[0], early_channels=(shares[0], shares[1])), seed)
    assert apart.keys() - alike.keys() == {"no largest"} and apart["no largest"].channels == (shares[0],)
    assert apart["no outlier"].channels == apart["mean outlier"].channels == (shares[1],)
    assert alike["no outlier"].channels == alike["mean outlier"].channels == (shares[0],)
    assert apart["no next"].channels[0] == shares[2] and alike["no next"].channels[0] == shares[1]
    assert not {*apart["no random"].channels, *apart["no next"].channels} & {shares[0], shares[1]}


@pytest.mark.parametrize("n_layers", range(3, 40))
def test_runs_of_blocks_fit_every_depth(n_layers: int) -> None:
    n = max(1, round(0.1875 * n_layers))
    early, late = runs_of_blocks(n_layers, n)
    assert len(early) == len(late) == n
    assert 0 <= early[0] and early[-1] < late[0] and late[-1] < n_layers
    assert n_layers == 3 or (early[0] > 0 and late[-1] < n_layers - 1)


def test_where_too_few_are_similar_the_threshold_is_left_out(ar: dlens.Model) -> None:
    chain = dlens.trace(ar)
    reading = parts.reading(chain, [[5, 6, 7, 8]])
    low = replace(reading.clean, cosine=np.tile(0.9 - np.arange(16) / 100, (1, 1)))
    apart = changes(chain, replace(reading, noise={0.0: low}))["apart"]
    assert apart.layers == (0, 2, 4)
    assert apart.words == "skip 0, 2, 4: the most similar, no two neighbours, as too few are above 0.95"
    high = replace(reading.clean, cosine=np.tile(0.99 - np.arange(16) / 100, (1, 1)))
    both = changes(chain, replace(reading, noise={0.0: low, 0.5: high, 0.25: high}))["apart"]
    masked = "by the cosine averaged over 0, 25 and 50 % of the tokens masked, no two neighbours"
    assert both.words == f"skip 0, 2, 4: the most similar {masked}, as too few are above 0.95"


def test_the_next_channels_are_counted_in_words(ar: dlens.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = dlens.trace(ar)
    reading = parts.reading(chain, [[5, 6, 7, 8]])

    def words(*others: float) -> str:
        shares = torch.tensor([*others, *[0.0] * 6])
        shares[1] = 0.4
        monkeypatch.setattr(module, "channel_shares", lambda *_: shares)
        own = replace(reading, channel=1, early_channels=(1, 0))
        return changes(chain, own)["no next"].words

    closest = "in energy on the calibration texts"
    assert words(0.395, 0, 0.2) == f"the next channel to zero: alone it comes closest {closest}"
    assert words(0.2, 0, 0.2) == f"the next 2 channels to zero: as many as come closest {closest}"
    assert words(0.02, 0, 0.02).startswith("nothing to zero, as half of all channels hold too little")
