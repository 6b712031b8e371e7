"""The errors of a run that carry more than a message."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlens.tracing.record import Record

__all__ = ["Cancelled", "NeverFired", "UnfiredWarning"]


class NeverFired(RuntimeError):
    """An operation found nothing to act on in a whole run; `record` holds that run, `ops` all such operations."""

    def __init__(self, message: str, record: Record, ops: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.record = record
        self.ops = ops


class Cancelled(RuntimeError):
    """A waiting or running run was cancelled; the model is as it was."""


class UnfiredWarning(UserWarning):
    """A run ended before an operation's steps came."""
