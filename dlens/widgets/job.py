"""Work in the background: one piece at a time, which can be stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final

from dlens.errors import Cancelled

__all__ = ["Job"]

Work = Callable[[threading.Event], None]


@final
@dataclass
class Job:
    """Runs work in a thread, so that a notebook stays usable; new work stops the old and waits for it.

    Args:
        failed: told in words of an error.
    """

    failed: Callable[[str], None]
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self, work: Work) -> None:
        """Begin work in place of any before; it gets the event that asks it to stop."""
        before = self._thread
        self.stop()
        stop = self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(work, stop, before), daemon=True)
        self._thread.start()

    def _run(self, work: Work, stop: threading.Event, before: threading.Thread | None) -> None:
        if before is not None:
            before.join()
        try:
            if not stop.is_set():
                work(stop)
        except Cancelled:
            pass
        except Exception as error:
            # There is nobody above a thread to raise to.
            self.failed(f"{type(error).__name__}: {error}")

    def stop(self) -> None:
        """Ask the work to stop between two steps."""
        self._stop.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the work is over; whether it is."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self._thread is None or not self._thread.is_alive()
