"""One comparison as a function of a value: what each kind of value can be compared with, and how."""

from __future__ import annotations

import json
import math
import operator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, TypeAlias

from keepsake.exceptions import InvalidQuery
from keepsake.query import literals
from keepsake.query.names import MISSING
from keepsake.query.patterns import searcher

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from keepsake.query.grammar import Condition, Literal

    Test: TypeAlias = Callable[[Any], bool]

STATUSES = ("running", "stopped", "failed")
OUTCOMES = ("finished", "failed", "interrupted")

NEGATIONS: Final = {"!=": "=", "!~": "~", "not in": "in", "missing": "exists"}
"""Operators that hold exactly where another one does not, so also where an experiment lacks the name."""

ORDERS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

_NUMBERS: Final = frozenset([int, float])
"""Types whose values have the order of numbers; a truth value is none of them."""


def compile_condition(condition: Condition, kind: str, now: datetime) -> Test:
    """Return a function that tells of a value, or of `MISSING`, whether it fulfils a condition.

    Args:
        condition: The condition.
        kind: What sort of values its name has: ``any`` for params and metrics, whose values say it themselves.
        now: The moment that ages are counted from.

    Raises:
        InvalidQuery: Values of this kind cannot be compared so.
    """
    test = _positive(condition, NEGATIONS.get(condition.operator, condition.operator), KINDS[kind], now)
    if condition.operator in NEGATIONS:
        return lambda value: not test(value)
    return test


def _positive(condition: Condition, sign: str, kind: Kind, now: datetime) -> Test:
    if sign == "exists":
        return lambda value: value is not MISSING
    if sign == "~":
        return _search(condition, kind)
    if sign in ORDERS:
        return _order(condition, kind, now)
    tests = [_equal(condition, literal, kind, now) for literal in condition.values]
    return tests[0] if len(tests) == 1 else lambda value: any(test(value) for test in tests)


# --- equality ---------------------------------------------------------------------------------------------------------


def _equal(condition: Condition, literal: Literal, kind: Kind, now: datetime) -> Test:
    if literal.value is None and kind.name != "any":
        return lambda value: value is MISSING
    return kind.equal(condition, literal, now)


def _equal_any(_condition: Condition, literal: Literal, _now: datetime) -> Test:
    """Compare with values that may be of any type, strictly: True is not 1, and "1" is compared with the text as it was written."""
    raw, wanted = literal.raw, literal.value
    if literal.quoted or isinstance(wanted, str):
        return lambda value: value == raw
    if wanted is None:
        # As in the original: a name that is not there has no value.
        return lambda value: value is None or value is MISSING or value == raw
    if isinstance(wanted, bool):
        return lambda value: value is wanted or value == raw
    if isinstance(wanted, float) and math.isnan(wanted):
        return lambda value: value != value or value == raw  # only NaN differs from itself
    return lambda value: value == raw if type(value) is str else value == wanted and type(value) is not bool


def _equal_text(_condition: Condition, literal: Literal, _now: datetime) -> Test:
    raw = literal.raw
    return lambda value: value == raw or (not raw and value is MISSING)


def _equal_id(condition: Condition, literal: Literal, now: datetime) -> Test:
    """Compare as the rest of keepsake does: the start of an ID stands for the whole."""
    start = literal.raw.lower()
    if not start:
        return _equal_text(condition, literal, now)
    return lambda value: isinstance(value, str) and value.startswith(start)


def _equal_member(_condition: Condition, literal: Literal, _now: datetime) -> Test:
    raw = literal.raw
    return lambda value: value is not MISSING and raw in value


def _equal_alias(_condition: Condition, literal: Literal, _now: datetime) -> Test:
    alias = literal.raw.removeprefix("@")
    return lambda value: value is not MISSING and alias in value


def _equal_status(condition: Condition, literal: Literal, _now: datetime) -> Test:
    word = _one_of(condition, literal, STATUSES)
    if word == "stopped":
        # As in the original: whatever does not run has stopped, however it ended.
        return lambda value: value != "running"
    return lambda value: value == word


