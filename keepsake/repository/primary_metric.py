"""The primary metric of an experiment: its name, and which of its values are good."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

Goal: TypeAlias = Literal["maximize", "minimize"]


class PrimaryMetric(NamedTuple):
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

    def __getitem__(self, key: Any) -> Any:
        # keepsake 0.4.2 gave people a dict here.
        if isinstance(key, str):
            if key not in self._fields:
                raise KeyError(key)
            return getattr(self, key)
        return tuple.__getitem__(self, key)
