from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import dlens
from dlens.findings.scores.canvases import Canvases, text_canvases
from dlens.findings.scores.loss import loss_of
from dlens.findings.skipping.scan import greedy_removal, removal_scan
from tests.models.conftest import NATIVE, build
from tests.standins import save_dream, save_llada
from tests.untouched import untouched

PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [12, 13], [14, 15, 16, 17, 18], [19, 20, 21]]
STANDINS: dict[str, Callable[[Path], Path]] = {
    "llada": save_llada,
    "llada without padding": lambda folder: save_llada(folder, hides_padding=False),
    "dream": save_dream,
}


def load(name: str, folder: Path) -> dlens.Model:
    if name in STANDINS:
        return dlens.load(STANDINS[name](folder), trust_remote_code=True)
    return dlens.load(build(name))


def naive(
    model: dlens.Model, canvases: Canvases, batch_size: int, skipped: Sequence[int] = (), every: int = 1
) -> dict[int, float]:
    """The loss without each block, each by forwards of its own."""
    layers = [layer for layer in range(0, model.n_layers, every) if layer not in skipped]
    chain = dlens.trace(model)
    return {layer: loss_of(chain.skip([*skipped, layer]), canvases, batch_size).value for layer in layers}


@pytest.mark.parametrize("name", [*NATIVE, *STANDINS])
def test_every_architecture_gives_the_bits_of_the_naive_scan(name: str, tmp_path: Path) -> None:
    model = load(name, tmp_path)
    canvases = text_canvases(model, PROMPTS)
    scan = removal_scan(model, canvases, batch_size=3)
    assert scan.loss == loss_of(dlens.trace(model), canvases, 3).value
    assert scan.without == naive(model, canvases, 3)
    assert len(set(scan.without.values())) == model.n_layers, "every block matters"


@pytest.mark.parametrize("name", ["ar", "diffusion", "ar_init"])
def test_the_trio_gives_the_bits_of_the_naive_scan(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    canvases = text_canvases(model, ["Once upon a time there was a fox", "3 + 4 ="], draws=2)
    scan = removal_scan(model, canvases, skipped=[6], layers=range(0, model.n_layers, 3))
    assert scan.without == naive(model, canvases, 8, [6], every=3)
    assert scan.increase(0) == scan.without[0] - scan.loss


@pytest.mark.parametrize(
    ("name", "together"), [("qwen2", 2), ("gemma3", 9), ("llada", 3), ("llada without padding", 2), ("dream", 2)]
)
def test_variants_in_one_batch_give_the_same_losses(name: str, together: int, tmp_path: Path) -> None:
    model = load(name, tmp_path)
    canvases = text_canvases(model, PROMPTS)
    scan = removal_scan(model, canvases, skipped=[1], batch_size=3, together=together)
    expected = naive(model, canvases, 3, [1])
    assert list(scan.without) == list(expected)
    np.testing.assert_allclose(list(scan.without.values()), list(expected.values()), rtol=1e-5)


def test_it_computes_half_of_the_blocks(ar: dlens.Model) -> None:
    canvases = text_canvases(ar, ["Once upon a time there was a fox"])
    chain, n_layers = dlens.trace(ar), ar.n_layers

    def flops(run: Callable[[], Any]) -> int:
        with FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops()

    whole, head = flops(lambda: loss_of(chain, canvases)), flops(lambda: loss_of(chain.skip(range(n_layers)), canvases))
    block = (whole - head) / n_layers
    left = sum(range(n_layers))  # of the variant without block l, those after it
    assert flops(lambda: removal_scan(ar, canvases)) == pytest.approx(whole + n_layers * head + left * block, rel=1e-6)
    assert flops(lambda: naive(ar, canvases, 8)) == pytest.approx(n_layers * (whole - block), rel=1e-6)


def test_chosen_layers_only() -> None:
    model = dlens.load(build("qwen2"))
    canvases = text_canvases(model, PROMPTS)
    assert list(removal_scan(model, canvases, layers=[3, 1]).without) == [1, 3]
    assert removal_scan(model, canvases, skipped=[1], layers=[1]).without == {}


def test_the_model_is_left_as_it_was() -> None:
    model = dlens.load(build("llama"))
    with untouched(model):
        removal_scan(model, text_canvases(model, PROMPTS))
    with untouched(model), pytest.raises(ValueError, match="batch_size=0"):
        removal_scan(model, text_canvases(model, PROMPTS), batch_size=0)
    with pytest.raises(ValueError, match="together=0; expected at least 1, the number of variants a forward"):
        removal_scan(model, text_canvases(model, PROMPTS), together=0)


def test_greedy_removal_measures_again_after_each_block() -> None:
    model = dlens.load(build("qwen2"))
    canvases = text_canvases(model, PROMPTS)
    expected: list[int] = []
    for _ in range(3):
        losses = naive(model, canvases, 8, sorted(expected))
        expected.append(min(losses, key=losses.__getitem__))
    removed = greedy_removal(model, canvases, 3, range(4))
    assert [layer for layer, _ in removed] == expected
    assert [scan.skipped for _, scan in removed] == [tuple(sorted(expected[:n])) for n in range(3)]
    assert len(greedy_removal(model, canvases, 3, [1, 3])) == 2


def test_nan_is_an_error_before_and_passed_over_after() -> None:
    model = dlens.load(build("qwen2"))
    canvases = text_canvases(model, PROMPTS)
    scan = removal_scan(model, canvases)
    broken = type(scan)(scan.loss, {0: float("nan"), 1: 2.0, 2: float("inf"), 3: 3.0}, (), "")
    assert broken.least() == 1
    with pytest.raises(ValueError, match="no finite loss without any one of layers 0; expected at least one"):
        type(scan)(scan.loss, {0: float("nan")}, (), "").least()
    model.blocks[1].mlp.down_proj.weight.data.fill_(torch.nan)  # pyright: ignore
    with pytest.raises(ValueError, match="is nan before a block is removed; expected a finite number"):
        removal_scan(model, canvases)
