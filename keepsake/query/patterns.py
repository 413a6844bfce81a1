"""Regular expressions that people search with: bad ones and those that might take for ever are refused."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING

from keepsake.exceptions import InvalidQuery

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_LENGTH = 1_000
"""How long a pattern may be."""

MAX_UNBOUNDED, MAX_REPETITIONS = 3, 10
"""How many ``*``, ``+`` and ``{n,}`` a pattern may hold, and how many repetitions in all.

The time of a search grows with the length of the text to the power of the first, and twofold with each of the second.
"""

_REPETITION = re.compile(r"\*|\+|\?|\{(\d*)(,?)(\d*)\}")
_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]?", re.DOTALL)
_ATOM = r"[^\\.^$*+?{}\[\]|()\n]|\\[^\w\s]|\\[dw]|\.(?![*+?{])"
_SIMPLE = re.compile(rf"(\^?)((?:{_ATOM})*)((?:\.[*+](?:{_ATOM})*)*)(\$?)")
_STEP = re.compile(rf"(\.[*+])((?:{_ATOM})*)")
_GROUP = re.compile(r"\((?:\?(?:P<\w+>|<?[=!]|[aiLmsu-]*:|>|[aiLmsu]+(?=\))))?")


def searcher(pattern: str) -> Callable[[str], bool]:
    """Return a function that tells whether a text holds what a regular expression says, in upper or lower case.

    Raises:
        InvalidQuery: It is no regular expression, or one that could take for ever.

    Example:
        >>> searcher("^adam")("AdamW")
        True
    """
    try:
        if len(pattern) > MAX_LENGTH:
            raise ValueError(f"it is longer than {MAX_LENGTH:,} characters")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what other versions of Python might read otherwise
            compiled = re.compile(pattern, re.IGNORECASE)
            if (steps := _in_steps(pattern)) is not None:
                compiled = re.compile(steps, re.IGNORECASE)
            else:
                _check_cost(pattern)
    except (re.error, ValueError, OverflowError, RecursionError) as err:
        raise InvalidQuery(
            f'"{pattern}" cannot be searched for: {err}',
            facts=["~ searches for a regular expression; . * + ? ( ) [ ] { } | ^ $ and \\ have a meaning there, \\. is a dot"],
            hint='keepsake ls -f "optimizer ~ ^adam"',
        ) from err
    search = compiled.search
    return lambda text: search(text) is not None


def _in_steps(pattern: str) -> str | None:
    """Return what finds the same as a pattern such as ``a.*b.*c``, without trying each ``b`` after each ``a``; None for all others.

    Whether there is a match is all that is asked, and what lies between does not matter: where some ``b`` leads to one, the first
    ``b`` does so too. A text of 1,400 characters is searched in milliseconds instead of a minute.
    """
    match = _SIMPLE.fullmatch(pattern)
    if match is None:
        return None
    start, first, rest, end = match.groups()
    steps = [list(step) for step in _STEP.findall(rest)]
    # The one before the end must not stop at the first that it finds.
    kept = "".join(steps.pop()) if steps and end else ""
    if steps and not start and not first and steps[0][0] == ".*":
        first = steps.pop(0)[1]
    return start + first + "".join(f"(?>{wildcard}?{then})" for wildcard, then in steps) + kept + end


def _check_cost(pattern: str) -> None:
    """Raise `ValueError` for a valid pattern whose search could take exponentially long.

    That is one that repeats what itself can match a text in several ways. The pattern is read by its signs alone, and what
    is rare and hard to judge is refused.
    """
    at = unbounded = repetitions = 0
    ambiguous = [False]  # for each open group: whether it can match a text in several ways
    last = False  # the same for what was read last, and a repetition would apply to
    while at < len(pattern):
        char = pattern[at]
        repetition = _REPETITION.match(pattern, at)
        if repetition is not None and repetition[0] != "{}":
            if last and repetition[0] != "?":
                raise ValueError("what is repeated holds a repetition or alternatives, which could take for ever")
            unbounded += repetition[0] in "*+" or (bool(repetition[2]) and not repetition[3])
            repetitions += 1
            last = ambiguous[-1] = True
            at = repetition.end()
            if pattern[at : at + 1] in ("?", "+"):  # lazy or possessive
                at += 1
            continue
        last = False
        if char == "\\":
            if pattern[at + 1 : at + 2] in tuple("123456789"):
                raise ValueError("references to groups could take for ever")
            at += 2
        elif char == "[":
            match = _CLASS.match(pattern, at)
            at = match.end() if match is not None else at + 1
        elif char == "(":
            match = _GROUP.match(pattern, at)
            at = match.end() if match is not None else at + 1
            if pattern[at : at + 1] == "?":
                raise ValueError("it holds a sort of group that is not supported")
            ambiguous.append(False)
        elif char == ")":
            last = ambiguous.pop() if len(ambiguous) > 1 else False
            ambiguous[-1] |= last
            at += 1
        else:
            ambiguous[-1] |= char == "|"
            at += 1
    if unbounded > MAX_UNBOUNDED or repetitions > MAX_REPETITIONS:
        raise ValueError("so many repetitions could take for ever")
