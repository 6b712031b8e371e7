"""Numbers as users write them."""

import numpy as np
import pytest
import torch

from dlens.ops.base.given import (
    as_count,
    as_dtype,
    as_index,
    as_indices,
    as_ints,
    as_number,
    as_seed,
    as_slice,
    as_tensor,
)
from tests.unchecked import unchecked


@pytest.mark.parametrize("number", [3, np.int64(3), np.array(3), torch.tensor(3), np.uint8(3)])
def test_any_whole_number_is_an_int(number):
    assert as_index(number, "layer") == 3 and type(as_index(number, "layer")) is int
    assert as_ints(number, "layer") == (3,)


@pytest.mark.parametrize(
    "number", [True, np.True_, torch.tensor(True), 1.0, np.float32(1), torch.tensor(1.0), "1", None, [1], torch.ones(1)]
)
def test_what_is_no_whole_number_raises(number):
    with pytest.raises(ValueError, match="layer .*; expected a whole number; pass an int"):
        as_index(number, "layer")


@pytest.mark.parametrize(
    "numbers", [[0, 2], (0, 2), range(0, 4, 2), np.array([0, 2]), torch.tensor([0, 2]), slice(0, 3, 2)]
)
def test_several_numbers(numbers):
    assert as_indices(numbers, "layer", 4) == (0, 2)


@pytest.mark.parametrize("numbers", ["12", [1.7], [False, True], torch.arange(4) == 1, torch.zeros(2, 2).long()])
def test_several_that_are_no_whole_numbers_raise(numbers):
    fix = r"pass (ints, such as 5 or \[5, 9\]|the numbers of the layers, such as \[5, 9\], not booleans)$"
    with unchecked(), pytest.raises(ValueError, match="layer .*; expected a whole number; " + fix):
        as_indices(numbers, "layer", 4)


@pytest.mark.parametrize("numbers", [True, [False, True], np.arange(4) == 1, torch.arange(4) == 1], ids=str)
def test_booleans_are_told_apart(numbers):
    with unchecked(), pytest.raises(ValueError, match="pass the numbers of the layers, such as .*, not booleans$"):
        as_indices(numbers, "layer", 4)


@pytest.mark.parametrize("numbers", [[], (), range(0), slice(3, 1), torch.zeros(0).long()])
def test_none_at_all_raises(numbers):
    with pytest.raises(ValueError, match="got no layers; expected at least one of 4; name some"):
        as_indices(numbers, "layer", 4)
    assert as_indices(None, "layer", 4) is None


def test_slices_have_whole_ends():
    assert as_slice(slice(np.int64(1), None), "step") == slice(1, None)
    with pytest.raises(ValueError, match="step 0.5; expected a whole number"):
        as_slice(slice(0.5, None), "step")
    with pytest.raises(ValueError, match="step slice.*; expected a slice that moves on; leave its step out"):
        as_slice(slice(0, 4, 0), "step")


def test_numbers_and_tensors_of_any_kind():
    assert [as_number(x, "scale") for x in (2, np.float32(2), torch.tensor(2.0))] == [2.0, 2.0, 2.0]
    for wrong in ("2", True, None, torch.ones(2)):
        with pytest.raises(ValueError, match="scale=.*; expected a number; pass a float"):
            as_number(wrong, "scale")
    for wrong in (float("nan"), float("inf"), 10**400, np.float32("-inf")):
        with pytest.raises(ValueError, match="scale=.*; expected a (finite )?number; pass a float"):
            as_number(wrong, "scale")
    for given in ([1.0, 2.0], np.array([1.0, 2.0]), torch.tensor([1.0, 2.0])):
        assert as_tensor(given, "value").tolist() == [1, 2]
    for wrong in (None, {}, [[1], [1, 2]], "zero"):
        with pytest.raises(ValueError, match="value is a .*; expected a tensor; pass a tensor"):
            as_tensor(wrong, "value")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_tensor_holds_finite_numbers(number):
    with pytest.raises(ValueError, match="vector holds 2 numbers that are NaN or infinite; expected finite ones; look"):
        as_tensor([1.0, number, number], "vector")


def test_a_seed_is_one_that_every_library_takes():
    assert [as_seed(seed) for seed in (0, np.int64(7), 2**64 - 1)] == [0, 7, 2**64 - 1]
    for wrong in (-1, 2**64):
        with pytest.raises(ValueError, match=f"seed={wrong}; expected 0 to {2**64 - 1}; give for example 0"):
            as_seed(wrong)
    with pytest.raises(ValueError, match="seed 1.5; expected a whole number"):
        as_seed(1.5)


def test_what_came_is_one_short_line():
    with pytest.raises(ValueError) as caught:
        as_index("a\n" * 1000, "layer")
    assert len(str(caught.value)) < 120 and "\n" not in str(caught.value)


def test_a_tensor_is_a_copy():
    array, tensor = np.zeros(2), torch.zeros(2)
    kept = [as_tensor(given, "value") for given in (array, tensor)]
    array[:], tensor[:] = 1, 1
    assert all(not own.any() for own in kept)


@pytest.mark.parametrize("numbers", [{1: 2}, {}, {"layers": [3]}], ids=str)
def test_a_mapping_is_no_list(numbers):
    with (
        unchecked(),
        pytest.raises(ValueError, match="layers .*; expected whole numbers, .*; pass a list"),
    ):
        as_indices(numbers, "layer", 4)


@pytest.mark.parametrize("value", [1j, [1, 2j], np.zeros(3, np.complex64), torch.tensor(1j)], ids=str)
def test_complex_numbers_are_refused(value):
    with pytest.raises(ValueError, match="value is a .* that holds no real numbers of .*; expected a tensor; pass"):
        as_tensor(value, "value")
    with pytest.raises(ValueError, match="scale=.*; expected a number; pass a float"):
        as_number(value, "scale")


def test_a_count_is_at_least_one():
    assert as_count(np.int64(3), "batch_size") == 3
    for wrong in (0, -2, 1.5, True, "3"):
        with pytest.raises(ValueError, match=r"batch_size.*; expected (at least 1|a whole number); give for example 8"):
            as_count(wrong, "batch_size")


def test_a_type_is_one_of_real_numbers():
    assert [as_dtype(each) for each in (None, "float16", torch.float64)] == [None, torch.float16, torch.float64]
    for wrong in ("float61", torch.int8, 16, float):
        with pytest.raises(ValueError, match="dtype=.*; expected one of float16, bfloat16, float32, float64; "):
            as_dtype(wrong)
