"""A layout in words: every part, every point, and why."""

from __future__ import annotations

import dlens
from dlens.models.layout.words import places
from tests.models.conftest import build


def test_every_point_has_a_place_or_a_reason() -> None:
    layout = dlens.load(build("pythia", use_parallel_residual=True)).layout
    said = {place.what: place for place in places(layout)}
    assert said["blocks"].where == "gpt_neox.layers" and said["skip of attn"].where == "attention"
    assert said["q"].where.endswith("attention.query_key_value, part 0")
    assert said["resid_mid"].where == "absent" and "side by side" in said["resid_mid"].why
    assert said["pattern"].where == "the attention function"
    assert str(layout).splitlines()[0].startswith("blocks")


def test_a_layout_that_was_given_says_so() -> None:
    layout = dlens.load("trio/ar", layout=dlens.load("trio/ar").layout, verify=False).layout
    assert layout.because  # it is the one that was found
    given = dlens.Layout(blocks="a", embed="b", norm=None, head=None)
    assert [place.why for place in places(given)][:2] == ["given", "given"] and places(given)[2].where == "absent"
