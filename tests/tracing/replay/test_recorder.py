"""What a step brings to a device is known when it is recorded, and refused where it has changed."""

import pytest
import torch

from dlens.tracing.replay.recorder import Constants, recorder_for


def test_copies_are_taken_from_the_device() -> None:
    known, rows, places = Constants(), torch.tensor([True, False]), torch.tensor([3, 5])
    with known:
        rows.to("meta")
        places.to("meta", torch.float32)
        torch.empty(2, device="meta").copy_(places)
        rows.to(torch.float32)  # brings nothing to a device
    with known.given(), known:
        assert rows.to("meta").dtype == torch.bool
        assert places.clone().to("meta", torch.float32).device.type == "meta"
        into = torch.empty(2, device="meta")
        assert into.copy_(places) is into


@pytest.mark.parametrize(
    "changed", [torch.tensor([3, 6]), torch.tensor([3]), torch.tensor([3.0, 5.0])], ids=["value", "shape", "kind"]
)
def test_other_numbers_than_before_are_refused(changed: torch.Tensor) -> None:
    known = Constants()
    with known:
        torch.tensor([3, 5]).to("meta")
    with pytest.raises(RuntimeError, match="copies something else from the processor's memory"), known.given(), known:
        changed.to("meta")


def test_what_a_run_copies_once_is_missed_by_none_after_it() -> None:
    known, once, more = Constants(), torch.tensor([1, 2]), torch.tensor([3, 5])
    with known:
        once.to("meta")
        more.to("meta")
        more.to("meta", torch.float64)
    with known.given(), known:
        assert more.to("meta").dtype == torch.int64 and more.to("meta", torch.float64).dtype == torch.float64
    with pytest.raises(RuntimeError, match="copies something else"), known.given(), known:
        more.to("meta", torch.float32)


def test_numbers_that_are_none_are_the_same() -> None:
    known, values = Constants(), torch.tensor([1.0, torch.nan])
    with known:
        values.to("meta")
    with known.given(), known:
        assert values.clone().to("meta").shape == (2,)


def test_a_processor_has_no_recorder() -> None:
    assert recorder_for(torch.device("cpu"), packed=False, kept={}) is None
