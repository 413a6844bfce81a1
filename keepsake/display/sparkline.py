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
    means = _means(values, cells)
    present = [mean for mean in means if mean is not None]
    if len(present) < 2:
        return ""
    low, high = min(present), max(present)
    return "".join(" " if mean is None else blocks[_level(mean, low, high, len(blocks))] for mean in means).rstrip()


DRAWN_PARTS, WIDTH, HEIGHT, MARGIN = 60, 84, 16, 2
"""Into how many parts a drawn course is divided, and its size in CSS pixels."""


def svg(values: Sequence[Any]) -> str:
    """Return the course of a metric as an image for HTML, in the colour of the text around it; "" where `sparkline` is.

    Where images are taken out of a page, as some sites do, the characters of the sparkline are left: they are its title.

    Args:
        values: The values in their order.
    """
    title = sparkline(values)
    if not title:
        return ""
    means = _means(values, DRAWN_PARTS)
    present = [mean for mean in means if mean is not None]
    low, high = min(present), max(present)
    path = ""
    for place, mean in enumerate(means):
        if mean is not None:
            is_first = not place or means[place - 1] is None
            x = MARGIN + place * (WIDTH - 2 * MARGIN) / max(len(means) - 1, 1)
            y = HEIGHT - MARGIN - _height(mean, low, high) * (HEIGHT - 2 * MARGIN)
            # A point between two gaps is a line of no length, which round ends make a dot.
            path += f"{'M' if is_first else 'L'}{x:.4g} {y:.4g}{'h0' if is_first else ''}"
    return (
        f'<svg width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" fill="none" stroke="currentColor" stroke-width="1.5"'
        f' stroke-linecap="round" stroke-linejoin="round" role="img"><title>{title}</title><path d="{path}"/></svg>'
    )


def _means(values: Sequence[Any], parts: int) -> list[float | None]:
    numbers = [_finite(value) for value in values]
    count = min(parts, len(numbers))
    return [_mean(numbers[index * len(numbers) // count : (index + 1) * len(numbers) // count]) for index in range(count)]


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
    # Halves of the smallest floats are equal.
    return min(int(_height(mean, low, high) * levels), levels - 1) if low / 2 < high / 2 else levels // 2 - 1


def _height(mean: float, low: float, high: float) -> float:
    """Return where a value stands between the lowest and the highest, from 0 to 1."""
    # Halved: the distance between the largest floats of either sign is infinite.
    distance = high / 2 - low / 2
    return (mean / 2 - low / 2) / distance if distance else 0.5
