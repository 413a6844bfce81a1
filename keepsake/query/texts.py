"""Which lines of two texts differ.

Lines that occur once in either text are anchors, as in Bram Cohen's patience diff; between them the shortest way from one text to the
other is looked for, as by Eugene Myers (1986). That takes as long as there are differences, and no longer than `MAX_STEPS`: where
two texts have little in common, what lies between two anchors is replaced as a whole. The result is right in any case.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_STEPS = 2_000_000
"""How long the shortest way is looked for, all stretches of a text together: a second or so."""

MAX_HEADING_BYTES = 80

_WORD = re.compile(rb"[\w\x80-\xff]+|[ \t]+|\n|.", re.DOTALL)
"""What is compared instead of lines."""


@dataclass(frozen=True, slots=True)
class Hunk:
    """Lines that differ, with those around them.

    Args:
        left_start: Where on the left it begins, from 0.
        right_start: Where on the right it begins, from 0.
        lines: Each line with the mark in front: ``" "`` for both sides, ``"-"`` for the left one, ``"+"`` for the right one. The last line
            of a text may lack its line break.
        heading: The line of the left text that says what the hunk is part of, such as the head of a function.
    """

    left_start: int
    right_start: int
    lines: list[tuple[str, bytes]]
    heading: bytes = b""

    @property
    def left_count(self) -> int:
        """How many lines of the left text it spans."""
        return sum(mark != "+" for mark, _ in self.lines)

    @property
    def right_count(self) -> int:
        """How many lines of the right text it spans."""
        return sum(mark != "-" for mark, _ in self.lines)

    def words(self) -> list[tuple[str, bytes]]:
        r"""Return the text of both sides in pieces, with the marks that lines have, each as long as it can be.

        Words, spaces and any other characters are compared instead of lines.

        Example:
            >>> edit_of(b"rate = 0.1\n", b"rate = 0.02\n").hunks[0].words()
            [(' ', b'rate = 0.'), ('-', b'1'), ('+', b'02'), (' ', b'\n')]
        """
        pieces: list[tuple[str, bytes]] = []
        for is_same, run in groupby(self.lines, lambda line: line[0] == " "):
            if is_same:
                pieces += run
                continue
            lines = list(run)
            old, new = (_WORD.findall(b"".join(line for mark, line in lines if mark == side)) for side in "-+")
            position = 0
            for change in _changes(old, new):
                pieces += [(" ", word) for word in old[position : change.left_first]]
                pieces += [("-", word) for word in old[change.left_first : change.left_last]]
                pieces += [("+", word) for word in new[change.right_first : change.right_last]]
                position = change.left_last
            pieces += [(" ", word) for word in old[position:]]
        return [(mark, b"".join(piece for _, piece in run)) for mark, run in groupby(pieces, lambda piece: piece[0])]


@dataclass(frozen=True, slots=True)
class TextEdit:
    """What differs between two texts.

    Args:
        hunks: Where.
        added: Lines that only the right one has.
        deleted: Lines that only the left one has.
    """

    hunks: list[Hunk]
    added: int
    deleted: int


def is_text(content: bytes) -> bool:
    """Tell whether something can be shown line by line."""
    return b"\0" not in content


def edit_of(left: bytes, right: bytes, context: int = 3) -> TextEdit:
    r"""Return what differs between two texts.

    Args:
        left: The reference.
        right: What is compared with it.
        context: How many equal lines to give around those that differ.

    Example:
        >>> edit = edit_of(b"a\nb\nc\n", b"a\nB\nc\nd\n")
        >>> edit.added, edit.deleted, edit.hunks[0].lines[1:3]
        (2, 1, [('-', b'b\n'), ('+', b'B\n')])
    """
    old, new = _lines(left), _lines(right)
    changes = _changes(old, new)
    hunks = []
    heading, searched = b"", 0
    for group in _grouped(changes, context):
        start = max(0, group[0].left_first - context)
        heading = next((line for line in reversed(old[searched:start]) if _is_heading(line)), heading)
        searched = start
        hunks.append(_hunk(old, new, group, context, heading.rstrip()[:MAX_HEADING_BYTES]))
    added = sum(change.right_last - change.right_first for change in changes)
    return TextEdit(hunks, added, sum(change.left_last - change.left_first for change in changes))


def _lines(text: bytes) -> list[bytes]:
    """Split a text after line feeds, and nowhere else."""
    lines = [line + b"\n" for line in text.split(b"\n")]
    last = lines.pop()[:-1]
    return [*lines, last] if last else lines


def _is_heading(line: bytes) -> bool:
    return line[:1].isalpha() or line[:1] in (b"_", b"$")


# --- hunks --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Change:
    """Lines of the left text that are replaced by lines of the right one; either may be none."""

    left_first: int
    left_last: int
    right_first: int
    right_last: int


def _grouped(changes: Sequence[_Change], context: int) -> Iterator[list[_Change]]:
    """Yield changes together whose contexts meet."""
    group: list[_Change] = []
    for change in changes:
        if group and change.left_first - group[-1].left_last > 2 * context:
            yield group
            group = []
        group.append(change)
    if group:
        yield group


def _hunk(old: Sequence[bytes], new: Sequence[bytes], group: Sequence[_Change], context: int, heading: bytes) -> Hunk:
    start = max(0, group[0].left_first - context)
    lines: list[tuple[str, bytes]] = []
    position = start
    for change in group:
        lines += [(" ", line) for line in old[position : change.left_first]]
        lines += [("-", line) for line in old[change.left_first : change.left_last]]
        lines += [("+", line) for line in new[change.right_first : change.right_last]]
        position = change.left_last
    lines += [(" ", line) for line in old[position : position + context]]
    return Hunk(start, group[0].right_first - (group[0].left_first - start), lines, heading)


# --- lines --------------------------------------------------------------------------------------------------------------


def _changes(old: Sequence[bytes], new: Sequence[bytes]) -> list[_Change]:
    """Return what lies between the lines that both texts have."""
    changes = []
    left = right = 0
    for left_match, right_match in [*_matches(old, new), (len(old), len(new))]:
        if (left, right) != (left_match, right_match):
            changes.append(_Change(left, left_match, right, right_match))
        left, right = left_match + 1, right_match + 1
    return changes


def _matches(old: Sequence[bytes], new: Sequence[bytes]) -> list[tuple[int, int]]:
    """Return the numbers of lines that correspond to each other, ascending on both sides."""
    # Numbers are compared faster than lines.
    numbers: dict[bytes, int] = {}
    a, b = ([numbers.setdefault(line, len(numbers)) for line in lines] for lines in (old, new))
    found: list[tuple[int, int]] = []
    budget = _Budget(MAX_STEPS)
    left = right = 0
    for left_anchor, right_anchor in [*_anchors(a, b), (len(a), len(b))]:
        found += _stretch(a, left, left_anchor, b, right, right_anchor, budget)
        found.append((left_anchor, right_anchor))
        left, right = left_anchor + 1, right_anchor + 1
    return found[:-1]


def _anchors(a: Sequence[int], b: Sequence[int]) -> list[tuple[int, int]]:
    """Return most of the lines that occur once on either side, those in the same order: the longest ascending sequence."""
    once_in_a, once_in_b = ({line for line, count in Counter(lines).items() if count == 1} for lines in (a, b))
    places = {line: place for place, line in enumerate(b) if line in once_in_b}
    pairs = [(place, places[line]) for place, line in enumerate(a) if line in once_in_a and line in places]
    # Patience sorting: what stands on each pile's top, and for each pair the one on the pile before.
    tops: list[int] = []
    last_on: list[int] = []
    before: list[int] = []
    for number, (_, place) in enumerate(pairs):
        pile = bisect_left(tops, place)
        tops[pile : pile + 1] = [place]
        last_on[pile : pile + 1] = [number]
        before.append(last_on[pile - 1] if pile else -1)
    chain: list[tuple[int, int]] = []
    number = last_on[-1] if last_on else -1
    while number >= 0:
        chain.append(pairs[number])
        number = before[number]
    return chain[::-1]


class _Budget:
    """How many steps are left."""

    def __init__(self, steps: int) -> None:
        self.steps = steps


def _stretch(
    a: Sequence[int], left: int, left_end: int, b: Sequence[int], right: int, right_end: int, budget: _Budget
) -> list[tuple[int, int]]:
    """Return which lines correspond to each other between two anchors."""
    head: list[tuple[int, int]] = []
    while left < left_end and right < right_end and a[left] == b[right]:
        head.append((left, right))
        left, right = left + 1, right + 1
    tail: list[tuple[int, int]] = []
    while left < left_end and right < right_end and a[left_end - 1] == b[right_end - 1]:
        left_end, right_end = left_end - 1, right_end - 1
        tail.append((left_end, right_end))
    # Lines that only one side has correspond to none, and would only make the way longer.
    common = set(a[left:left_end]) & set(b[right:right_end])
    lefts = [place for place in range(left, left_end) if a[place] in common]
    rights = [place for place in range(right, right_end) if b[place] in common]
    middle = _shortest([a[place] for place in lefts], [b[place] for place in rights], budget)
    return [*head, *((lefts[x], rights[y]) for x, y in middle), *tail[::-1]]


def _shortest(a: Sequence[int], b: Sequence[int], budget: _Budget) -> list[tuple[int, int]]:
    """Return the lines that correspond to each other on the shortest way from one to the other; none where it is too long."""
    if not a or not b:
        return []
    most = len(a) + len(b)
    reach = [0] * (2 * most + 3)  # how far along the left side each diagonal has got; diagonal 0 stands in the middle
    middle = most + 1
    rounds: list[list[int]] = []  # the reach of the diagonals around the middle before each round
    for edits in range(most + 1):
        rounds.append(reach[middle - edits - 1 : middle + edits + 2])
        for diagonal in range(-edits, edits + 1, 2):
            x = start = _next_x(rounds[-1], edits, diagonal)
            y = x - diagonal
            while x < len(a) and y < len(b) and a[x] == b[y]:
                x, y = x + 1, y + 1
            reach[middle + diagonal] = x
            budget.steps -= 1 + x - start
            if x >= len(a) and y >= len(b):
                return _way_back(rounds, x, y)
        if budget.steps < 0:
            return []
    return []


def _next_x(reach: Sequence[int], edits: int, diagonal: int) -> int:
    """Return where a diagonal begins after one more edit."""
    center = edits + 1 + diagonal
    return reach[center + 1] if _is_insertion(reach, edits, diagonal) else reach[center - 1] + 1


def _is_insertion(reach: Sequence[int], edits: int, diagonal: int) -> bool:
    """Tell whether a diagonal is best reached from the one above, by an insertion, or from the one below, by a deletion."""
    center = edits + 1 + diagonal
    return diagonal == -edits or (diagonal != edits and reach[center - 1] < reach[center + 1])


def _way_back(rounds: Sequence[Sequence[int]], x: int, y: int) -> list[tuple[int, int]]:
    matches: list[tuple[int, int]] = []
    for edits in range(len(rounds) - 1, -1, -1):
        diagonal = x - y
        start = _next_x(rounds[edits], edits, diagonal)
        while x > start:
            x, y = x - 1, y - 1
            matches.append((x, y))
        x, y = (x, y - 1) if _is_insertion(rounds[edits], edits, diagonal) else (x - 1, y)
    return matches[::-1]