def _equal_outcome(condition: Condition, literal: Literal, _now: datetime) -> Test:
    word = _one_of(condition, literal, OUTCOMES)
    return lambda value: value == word


def _one_of(condition: Condition, literal: Literal, words: tuple[str, ...]) -> str:
    word = literal.raw.lower()
    if word not in words:
        said = f"{', '.join(words[:-1])} or {words[-1]}"
        raise InvalidQuery(
            f'{condition.name} is {said}, never "{literal.raw}"', hint=f'keepsake ls -f "{condition.name} = {words[0]}"'
        )
    return word


def _equal_truth(condition: Condition, literal: Literal, _now: datetime) -> Test:
    if not isinstance(literal.value, bool):
        _clash(condition, literal, KINDS["truth"])
    wanted = literal.value
    return lambda value: value is wanted


def _equal_number(condition: Condition, literal: Literal, now: datetime) -> Test:
    wanted = _number(condition, literal, now)
    return lambda value: bool(value == wanted)


def _equal_time(condition: Condition, literal: Literal, now: datetime) -> Test:
    start, length = _moment(condition, literal, now)
    if length is None:
        raise InvalidQuery(
            f'"{condition.text}" asks for one moment, but {literal.raw} says how long ago',
            hint=f'keepsake ls -f "{condition.name} > {literal.raw}"',
        )
    # A date is the whole day, and 12:30 the whole minute.
    return lambda value: value is not MISSING and timedelta() <= value - start < length


def _equal_span(condition: Condition, literal: Literal, now: datetime) -> Test:
    wanted = _span(condition, literal, now)
    return lambda value: bool(value == wanted)


def _equal_size(condition: Condition, literal: Literal, now: datetime) -> Test:
    wanted = _size(condition, literal, now)
    return lambda value: bool(value == wanted)


def _equal_version(_condition: Condition, literal: Literal, _now: datetime) -> Test:
    raw, key = literal.raw, literals.version_key(literal.raw)
    if key is None or "+" in raw:
        return lambda value: value == raw
    return lambda value: isinstance(value, str) and literals.version_key(value) == key


# --- order ------------------------------------------------------------------------------------------------------------


def _order(condition: Condition, kind: Kind, now: datetime) -> Test:
    literal, compare = condition.values[0], ORDERS[condition.operator]
    wanted = literal.value
    if kind.operand is None:
        raise InvalidQuery(
            f"{condition.name} is {kind.said}, which has no order", hint=f'keepsake ls -f "{condition.name} = {literal.raw}"'
        )
    if wanted is None or isinstance(wanted, bool | list | dict) or (isinstance(wanted, float) and math.isnan(wanted)):
        raise InvalidQuery(
            f'"{condition.text}" asks for an order, but {literal.raw} has none',
            hint=f'keepsake ls -f "{condition.name} = {literal.raw}"',
        )
    operand = kind.operand(condition, literal, now)
    if kind.name == "version":
        return _version_order(compare, literal.raw)
    if isinstance(operand, str):
        return lambda value: isinstance(value, str) and compare(value, operand)
    if kind.name == "any":
        return lambda value: type(value) in _NUMBERS and compare(value, operand)
    return lambda value: value is not MISSING and not isinstance(value, str) and compare(value, operand)


def _version_order(compare: Callable[[Any, Any], bool], raw: str) -> Test:
    wanted = literals.version_key(raw)

    def test(value: Any) -> bool:
        if not isinstance(value, str):
            return False
        key = literals.version_key(value) if wanted is not None else None
        # Where either is no version, both are texts.
        return compare(key, wanted) if key is not None else compare(value, raw)

    return test


def _plain(_condition: Condition, literal: Literal, _now: datetime) -> Any:
    return literal.value


def _number(condition: Condition, literal: Literal, _now: datetime) -> float:
    if not isinstance(literal.value, int | float) or isinstance(literal.value, bool):
        _clash(condition, literal, KINDS["number"])
    return literal.value


