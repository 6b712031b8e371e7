"""Means, and that a measure of one's own is its formula."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

import dlens
from dlens.measures import DropsChannels, PositionMeans, PromptMeans, Span, Visit
from dlens.measures.base.arrays import left_out
from tests.measures.runs import SPANS, assert_close, observe, random_run


class Largest(PositionMeans):
    points = ("resid_post",)
    formulas = {"largest": "largest magnitude among the channels of resid_post"}

    def values(self, visit: Visit) -> Mapping[str, Tensor]:
        return {"largest": visit.values["resid_post"].abs().amax(-1)}


@dataclass(frozen=True, kw_only=True)
class Both(DropsChannels, PositionMeans):
    """One mean over all positions, one where the block acted, from which its finish takes 1."""

    formulas = {"first": "channel 0", "second": "channel 1, less 1"}
    counted = {"second": "n_acted"}
    where_acted = ("n_acted",)

    @property
    def points(self) -> tuple[str, ...]:
        return ("resid_post",)

    def values(self, visit: Visit) -> Mapping[str, Tensor]:
        h = left_out(visit.values["resid_post"], self.drop)
        return {"first": h[..., 0], "second": h[..., 1]}

    def finish(self, name: str, total: Tensor, n: Tensor, span: Span) -> Tensor:
        return super().finish(name, total, n, span) - float(name == "second")


class Width(PromptMeans):
    """The number of rows, which the base counts in prompts."""

    formulas = {"width": "number of positions"}
    min_rows = 3

    def values(self, visit: Visit) -> Mapping[str, Tensor]:
        return {"width": visit.cells.sizes.expand(len(visit.layers), -1, -1)}


def test_a_measure_of_ones_own_in_a_forward(ar: dlens.Model) -> None:
    record = dlens.trace(ar).capture("resid_post").measure(Largest()).forward("Once upon a time")
    data = record.measures["largest"]
    assert data["largest"].dims == ("step", "state", "layer")
    expected = record["resid_post"].abs().amax(-1).double().mean((1, 2))
    assert_close(data["largest"].sel(step=0, state="prompt"), expected)
    assert data["largest"].sel(state=["masked", "decoded"]).isnull().all()
    assert data["n"].sel(state="prompt").values.tolist() == [[4] * ar.n_layers]


def test_a_measure_of_ones_own_in_a_denoising_run(diffusion: dlens.Model) -> None:
    record = dlens.trace(diffusion).capture("resid_post").measure(Largest()).generate("Once upon a time", 4)
    data, largest = record.measures["largest"], record["resid_post"].abs().amax(-1).double()
    assert record.canvas is not None and data["largest"].dims == ("step", "noise", "state", "layer")
    masked = record.canvas == diffusion.family.mask_token_id
    decoded = ~masked & masked[0]
    for state, inside in {"prompt": ~masked & ~masked[0], "masked": masked, "decoded": decoded}.items():
        for step in range(4):
            # Of four generated positions 4, 3, 2 and 1 are masked: 1, 0.75, 0.5 and 0.25.
            found = data.isel(step=step, noise=(9, 7, 4, 2)[step]).sel(state=state)
            assert (found["n"] == inside[step].sum()).all()
            assert_close(found["largest"], largest[step][:, inside[step]].mean(-1))
    assert int(data["n"].isel(layer=0).sum()) == 4 * 8


def test_a_measure_of_ones_own_while_a_model_decodes(ar: dlens.Model) -> None:
    record = dlens.trace(ar).capture("resid_post").measure(Largest()).generate("Once upon a time", 3)
    data, largest = record.measures["largest"], record["resid_post"].abs().amax(-1).double()[:, 0]
    assert_close(data["largest"].sel(step=0, state="prompt"), largest[:, :4].mean(-1))
    assert_close(data["largest"].sel(step=[1, 2], state="decoded"), largest[:, 4:].T)
    assert data["n"].isel(layer=0).values.tolist() == [[4, 0, 0], [0, 0, 1], [0, 0, 1]]


@pytest.mark.parametrize("layers", [None, 3])
def test_each_mean_is_divided_by_its_own_number(layers: int | None) -> None:
    run = random_run(SPANS[0], skipped=True)
    run.skipped[:, 1] = True
    data = observe(Both(drop=[0]), run, layers=layers)
    assert list(data.data_vars) == ["first", "second", "n", "n_acted"]
    assert (data["first"].fillna(0) == 0).all() and data["second"].sel(layer=1).isnull().all()
    for step, cell, layer in np.ndindex(3, 30, 4):
        inside = (run.cell[step] == cell) & ~run.skipped[step, layer][:, None]
        found = data.isel(step=step, noise=cell // 3, state=cell % 3, layer=layer)
        assert found["n"] == (run.cell[step] == cell).sum() and found["n_acted"] == inside.sum()
        if inside.any():
            assert_close(found["second"], run.resid_post[step, layer].double().numpy()[inside][:, 1].mean() - 1)


def test_the_dataset_says_what_it_is() -> None:
    data = observe(Both(drop=[0]), random_run(SPANS[0]))
    assert data.attrs == {
        "estimator": "first = channel 0; second = channel 1, less 1",
        "pooling": "mean over positions; a position counts once a step",
        "positions": "all but padding and what follows the end of a row",
        "channels_left_out": [0],
        "count_of_second": "n_acted",
        "n": int(data["n"].isel(layer=0).sum()),
    }
    assert observe(Largest(), random_run(SPANS[0])).attrs["estimator"] == Largest.formulas["largest"]


def test_a_channel_that_does_not_exist_is_refused_before_the_run() -> None:
    with pytest.raises(IndexError, match="drop names channel 10; expected 0 to 9; give a smaller number"):
        Both(drop=[10]).start(SPANS[0])


def test_values_of_another_name_are_refused() -> None:
    class Misspelt(Largest):
        formulas = {"largset": "largest magnitude"}

    with pytest.raises(ValueError, match="misspelt gives values of largest; expected largset, as its `formulas`"):
        observe(Misspelt(), random_run(SPANS[0]))


def test_prompts_are_counted_where_they_have_enough_rows() -> None:
    run = random_run(SPANS[0])
    data = observe(Width(), run)
    assert data["width"].dims == ("step", "noise", "state", "layer")
    assert data["width_all"].dims == ("step", "noise", "layer")
    assert data.attrs["count_of_width_all"] == "n_all" and data.attrs["n"] == int(data["n_all"].isel(layer=0).sum())
    expected: dict[tuple[int, int], list[int]] = {}
    for step, row in np.ndindex(run.cell.shape[:2]):
        for cell in range(30):
            if (size := int((run.cell[step, row] == cell).sum())) >= 3:
                expected.setdefault((step, cell), []).append(size)
    for step, cell in np.ndindex(3, 30):
        found, sizes = data.isel(step=step, noise=cell // 3, state=cell % 3, layer=0), expected.get((step, cell), [])
        assert found["n"] == len(sizes)
        assert found["width"] == np.mean(sizes) if sizes else found["width"].isnull()
    assert expected


def test_a_step_of_too_few_positions_is_nan() -> None:
    data = observe(Width(), random_run(SPANS[2]))
    assert data["width"].isnull().all() and data["width_all"].isnull().all() and data.attrs["n"] == 0


def test_sums_of_two_runs_are_merged() -> None:
    measure = Both()
    a, b = (observe(measure, random_run(SPANS[0], seed=seed), sums=True) for seed in range(2))
    merged = measure.merge(a, b)
    assert all(torch.equal(merged[key], a[key] + b[key]) for key in ("first", "second", "n", "n_acted"))
