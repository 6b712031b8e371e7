"""Too little memory is told before anything is computed."""

import pytest
import torch

import dlens
from dlens.compression import memory
from dlens.compression.memory import refuse_too_large
from dlens.compression.recipe import Recipe


def test_what_does_not_fit_is_refused(ar: dlens.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_free", lambda device: 2**24)
    with pytest.raises(MemoryError, match=r"trio/ar needs 0\.0 GiB on cpu, where 0\.0 GiB are free.*device='cuda'"):
        refuse_too_large(ar, Recipe(bits=3), None)
    monkeypatch.setattr(memory, "_free", lambda device: None if device.type == "cpu" else 2**30)
    refuse_too_large(ar, Recipe(bits=3), torch.device("meta"))


def test_it_counts_a_copy_of_the_model_and_the_work_on_one_block(
    ar: dlens.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, int] = {}

    class Free(int):
        def __lt__(self, count: int) -> bool:
            asked[place] = count
            return False

    def free(device: torch.device) -> int:
        nonlocal place
        place = device.type
        return Free(0)

    place = ""
    monkeypatch.setattr(memory, "_free", free)
    refuse_too_large(ar, Recipe(bits=3), torch.device("cuda"))
    size = sum(value.numel() * 4 for value in ar.module.parameters())
    block = sum(value.numel() * 4 for value in ar.blocks[0].parameters())
    assert asked == {"cpu": size, "cuda": block + 4 * (3 * 192 * 512 + 4 * 512**2)}
