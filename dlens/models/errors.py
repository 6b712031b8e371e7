"""The error of a model that is not what its adapter says."""

from __future__ import annotations

__all__ = ["VerificationError"]


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
