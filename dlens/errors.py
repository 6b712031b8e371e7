"""The errors and warnings that dlens raises beside Python's own."""

from __future__ import annotations

from typing import Any

__all__ = ["Cancelled", "NeverFired", "UnfiredWarning", "UnprovedWarning", "VerificationError"]


class VerificationError(ValueError):
    """A loaded model does not behave as its family and layout say.

    Examples:
        >>> import dlens
        >>> try:
        ...     dlens.load("trio/diffusion", family="autoregressive")
        ... except dlens.VerificationError as error:
        ...     print(str(error)[:32])
        trio/diffusion is bidirectional:
    """


class NeverFired(RuntimeError):
    """An operation found nothing to act on in a whole run; `record` holds that run, `ops` all such operations.

    Examples:
        >>> import dlens
        >>> try:
        ...     dlens.trace("trio/diffusion").skip([3], noise=(0.5, 1.0)).forward("Once upon a time")  # no masks
        ... except dlens.NeverFired as error:
        ...     print(error.record.n_steps, len(error.ops))
        1 1
    """

    def __init__(self, message: str, record: Any, ops: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.record = record
        self.ops = ops


class Cancelled(RuntimeError):
    """A waiting or running run was cancelled; the model is as it was.

    Examples:
        >>> import dlens, threading
        >>> stop = threading.Event()
        >>> stop.set()
        >>> try:
        ...     dlens.trace("trio/ar").generate("Once upon a time", 4, cancel=stop)
        ... except dlens.Cancelled:
        ...     print("cancelled")
        cancelled
    """


class UnfiredWarning(UserWarning):
    """A run ended before an operation's steps came.

    Examples:
        >>> import dlens, warnings
        >>> at_once = dlens.samplers.Threshold(threshold=1e-9)  # commits all tokens in the first step
        >>> trace = dlens.trace("trio/diffusion").skip([3], steps=2)
        >>> with warnings.catch_warnings(record=True, action="always", category=dlens.UnfiredWarning) as caught:
        ...     record = trace.generate("Once upon a time", 4, sampler=at_once)
        >>> record.n_steps, len(record.unfired), [warning.category.__name__ for warning in caught]
        (1, 1, ['UnfiredWarning'])
    """


class UnprovedWarning(UserWarning):
    """Something of a model could not be proved when it was loaded.

    Examples:
        >>> import dlens, warnings
        >>> with warnings.catch_warnings(action="error", category=dlens.UnprovedWarning):
        ...     dlens.load("trio/diffusion").n_layers
        16
    """