def _moment(condition: Condition, literal: Literal, now: datetime) -> tuple[datetime, timedelta | None]:
    try:
        return literals.moment(literal.raw, now)
    except ValueError as err:
        _clash(condition, literal, KINDS["time"], err)


def _span(condition: Condition, literal: Literal, _now: datetime) -> float:
    try:
        return literals.span_s(literal.raw)
    except ValueError as err:
        _clash(condition, literal, KINDS["span"], err)


def _size(condition: Condition, literal: Literal, _now: datetime) -> float:
    try:
        return literals.size_bytes(literal.raw)
    except ValueError as err:
        _clash(condition, literal, KINDS["size"], err)


def _clash(condition: Condition, literal: Literal, kind: Kind, cause: Exception | None = None) -> NoReturn:
    raise InvalidQuery(
        f'{condition.name} is {kind.said}, cannot compare with "{literal.raw}"',
        hint=f'keepsake ls -f "{condition.name} {kind.example}"',
    ) from cause


# --- search -----------------------------------------------------------------------------------------------------------


def _search(condition: Condition, kind: Kind) -> Test:
    if kind.name in ("time", "span", "size", "truth"):
        raise InvalidQuery(
            f"{condition.name} is {kind.said}, which has no text to search",
            hint=f'keepsake ls -f "{condition.name} {kind.example}"',
        )
    found = searcher(condition.values[0].raw)
    if kind.name in ("tags", "aliases"):
        return lambda value: value is not MISSING and any(found(one) for one in value)

    def test(value: Any) -> bool:
        if isinstance(value, str):
            return found(value)
        return value is not MISSING and value is not None and found(json.dumps(value, ensure_ascii=False))

    return test


# --- kinds ------------------------------------------------------------------------------------------------------------


class Kind(NamedTuple):
    """A sort of values.

    Args:
        name: Its name in this package.
        said: What people call it.
        example: An operator and a value that fit.
        equal: Makes the test for equality with a value as it was written.
        operand: Makes what a value is compared with by order; None for a kind without order.
    """

    name: str
    said: str
    example: str
    equal: Callable[[Condition, Literal, datetime], Test]
    operand: Callable[[Condition, Literal, datetime], Any] | None = None


KINDS: Final[dict[str, Kind]] = {
    kind.name: kind
    for kind in (
        Kind("any", "a value", "= 1", _equal_any, _plain),
        Kind("text", "a text", "= ana", _equal_text, lambda _condition, literal, _now: literal.raw),
        Kind("id", "an ID", "= 4591273", _equal_id),
        Kind("tags", "a set of tags", "= prod", _equal_member),
        Kind("aliases", "a set of aliases", "= production", _equal_alias),
        Kind("status", "a word", "= running", _equal_status),
        Kind("outcome", "a word", "= finished", _equal_outcome),
        Kind("truth", "true or false", "= true", _equal_truth),
        Kind("number", "a number", ">= 100", _equal_number, _number),
        Kind("time", "a time", "> 2026-11-01", _equal_time, lambda *written: _moment(*written)[0]),
        Kind("span", "a span of time", "< 2h", _equal_span, _span),
        Kind("size", "a size", "> 1GB", _equal_size, _size),
        Kind("version", "a version", ">= 2.1", _equal_version, _plain),
    )
}
"""Sorts of values by name."""


def kind_of(value: Any) -> str:
    """Return what people call the kind of a param's or a metric's value."""
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a text"
    return "an object" if isinstance(value, dict) else "a list"


def comparable_kinds(condition: Condition) -> set[str] | None:
    """Return the kinds of values that could fulfil a condition on a param or metric; None where any could."""
    if condition.operator in ("exists", "missing", "~", "!~"):
        return None
    kinds = set()
    for literal in condition.values:
        if literal.value is None:
            return None
        kinds.add("a text" if literal.quoted else kind_of(literal.value))
        if condition.operator not in ORDERS:
            kinds.add("a text")
    return kinds
