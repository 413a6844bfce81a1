"""Sparklines: the course of a metric in a few characters."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

CELLS = 12
BLOCKS = "▁▂▃▄▅▆▇█"
ASCII_BLOCKS = "_.-~=+*#"
"""What is drawn where blocks cannot be shown: ever more ink, from the lowest value to the highest."""


def sparkline(values: Sequence[Any], *, cells: int = CELLS, blocks: str = BLOCKS) -> str:
    """Return the course of a metric, one character for each part of it; "" where there are not two values to tell apart.

    A part shows the mean of its values. One in which none is a finite number is a gap.

    Args:
        values: The values in their order; what is no finite number is left out of the means.
        cells: How many characters at most.
        blocks: What is drawn, from the lowest to the highest.

    Example:
        >>> sparkline([3, 2, 1, float("nan"), 1])
        '█▅▁ ▁'
    """
    numbers = [_finite(value) for value in values]
    count = min(cells, len(numbers))
    means = [_mean(numbers[index * len(numbers) // count : (index + 1) * len(numbers) // count]) for index in range(count)]
    present = [mean for mean in means if mean is not None]
    if len(present) < 2:
        return ""
    low, high = min(present), max(present)
    return "".join(" " if mean is None else blocks[_level(mean, low, high, len(blocks))] for mean in means).rstrip()


def _finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # a whole number beyond all floats
        return None
    return number if math.isfinite(number) else None


def _mean(numbers: Sequence[float | None]) -> float | None:
    present = [number for number in numbers if number is not None]
    # Divided first: the sum of the largest floats is infinite.
    return sum(number / len(present) for number in present) if present else None


def _level(mean: float, low: float, high: float, levels: int) -> int:
    # Halved: the distance between the largest floats of either sign is infinite.
    distance = high / 2 - low / 2
    if not distance:
        return levels // 2 - 1
    return min(int((mean / 2 - low / 2) / distance * levels), levels - 1)
