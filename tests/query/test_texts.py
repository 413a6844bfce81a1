"""Which lines of two texts differ."""

from __future__ import annotations

import difflib
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepsake.query import texts
from keepsake.query.texts import Hunk, TextEdit, edit_of

lines = st.lists(st.sampled_from([b"a\n", b"b\n", b"c\n", b"\n", b"def f():\n"]) | st.binary(max_size=3), max_size=40)
contents = lines.map(b"".join)


def applied(edit: TextEdit, left: bytes) -> bytes:
    """Return what a program makes of a text that follows the hunks to the letter."""
    old = left.split(b"\n")
    old = [line + b"\n" for line in old[:-1]] + ([old[-1]] if old[-1] else [])
    new: list[bytes] = []
    position = 0
    for hunk in edit.hunks:
        new += old[position : hunk.left_start]
        assert len(new) == hunk.right_start
        assert [line for mark, line in hunk.lines if mark != "+"] == old[hunk.left_start : hunk.left_start + hunk.left_count]
        added = [line for mark, line in hunk.lines if mark != "-"]
        assert len(added) == hunk.right_count
        new += added
        position = hunk.left_start + hunk.left_count
    return b"".join(new + old[position:])


@settings(max_examples=500)
@given(contents, contents, st.integers(0, 4))
def test_the_hunks_lead_from_one_text_to_the_other(left: bytes, right: bytes, context: int) -> None:
    edit = edit_of(left, right, context)
    assert applied(edit, left) == right
    assert bool(edit.hunks) == (left != right)
    marks = [mark for hunk in edit.hunks for mark, _ in hunk.lines]
    assert (marks.count("+"), marks.count("-")) == (edit.added, edit.deleted)


@settings(max_examples=300)
@given(st.lists(st.sampled_from("ab"), max_size=14), st.lists(st.sampled_from("ab"), max_size=14))
def test_between_anchors_the_way_is_the_shortest(left: list[str], right: list[str]) -> None:
    left, right = [*left, "a", "a", "b", "b"], [*right, "a", "a", "b", "b"]  # no line occurs once: there are no anchors
    edit = edit_of("".join(f"{line}\n" for line in left).encode(), "".join(f"{line}\n" for line in right).encode())
    longest = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i, one in enumerate(left, 1):
        for j, other in enumerate(right, 1):
            longest[i][j] = longest[i - 1][j - 1] + 1 if one == other else max(longest[i - 1][j], longest[i][j - 1])
    assert edit.deleted == len(left) - longest[-1][-1]
    assert edit.added == len(right) - longest[-1][-1]


@settings(max_examples=300)
@given(contents, contents)
def test_words_are_the_text_of_both_sides(left: bytes, right: bytes) -> None:
    for hunk in edit_of(left, right).hunks:
        pieces = hunk.words()
        for other, side in ("+-", "-+"):
            text = b"".join(line for mark, line in hunk.lines if mark != other)
            assert b"".join(piece for mark, piece in pieces if mark != other) == text, side
        assert all(one[0] != next[0] for one, next in pairwise(pieces))


def test_words_that_differ_are_told_apart_from_those_that_do_not() -> None:
    [hunk] = edit_of(b"a\nloss = mse(x, y)\nb\n", b"a\nloss = huber(x, y)\nb\n").hunks
    assert hunk.words() == [(" ", b"a\nloss = "), ("-", b"mse"), ("+", b"huber"), (" ", b"(x, y)\nb\n")]


def test_a_text_is_split_after_line_feeds_only() -> None:
    edit = edit_of(b"a\rb\r\nc\x0cd\x1ce\n", b"a\rB\r\nc\x0cd\x1ce\n")
    assert [hunk.lines for hunk in edit.hunks] == [[("-", b"a\rb\r\n"), ("+", b"a\rB\r\n"), (" ", b"c\x0cd\x1ce\n")]]


def test_changes_far_apart_are_hunks_of_their_own_and_each_says_where_it_is() -> None:
    old = [
        "import os",
        "",
        "def first():",
        *(f"    a{n} = {n}" for n in range(9)),
        "def second():",
        *(f"    b{n} = {n}" for n in range(9)),
    ]
    new = [line.replace("a5 = 5", "a5 = 6").replace("b8 = 8", "b8 = 9") for line in old]
    hunks = edit_of("\n".join(old).encode(), "\n".join(new).encode()).hunks
    assert [hunk.heading for hunk in hunks] == [b"def first():", b"def second():"]
    assert [(hunk.left_start, hunk.left_count, len(hunk.lines)) for hunk in hunks] == [(5, 7, 8), (18, 4, 5)]
    assert edit_of(b"a\n" * 3, b"b\n" * 3).hunks == [Hunk(0, 0, [("-", b"a\n")] * 3 + [("+", b"b\n")] * 3)]


@pytest.mark.parametrize("kind", ["two symbols", "nothing in common", "shuffled"])
def test_texts_that_have_little_in_common_take_no_more_steps_than_allowed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import random

    luck = random.Random(7)
    left = [luck.choice("01") if kind == "two symbols" else str(n) for n in range(5_000)]
    right = [luck.choice("01") if kind == "two symbols" else str(n + 5_000) for n in range(5_000)]
    if kind == "shuffled":
        right = luck.sample(left, len(left))
    budgets: list[texts._Budget] = []
    make = texts._Budget
    monkeypatch.setattr(texts, "_Budget", lambda steps: budgets.append(make(steps)) or budgets[-1])
    monkeypatch.setattr(texts, "MAX_STEPS", 20_000)
    one, other = ("".join(f"{line}\n" for line in lines).encode() for lines in (left, right))
    assert applied(edit_of(one, other), one) == other
    [budget] = budgets
    # One more round than allowed: it costs two steps for each edit so far, and no line twice.
    assert budget.steps > -20_000


def test_a_few_changes_in_a_long_text_without_anchors_are_found_all_the_same() -> None:
    left = [b"0\n", b"1\n", b"1\n"] * 20_000
    right = list(left)
    for place in (100, 30_000, 59_000):
        right[place] = b"x\n"
    edit = edit_of(b"".join(left), b"".join(right))
    assert (edit.added, edit.deleted) == (3, 3)


def test_code_reads_as_people_write_it() -> None:
    """As good as difflib: a function that was put between two others comes as one block."""
    first = "def a():\n    x = 1\n    return x\n\n\n"
    last = "def c():\n    x = 1\n    return x\n"
    middle = "def b():\n    x = 1\n    return x\n\n\n"
    ours = [line for line in edit_of((first + last).encode(), (first + middle + last).encode()).hunks[0].lines if line[0] == "+"]
    theirs = [line for line in difflib.ndiff((first + last).splitlines(), (first + middle + last).splitlines()) if line[0] == "+"]
    assert len(ours) == len(theirs) == 5
