import math

import numpy as np
import pytest
import torch

import dlens
from dlens.measures import Cells, Curvature, Visit
from dlens.measures.geometry.curvature import angle
from tests.measures.runs import SPANS, Run, assert_close, observe, random_run

X = torch.sin(torch.arange(1, 13, dtype=torch.float64)[:, None] * torch.arange(1, 6, dtype=torch.float64))


def of_rows(rows: torch.Tensor, name: str) -> float:
    cells = Cells(torch.zeros(1, len(rows), dtype=torch.long), torch.zeros(1, dtype=torch.long))
    visit = Visit(0, range(1), {"resid_post": rows[None, None]}, cells)
    return float(Curvature().values(visit)[name][0, 0, 0])


def test_known_numbers() -> None:
    assert of_rows(X, "curvature") == pytest.approx(2.120646844306987, rel=1e-12)
    cosines = [float(a @ b / (a.norm() * b.norm())) for a, b in zip(X, X[1:], strict=False)]
    assert np.mean(cosines) == pytest.approx(-0.23679644537202826, rel=1e-9)
    assert of_rows(X, "angle") == pytest.approx(np.mean(np.arccos(cosines)), rel=1e-12)


def test_a_straight_path_and_a_way_back() -> None:
    line = torch.arange(5.0)[:, None] * torch.ones(3) + 1
    assert of_rows(line, "curvature") == pytest.approx(0, abs=1e-6)
    assert of_rows(torch.tensor([[1.0, 0], [2.0, 0], [1.0, 0]]), "curvature") == pytest.approx(math.pi)
    assert math.isnan(of_rows(torch.ones(4, 3), "curvature"))
    assert of_rows(torch.ones(4, 3), "angle") == pytest.approx(0, abs=1e-6)
    assert float(angle(torch.tensor([1.0, 0]), torch.tensor([-1.0, 0]))) == pytest.approx(math.pi)


def by_hand(run: Run, drop: tuple[int, ...] = ()) -> dict[str, np.ndarray]:
    """Place by place, with loops."""
    span = run.span
    h = np.delete(run.resid_post.double().numpy(), drop, axis=-1)
    seen: dict = {}

    def between(a: np.ndarray, b: np.ndarray) -> float:
        return math.acos(max(-1.0, min(1.0, a @ b / math.sqrt((a @ a) * (b @ b)))))

    for step, layer, row in np.ndindex(*h.shape[:3]):
        z, cell = h[step, layer, row], run.cell[step, row]
        groups = {("", n): cell == n for n in range(span.n_cells)} | {("_all", max(int(cell.max()), 0) // 3): cell >= 0}
        for (ending, n), inside in groups.items():
            if inside.sum() < 3:
                continue
            path = [z[k] for k in range(len(z)) if inside[k]]
            bends = [between(c - b, b - a) for a, b, c in zip(path, path[1:], path[2:], strict=False)]
            angles = [between(b, a) for a, b in zip(path, path[1:], strict=False)]
            for name, values in {"curvature": bends, "angle": angles}.items():
                seen.setdefault((name + ending, step, n, layer), []).append(np.mean(values))
    found = {}
    for ending, cells in (("", span.n_cells), ("_all", span.n_noise)):
        for name in ("curvature", "angle"):
            found[name + ending] = np.full((span.n_steps, cells, span.n_layers), np.nan)
    for (name, *at), values in seen.items():
        found[name][tuple(at)] = np.mean(values)
    return found


@pytest.mark.parametrize("drop", [(), (1, 3)])
def test_equals_loops(drop: tuple[int, ...]) -> None:
    run = random_run(SPANS[0], width=9)
    data = observe(Curvature(drop=drop), run, layers=3)
    for name, expected in by_hand(run, drop).items():
        assert_close(data[name], expected)
    assert np.isfinite(data["curvature"]).any() and data.attrs["channels_left_out"] == list(drop)


def test_in_a_forward(ar: dlens.Model) -> None:
    record = (
        dlens.trace(ar).capture("resid_post", layers=[4]).measure(Curvature()).forward("Once upon a time there was")
    )
    v = record["resid_post"][0, 0].double().diff(dim=0)
    cosines = torch.cosine_similarity(v[1:], v[:-1], dim=-1)
    found = record.measures["curvature"]["curvature_all"].sel(layer=4).item()
    assert found == pytest.approx(float(cosines.arccos().mean()))
