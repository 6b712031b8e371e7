"""The text that ships with dlens, for profiles, means and the search for outlier channels."""

from __future__ import annotations

from importlib.resources import files

__all__ = ["calibration_texts"]


def calibration_texts() -> list[str]:
    """Short stories, word problems and pieces of code, written for this package.

    Returns:
        24 texts of 17 to 100 words, always the same and in the same order.

    Examples:
        >>> len(calibration_texts())
        24
    """
    text = files("dlens.tracing.probes").joinpath("calibration.txt").read_text(encoding="utf-8")
    return [part.strip("\n") for part in text.split("\n---\n")]
