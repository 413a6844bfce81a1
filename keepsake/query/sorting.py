"""The order of experiments by any names."""

from __future__ import annotations

from datetime import datetime
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from keepsake.query.names import MISSING, check_name, exists, resolve

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from keepsake.query.names import Name
    from keepsake.repository.summary import Summary


class SortKey(NamedTuple):
    """One thing to sort by.

    Args:
        name: The name.
        descending: Whether the greatest comes first.
    """

    name: str
    descending: bool


def sort(summaries: Iterable[Summary], keys: str | Sequence[str], *, among: Sequence[Summary] | None = None) -> list[Summary]:
    """Return experiments sorted by names; those without a value, and with NaN, come last in either direction.

    Experiments that are equal keep the order in which they came.

    Args:
        summaries: The experiments.
        keys: What to sort by, the most important first: a name; ``-name`` or ``name-desc`` for the other direction; several with
            commas.
        among: The experiments that say which names there are, where those to sort were chosen from more; default: these themselves.

    Raises:
        InvalidQuery: A name exists in none of them.
    """
    ordered = list(summaries)
    everything = ordered if among is None else among
    # A sort keeps what an earlier one did to equals.
    for key in reversed(sort_keys(keys, everything)):
        name = resolve(key.name)
        check_name(name, everything)
        ordered = _sorted(ordered, name, descending=key.descending)
    return ordered


def sort_keys(keys: str | Sequence[str], summaries: Sequence[Summary]) -> list[SortKey]:
    """Return what sort keys ask for; a name may itself look like a key, and is one where it makes no sense otherwise."""
    found: list[SortKey] = []
    for key in [keys] if isinstance(keys, str) else keys:
        parts = [key] if "," not in key or _exists(key, summaries) else key.split(",")
        found += [_sort_key(part.strip(), summaries) for part in parts if part.strip()]
    return found


def _sort_key(key: str, summaries: Sequence[Summary]) -> SortKey:
    meant = [SortKey(key[1:], descending=True)] if key.startswith("-") else []
    meant += [SortKey(key.removesuffix(end), end == "-desc") for end in ("-desc", "-asc") if key.endswith(end)]
    return next(
        (one for one in [*meant, SortKey(key, descending=False)] if _exists(one.name, summaries)),
        meant[0] if meant else SortKey(key, descending=False),
    )


def _exists(name: str, summaries: Sequence[Summary]) -> bool:
    return bool(summaries) and exists(resolve(name), summaries)


def _sorted(summaries: list[Summary], name: Name, *, descending: bool) -> list[Summary]:
    present: list[tuple[Any, Summary]] = []
    last: list[Summary] = []
    for summary in summaries:
        value = name.value_of(summary)
        if value is MISSING or value is None or value != value:  # only NaN differs from itself
            last.append(summary)
        else:
            present.append((value, summary))
    is_version = name.kind == "version"
    kinds = {type(value) for value, _ in present}
    if is_version or not any(kinds <= alike for alike in _ALIKE):
        present = [(_rank(value, is_version=is_version), summary) for value, summary in present]
    present.sort(key=itemgetter(0), reverse=descending)
    return [summary for _, summary in present] + last


_ALIKE = ({int, float}, {str}, {datetime})
"""Types whose values can be compared with each other as they are."""


def _rank(value: Any, *, is_version: bool) -> tuple[int, Any]:
    """Return what orders values of several types: numbers first, then each type by itself."""
    kind = type(value)
    if kind is float or kind is int:
        return 0, value
    if kind is bool:
        return 3, value
    if kind is str:
        version = _version_key(value) if is_version else None
        return (1, version) if version is not None else (2, value)
    return (4, value) if isinstance(value, datetime) else (5, str(value))


def _version_key(version: str) -> Any:
    # Few sort by versions, and all who sort would wait for what reads them.
    from keepsake.query.literals import version_key

    return version_key(version)
