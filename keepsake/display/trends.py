"""A column of sparklines, which keeps the courses that they show for whoever can draw more than characters."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from keepsake.display.sparkline import ASCII_BLOCKS, BLOCKS, sparkline
from keepsake.display.tables import Column, View

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(eq=False)
class TrendColumn(Column):
    """One sparkline a row.

    Args:
        courses: The values of each row, oldest first.
    """

    courses: list[Sequence[Any]] = field(default_factory=list)

    @classmethod
    def of(cls, heading: str, courses: list[Sequence[Any]], view: View, keep: tuple[int, int]) -> Self:
        """Return the column that shows these courses.

        Args:
            heading: Its heading.
            courses: The values of each row, oldest first.
            view: How it is to look.
            keep: See `Column`.
        """
        blocks = BLOCKS if view.unicode else ASCII_BLOCKS
        return cls(heading, [sparkline(course, blocks=blocks) for course in courses], keep, courses=courses)

    def last(self, count: int) -> Self:
        """Return the same column with its last rows only."""
        return replace(super().last(count), courses=self.courses[max(len(self.courses) - count, 0) :])
