"""The filter language: which experiments fulfil a condition that a person has written.

`keepsake.query.grammar` says how filters are written, `keepsake.query.names` what their names mean, and
`keepsake.query.conditions` what can be compared with what.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from keepsake.exceptions import InvalidQuery
from keepsake.query.conditions import ORDERS, comparable_kinds, compile_condition, kind_of
from keepsake.query.grammar import And, Condition, Not, parse_tree
from keepsake.query.names import MISSING, Name, check_name, resolve, shadowed
from keepsake.repository.json_values import is_comparable, utc_now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime

    from keepsake.query.grammar import Tree
    from keepsake.repository.summary import Summary

    Predicate: TypeAlias = Callable[[Summary], bool]


class Filter:
    """What experiments are asked to fulfil; made by `parse`.

    Args:
        text: As it was written.
        tree: What it says.
        now: The moment that ages such as ``2d`` are counted from.

    Raises:
        InvalidQuery: A field cannot be compared so.
    """

    __slots__ = ("_conditions", "_matches", "text", "tree")

    def __init__(self, text: str, tree: Tree, now: datetime) -> None:
        self.text = text
        self.tree = tree
        self._conditions = [(one, resolve(one.name, now)) for one in _conditions(tree)]
        self._matches = _compiled(tree, now)

    def __repr__(self) -> str:
        return f"<Filter {self.text}>"

    def names(self) -> list[str]:
        """Return the names that it asks for, each once."""
        return list(dict.fromkeys(condition.name for condition, _ in self._conditions))

    def matches(self, summary: Summary) -> bool:
        """Tell whether an experiment fulfils it.

        One that lacks a name fulfils only what is negative about it: ``!=``, ``!~``, ``not in``, ``missing``, ``not ...``, and ``= none``.
        """
        return self._matches(summary)

    def check(self, summaries: Sequence[Summary]) -> None:
        """Raise `InvalidQuery` for a name that no experiment has, or whose values are all of another kind than the one given."""
        for condition, name in self._conditions:
            _check(condition, name, summaries)


def parse(text: str, *, now: datetime | None = None) -> Filter:
    """Parse a filter and compile it.

    Args:
        text: Such as ``val_loss < 0.2 and (optimizer = adam or tag = prod)``.
        now: The moment that ages such as ``2d`` are counted from; default: this one.

    Raises:
        InvalidQuery: It is no filter, or compares a field with what it cannot be compared with.

    Example:
        >>> parse("val/loss <= 1e-3 and not optim.name in (adam, sgd)").names()
        ['val/loss', 'optim.name']
    """
    return Filter(text.strip(), parse_tree(text), now or utc_now())


def select(summaries: Sequence[Summary], filters: Iterable[Filter]) -> list[Summary]:
    """Return the experiments that fulfil all filters, in their order.

    Raises:
        InvalidQuery: A name exists in none of them, or its values cannot be compared with the one given.
    """
    selected = list(summaries)
    for one in filters:
        one.check(summaries)
        selected = [summary for summary in selected if one.matches(summary)]
    return selected


def nearest(summaries: Sequence[Summary], filters: Sequence[Filter]) -> tuple[str, float, Summary] | None:
    """Return how near experiments come to one comparison that none of them fulfils.

    Returns:
        What the nearest value is (``best``, ``lowest`` or ``highest``), the value, and its experiment; None where something else is
        asked for than the order of numbers.
    """
    condition = filters[0].tree if len(filters) == 1 else None
    if not isinstance(condition, Condition) or condition.operator not in ORDERS:
        return None
    name = resolve(condition.name)
    if name.kind not in ("any", "number"):
        return None
    values = [(name.value_of(summary), summary) for summary in summaries]
    numbers = [(value, summary) for value, summary in values if is_comparable(value)]
    if not numbers:
        return None
    wants_low = condition.operator.startswith("<")
    value, summary = (min if wants_low else max)(numbers, key=lambda pair: pair[0])
    metric = summary.primary_metric
    asked = {condition.name, condition.name.removeprefix("best.").removeprefix("metric.")}
    is_goal = metric is not None and metric.name in asked and (metric.goal == "minimize") == wants_low
    return "best" if is_goal else "lowest" if wants_low else "highest", value, summary


def _conditions(tree: Tree) -> Iterator[Condition]:
    if isinstance(tree, Condition):
        yield tree
    elif isinstance(tree, Not):
        yield from _conditions(tree.part)
    else:
        for part in tree.parts:
            yield from _conditions(part)


# --- tree to function -------------------------------------------------------------------------------------------------


def _compiled(tree: Tree, now: datetime) -> Predicate:
    if isinstance(tree, Condition):
        return _compiled_condition(tree, now)
    if isinstance(tree, Not):
        part = _compiled(tree.part, now)
        return lambda summary: not part(summary)
    parts = [_compiled(one, now) for one in tree.parts]
    if isinstance(tree, And):
        return lambda summary: all(part(summary) for part in parts)
    return lambda summary: any(part(summary) for part in parts)


def _compiled_condition(condition: Condition, now: datetime) -> Predicate:
    name = resolve(condition.name, now)
    test = compile_condition(condition, name.kind, now)
    if name.exact is None or name.prefixed is None:
        value_of = name.value_of
        return lambda summary: test(value_of(summary))
    exact, prefixed, test_exact = name.exact, name.prefixed, compile_condition(condition, "any", now)

    def matches(summary: Summary) -> bool:
        value = exact(summary)
        return test(prefixed(summary)) if value is MISSING else test_exact(value)

    return matches


# --- what makes no sense ----------------------------------------------------------------------------------------------


def _check(condition: Condition, name: Name, summaries: Sequence[Summary]) -> None:
    """Refuse a condition that no experiment could fulfil, since none has the name or a value of a kind that fits."""
    wanted = comparable_kinds(condition) if name.kind == "any" else None
    if name.kind == "text":
        _check_order_of_text(condition, summaries)
    if wanted is None:
        check_name(name, summaries)
        return
    kinds: set[str] = set()
    present = 0
    for summary in summaries:
        value = name.value_of(summary)
        if value is MISSING or value is None:
            continue
        kind = kind_of(value)
        if kind in wanted:
            return
        kinds.add(kind)
        present += 1
    if not kinds:
        check_name(name, summaries)
    elif len(kinds) == 1:
        # "All" must not be claimed of experiments that lack the name.
        which, having = ("all", "") if present == len(summaries) else ("the", f" that {'has' if present == 1 else 'have'} it")
        experiments = f"{present:,} experiment{'' if present == 1 else 's'}"
        kind = kinds.pop()
        as_text = kind == "a text" and condition.operator in ORDERS
        raise InvalidQuery(
            f"{condition.name} is {kind} in {which} {experiments}{having}, cannot compare with {_written(condition)}",
            hint=_quoted_instead(condition) if as_text else None,
        )


def _check_order_of_text(condition: Condition, summaries: Sequence[Summary]) -> None:
    """Refuse to order the texts of a field by a number, most likely meant for a metric or a param of the same name."""
    if condition.operator not in ORDERS or isinstance(condition.values[0].value, str):
        return
    meant = shadowed([condition.name], summaries)
    raise InvalidQuery(
        f"{condition.name} is a text, cannot compare with {_written(condition)}",
        hint=f"did you mean {' or '.join(meant)}?" if meant else _quoted_instead(condition),
    )


def _written(condition: Condition) -> str:
    written = ", ".join(str(value) for value in condition.values)
    return written if len(condition.values) == 1 else f"({written})"


def _quoted_instead(condition: Condition) -> str:
    return f"""keepsake ls -f '{condition.name} {condition.operator} "{condition.values[0].raw}"'"""
