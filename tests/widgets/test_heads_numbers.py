import numpy as np
import pytest
import torch

import dlens
from dlens.widgets.heads_numbers import patterned, patterns_of

TEXT = "Once upon a time there was a fox"


def test_patterns_are_those_of_the_record(diffusion: dlens.Model) -> None:
    record = dlens.trace(diffusion).capture("pattern", steps=[0, 2]).generate([TEXT, "Once upon"], 4)
    found = patterns_of(record, 1)
    pads = int(record.is_pad[1].sum())
    assert (found.layers, found.heads, found.steps) == (tuple(range(16)), 3, (0, 2))
    expected = record["pattern"][1, 5, 1, 2, pads:, pads:]
    np.testing.assert_array_equal(found.whole(5, 2, 2, 100), expected)
    np.testing.assert_array_equal(found.thumbnails(2, 100)[5, 2], expected)
    assert found.tokens(0) == ["Once", " upon"] + ["<|mask|>"] * 4
    assert (found.noise(0), found.noise(2)) == (1.0, 0.5)


def test_many_positions_become_means_of_neighbours(ar: dlens.Model) -> None:
    record = dlens.trace(ar).capture("pattern").forward(torch.arange(5, 69)[None])
    found = patterns_of(record, 0)
    small = found.thumbnails(0, 16)
    assert small.shape == (16, 3, 16, 16) and found.whole(0, 0, 0, 32).shape == (32, 32)
    blocks = record["pattern"][3, 0, 1].reshape(16, 4, 16, 4).mean((1, 3))
    np.testing.assert_allclose(small[3, 1], blocks, atol=1e-6)


def test_an_autoregressive_model_is_read_over_its_finished_text(ar: dlens.Model) -> None:
    record = patterned(dlens.trace(ar), TEXT, 4)
    assert record.kind == "forward" and record["pattern"].shape[-1] == record.tokens.shape[-1]
    assert record.text == dlens.trace(ar).generate(TEXT, 4).text
    assert patterns_of(record, 0).noise(0) is None


def test_a_record_without_patterns_says_what_to_capture(ar: dlens.Model) -> None:
    record = dlens.trace(ar).capture("z").forward(TEXT)
    with pytest.raises(ValueError, match=r"holds z; expected the patterns of its layers; add .capture\('pattern'\)"):
        patterns_of(record, 0)
    with pytest.raises(IndexError, match="row 2 of 1; expected 0 to 0"):
        patterns_of(dlens.trace(ar).capture("pattern").forward(TEXT), 2)
