from collections.abc import Iterator
from typing import Any

import pytest
import torch

import dlens
from dlens.features.train_sae import _revival_error, _State, _Weights
from tests.refusing import assert_three_parts
from tests.unchecked import unchecked


def planted(n: int = 2048, d_model: int = 8, directions: int = 12, active: int = 2, seed: int = 0) -> Any:
    """Rows that are sums of few of some directions, and the directions."""
    rng = torch.Generator().manual_seed(seed)
    truth = torch.nn.functional.normalize(torch.randn(directions, d_model, generator=rng), dim=-1)
    weights = torch.zeros(n, directions)
    for row in weights:
        row[torch.randperm(directions, generator=rng)[:active]] = 1 + torch.rand(active, generator=rng)
    return weights @ truth * 3 + 5, truth


def test_planted_directions_are_found() -> None:
    rows, truth = planted(256)
    sae = dlens.train_sae(rows, 24, k=2, epochs=12, batch_size=64, learning_rate=5e-2)
    assert sae.explained_variance(rows) > 0.85
    found = (truth @ sae.decoder.T).max(-1).values
    assert int((found > 0.9).sum()) >= 6
    torch.testing.assert_close(sae.decoder.norm(dim=-1), torch.ones(24))
    assert sae.facts["rows"] == 12 * 256 and sae.k == 2


def test_the_same_seed_trains_the_same_and_nothing_else_is_drawn_from() -> None:
    rows, _ = planted(256)
    before = torch.get_rng_state()
    one, same = (dlens.train_sae(rows, 16, k=2, batch_size=64, seed=3) for _ in range(2))
    assert torch.equal(one.encoder, same.encoder) and torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(one.encoder, dlens.train_sae(rows, 16, k=2, batch_size=64, seed=4).encoder)


def test_batches_are_read_as_they_come_and_again_every_epoch() -> None:
    rows, _ = planted(256)
    sae = dlens.train_sae(list(rows.split(100)), 16, k=2, epochs=3)
    assert sae.facts["rows"] == 3 * 256

    class Stream:
        def __init__(self) -> None:
            self.read = 0

        def __iter__(self) -> Iterator[torch.Tensor]:
            self.read += 1
            yield from rows.bfloat16().split(64)

    stream = Stream()
    assert dlens.train_sae(stream, 16, k=2, epochs=2).encoder.dtype == torch.float32
    # Once more for the scale.
    assert stream.read == 3


def test_a_stream_is_read_in_an_order_of_its_own_every_epoch() -> None:
    """As a tensor is, here in the same orders."""
    rows, _ = planted(256)

    class Stream:
        def batches(self, size: int, *, shuffle: int | None = None) -> Iterator[torch.Tensor]:
            assert shuffle is not None
            yield from rows[torch.randperm(256, generator=torch.Generator().manual_seed(shuffle))].split(size)

        def __len__(self) -> int:
            return 256

    settings: dict[str, Any] = {"n_features": 16, "k": 2, "epochs": 2, "batch_size": 100, "seed": 3}
    found, expected = (dlens.train_sae(source, **settings) for source in (Stream(), rows))
    assert torch.equal(found.encoder, expected.encoder) and found.facts == expected.facts


@pytest.mark.parametrize(("auxiliary", "moves"), [(1 / 32, True), (0.0, False)])
def test_dead_features_learn_from_what_is_left_alone(auxiliary: float, moves: bool) -> None:
    """Of two features a channel each, the second is never among the k."""
    parts = 0.5 * torch.eye(2), torch.eye(2), torch.zeros(2), torch.zeros(2)
    weights = _Weights(*(each.requires_grad_() for each in parts))
    state = _State(weights, torch.tensor([0, 9]), 1, 9, auxiliary)
    state.loss(torch.tensor([[3.0, 1.0], [2.0, 0.5], [4.0, 1.5]])).backward()
    gradient = weights.encoder.grad
    assert gradient is not None and bool(gradient[:, 0].any()) and bool(gradient[:, 1].any()) == moves


def test_dead_features_explain_what_the_others_left() -> None:
    """Two channels, a feature for each; only the first is among the k, the second is dead."""
    eye, zeros = torch.eye(2), torch.zeros(2)
    x = torch.tensor([[3.0, 1.0], [1.0, 0.0], [2.0, -0.5]])
    state = _State(_Weights(eye, eye, zeros, zeros), torch.tensor([0, 9]), 1, 9, 0.5)
    # The first row leaves 1, which the dead one explains; the last -0.5, which it cannot.
    error = x - torch.tensor([[3.0, 0], [1.0, 0], [2.0, 0]])
    spread = ((error - error.mean(0)) ** 2).sum()
    expected = (error**2).sum() / ((x - x.mean(0)) ** 2).sum() + 0.5 * (0.25 / spread)
    torch.testing.assert_close(state.loss(x), expected)
    assert state.idle.tolist() == [0, 12]
    assert float(_revival_error(state.weights, x, torch.tensor([False, False]), error)) == 0


WRONG: dict[str, Any] = {
    "n_features": 0,
    "k": 17,
    "epochs": 1.5,
    "batch_size": 0,
    "learning_rate": 0,
    "auxiliary": -1,
    "dead_after": "soon",
    "seed": -1,
    "progress": "no",
    "site": "resid_post",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_setting_that_makes_no_sense_is_refused(name: str) -> None:
    given: dict[str, Any] = {"n_features": 16, "k": 4} | {name: WRONG[name]}
    with unchecked(), pytest.raises(ValueError) as caught:
        dlens.train_sae(torch.randn(32, 4), **given)
    assert_three_parts(str(caught.value), f"{name}={WRONG[name]!r}")


@pytest.mark.parametrize("rows", [None, "rows", [], torch.zeros(0, 3), [torch.zeros(3)], iter([torch.zeros(2, 3)])])
def test_what_is_no_rows_is_refused(rows: Any) -> None:
    with unchecked(), pytest.raises(ValueError) as caught:
        dlens.train_sae(rows)
    assert_three_parts(str(caught.value), "rows=")
