"""What a run leaves on disk, so that it can be followed, and go on after it was killed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

__all__ = ["Log"]


@final
class Log:
    """The folder of a run: losses.jsonl, numbers.jsonl and the last state.

    Args:
        folder: made where it is missing.
        tokens_per_step: so that every line also says how many tokens were seen.
    """

    def __init__(self, folder: Path, tokens_per_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._tokens = folder, tokens_per_step
        self._losses: list[Tensor] = []

    def loss(self, value: Tensor) -> None:
        """Note the loss of a step; it is read from the device and written with the next state."""
        self._losses.append(value)

    def numbers(self, step: int, found: dict[str, Any]) -> None:
        """Write what the model shows after so many steps."""
        self._append("numbers.jsonl", [{"step": step, "tokens": step * self._tokens} | found])

    def save(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Write the losses since the last time, then the state beside the last one and into its place."""
        values = torch.stack(self._losses).tolist() if self._losses else []
        first = step - len(values) + 1
        self._append("losses.jsonl", [{"step": first + i, "loss": value} for i, value in enumerate(values)])
        self._losses = []
        beside = self._folder / "state.new"
        torch.save({"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, beside)
        os.replace(beside, self._folder / "state.pt")

    def resume(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Read the last state, and forget what was written after it; the steps that are done."""
        step = 0
        if (path := self._folder / "state.pt").is_file():
            state = torch.load(path, map_location=next(model.parameters()).device)
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            step = state["step"]
        for name in ("losses.jsonl", "numbers.jsonl"):
            if (path := self._folder / name).is_file():
                # What follows the last line break was being written when the run was killed.
                whole = path.read_text().split("\n")[:-1]
                lines = [line for line in whole if json.loads(line)["step"] <= step]
                path.write_text("".join(f"{line}\n" for line in lines))
        return step

    def _append(self, name: str, lines: Iterable[dict[str, Any]]) -> None:
        with (self._folder / name).open("a", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(line)}\n" for line in lines)
