"""Follow a run while it goes: progress bars, streamed canvases, cancelling."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

from dlens.axes import TokenIds
from dlens.checks import as_flag
from dlens.errors import Cancelled

__all__ = ["OnStep", "StepView", "Watch", "hold", "quiet", "refuse_stray_call"]


@dataclass(frozen=True)
class StepView:
    """What stands in the canvas after a step.

    Args:
        step: its number.
        n_steps: planned steps.
        rows: which prompts of the batch the next two show: all of them, but where a model does not
            hide padding those of one length.
        tokens: [batch, position], prompts and what was decoded so far; for AR decoding it grows.
        text: per row the continuation so far, masks shown as ░.

    Examples:
        >>> import dlens
        >>> seen = []
        >>> record = dlens.trace("trio/diffusion").generate("Once upon a time", 4, on_step=seen.append)
        >>> [view.step for view in seen], seen[0].text[0].count("░"), seen[-1].text == record.text
        ([0, 1, 2, 3], 3, True)
    """

    step: int
    n_steps: int
    rows: tuple[int, ...]
    tokens: TokenIds
    text: list[str]


OnStep = Callable[[StepView], None]


@final
@dataclass
class Watch:
    """Told of every step; draws the progress bar, calls `on_step`, and raises when cancelled."""

    n_steps: int
    progress: bool
    on_step: OnStep | None
    cancel: threading.Event | None
    decode: Callable[[TokenIds], list[str]]
    bar: Any = None
    begun: int = 0

    def begin(self) -> None:
        """A step is about to start.

        Raises:
            Cancelled: someone set the cancel event.
        """
        if self.cancel is not None and self.cancel.is_set():
            raise Cancelled("the run was cancelled between two steps; the model is as it was; run it again")
        self.begun += 1

    def end(self, step: int, tokens: TokenIds, rows: Sequence[int]) -> None:
        """A step is over and left these tokens."""
        if self.bar is not None:
            self.bar.update(1)
        if self.on_step is not None:
            self.on_step(StepView(step, self.n_steps, tuple(rows), tokens.clone(), self.decode(tokens)))

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the progress bar of a run that takes longer than a moment."""
        if not self.progress:
            yield
            return
        from tqdm.auto import tqdm

        with tqdm(total=self.n_steps, unit="step", delay=1.0, leave=False, disable=quiet(self.progress)) as bar:
            self.bar = bar
            yield


def quiet(progress: bool) -> bool | None:
    """What tqdm takes as `disable`: None shows a bar in notebooks and on terminals, and none in pipes and files."""
    return None if as_flag(progress, "progress") else True


def refuse_stray_call(step: int, begun: int) -> None:
    """Refuse a call of the module that is none of the run's steps, as every later one would count wrong.

    Raises:
        RuntimeError: an `on_step` function called the module.
    """
    if step >= begun:
        raise RuntimeError(
            f"the module was called between steps {begun - 1} and {begun} of a run; expected calls by the run alone; "
            f"keep what on_step needs in a variable, or call a copy of the model"
        )


@contextmanager
def hold(lock: threading.RLock, cancel: threading.Event | None) -> Iterator[None]:
    """Hold a model's lock; a waiting run can be cancelled.

    Raises:
        Cancelled: the event was set while waiting.
        KeyboardInterrupt: for what a library below made of one.
    """
    while not lock.acquire(timeout=-1 if cancel is None else 0.05):
        if cancel is not None and cancel.is_set():
            raise Cancelled("the run was cancelled while it waited for the model; nothing was computed; run it again")
    try:
        yield
    except Exception as error:
        if _interrupted(error):
            raise KeyboardInterrupt from error
        raise
    finally:
        lock.release()


def _interrupted(error: BaseException | None) -> bool:
    """Whether an error came about while an interrupt was handled."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False
