"""What kinds of workers share: they are asked for units, and see to it that each is computed or has failed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from dlens.workers.board import Board, Standing
from dlens.workers.unit import Unit

__all__ = ["Tell", "Workers"]

Tell = Callable[[Standing], None]


class Workers(ABC):
    """Who computes: processes of this machine, jobs of a cluster, or this process itself.

    Args:
        elsewhere: whether they may be on other machines, which do not see this one's temporary folders.
    """

    elsewhere = False

    @abstractmethod
    def check(self) -> None:
        """Refuse to start where something is missing.

        Raises:
            ImportError, ValueError: says what, and what to install or change.
        """

    @abstractmethod
    def run(self, units: Mapping[str, Unit], board: Board, fresh: bool, tell: Tell) -> None:
        """Compute units; each has a result or a failure on the board afterwards.

        Args:
            units: by name, those that have neither.
            board: where.
            fresh: compute them though there are results.
            tell: called now and then with how far it is.

        Raises:
            RuntimeError: workers end and finish nothing.
        """
