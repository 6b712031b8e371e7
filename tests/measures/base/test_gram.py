import numpy as np
import torch

from dlens.measures.base.gram import from_products, gram_of, join
from dlens.measures.base.measure import Visit
from tests.measures.runs import SPANS, cells_of, random_run


def visits(parts: int) -> tuple[list[Visit], np.ndarray, np.ndarray]:
    """One step in some visits, with a channel that dominates, and its values and states."""
    run = random_run(SPANS[0], seed=3)
    values = run.resid_post[0].clone()
    values[..., 2] += 1000 * (1 + torch.tensor(run.cell[0] % 3))
    cells = cells_of(run.cell[0])
    cut = [values[i : i + len(values) // parts] for i in range(0, len(values), len(values) // parts)]
    made = [Visit(0, range(len(part)), {"resid_post": part}, cells) for part in cut]
    return made, values.double().numpy(), cells.state.numpy()


def test_equals_products_in_float64() -> None:
    made, values, state = visits(2)
    gram = join([gram_of(visit) for visit in made])
    for layer, row in np.ndindex(values.shape[:2]):
        inside = state[row] >= 0
        x = values[layer, row][inside]
        raw = gram.raw()[layer, row].numpy()[np.ix_(inside, inside)]
        np.testing.assert_allclose(raw, x @ x.T, rtol=1e-6)
        x = x - x.mean(0)
        centred = gram.centred()[layer, row].numpy()[np.ix_(inside, inside)]
        np.testing.assert_allclose(centred, x @ x.T, rtol=1e-6, atol=1e-6 * (x**2).sum(-1).max())
        for number in range(3):
            rows = state[row] == number
            y = values[layer, row][rows]
            y = y - y.mean(0) if len(y) else y
            within = gram.within()[layer, row].numpy()[np.ix_(rows, rows)]
            np.testing.assert_allclose(within, y @ y.T, rtol=1e-4, atol=1e-4)


def test_positions_that_are_not_measured_count_as_zero_whatever_they_hold() -> None:
    (visit,), _, state = visits(1)
    visit.values["resid_post"][:, torch.tensor(state < 0)] = torch.nan
    gram = gram_of(visit)
    outside = torch.tensor(state < 0)
    assert outside.any()
    for matrix in (gram.raw(), gram.centred()):
        assert (matrix[:, outside] == 0).all() and matrix.isfinite().all()


def test_channels_are_left_out() -> None:
    (visit,), values, state = visits(1)
    values[..., 2] = 0
    inside = state[0] >= 0
    raw = gram_of(visit, drop=(2,)).raw()[0, 0].numpy()[np.ix_(inside, inside)]
    x = values[0, 0][inside]
    np.testing.assert_allclose(raw, x @ x.T, rtol=1e-5, atol=1e-5)


def test_is_computed_once_a_visit_and_setting() -> None:
    (visit,), _, _ = visits(1)
    assert gram_of(visit) is gram_of(visit)
    assert gram_of(visit) is not gram_of(visit, drop=(2,))
    assert gram_of(visit, exact=True).base.dtype == torch.float64


def test_products_alone_give_the_same() -> None:
    (visit,), _, state = visits(1)
    exact = gram_of(visit, exact=True)
    values = visit.values["resid_post"].double()
    values[:, torch.tensor(state < 0)] = torch.nan
    found = from_products(torch.matmul(values, values.mT), visit.cells)
    for mine, expected in (
        (found.raw(), exact.raw()),
        (found.centred(), exact.centred()),
        (found.within(), exact.within()),
    ):
        np.testing.assert_allclose(
            mine.numpy(), expected.numpy(), rtol=1e-9, atol=1e-9 * float(exact.raw().abs().max())
        )


def test_products_in_float32_are_exact_to_a_millionth_of_the_vectors() -> None:
    (visit,), _, _ = visits(1)
    values = visit.values["resid_post"].bfloat16()
    exact = gram_of(Visit(0, visit.layers, {"resid_post": values.float()}, visit.cells), exact=True)
    found = from_products(torch.matmul(values.float(), values.float().mT), visit.cells)
    assert (found.centred() - exact.centred()).abs().max() < 1e-6 * exact.raw().abs().max()


def test_visits_of_unlike_types_are_joined() -> None:
    first, second = visits(2)[0]
    exact = join([gram_of(first), gram_of(second)])
    values = first.values["resid_post"].double()
    mixed = join([from_products((values @ values.mT).float(), first.cells), gram_of(second)])
    for name in ("raw", "centred", "within"):
        mine, expected = getattr(mixed, name)(), getattr(exact, name)()
        assert (mine - expected).abs().max() < 1e-6 * exact.raw().abs().max()
