"""The versions that a record carries."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

__all__ = ["versions"]

_PACKAGES = ("dlens", "torch", "transformers", "nnsight")


@cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def versions() -> dict[str, str]:
    """The installed versions of dlens and of what it runs on."""
    return {package: _version(package) for package in _PACKAGES}
