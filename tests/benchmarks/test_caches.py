"""What is timed against each other decodes the same."""

import torch

import dlens
from benchmarks.caches import Unaware, _run
from dlens.samplers import LLaDA


def test_a_sampler_that_knows_no_windows_decodes_the_same(diffusion: dlens.Model) -> None:
    trace, sampler = dlens.trace(diffusion), LLaDA(steps=4, block_length=4)
    aware, unaware = (_run(trace, 20, 8, own)() for own in (sampler, Unaware(sampler)))
    assert isinstance(aware, dlens.Record) and isinstance(unaware, dlens.Record)
    assert torch.equal(aware.tokens, unaware.tokens)
    assert aware.computed is None
