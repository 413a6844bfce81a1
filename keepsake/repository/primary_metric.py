"""The primary metric of an experiment: its name, and which of its values are good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

Goal: TypeAlias = Literal["maximize", "minimize"]


@dataclass(frozen=True)
class PrimaryMetric:
    """The metric by which the best checkpoint is chosen; unpacks as the pair ``(name, goal)``.

    Args:
        name: The metric's name.
        goal: ``"maximize"`` or ``"minimize"``.

    Example:
        >>> name, goal = PrimaryMetric("val_loss", "minimize")
        >>> name
        'val_loss'
    """

    name: str
    goal: Goal

    def __iter__(self) -> Iterator[str]:
        return iter((self.name, self.goal))

    def __getitem__(self, key: str) -> str:
        # keepsake 0.4.2 gave people a dict here.
        if key not in ("name", "goal"):
            raise KeyError(key)
        return str(getattr(self, key))
