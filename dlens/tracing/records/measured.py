"""The measures of a record or a profile, which say what is there where one asks for another."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, final

from dlens.checks import quoted

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Measures"]


@final
class Measures(dict[str, "xr.Dataset"]):
    """Key -> dataset, as a dict has them.

    Raises:
        KeyError: nothing was measured under a key; it says what was.

    Examples:
        >>> Measures(cosine=None)["cka"]
        Traceback (most recent call last):
        KeyError: "'cka' was not measured; expected one of cosine; add .measure(...) of it to the trace, or measures="
    """

    def __getitem__(self, key: str) -> xr.Dataset:
        return super().__getitem__(key) if isinstance(key, str) else self.__missing__(key)

    def __missing__(self, key: str) -> NoReturn:
        held = f"one of {', '.join(self)}" if self else "a measure, and none was taken"
        raise KeyError(
            f"{quoted(key)} was not measured; expected {held}; add .measure(...) of it to the trace, or measures="
        )
