"""Errors survive the way between processes, and the drawn tree is the real one."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import pytest

from keepsake import exceptions
from keepsake.exceptions import KeepsakeError, StorageError

CLASSES = [kind for _, kind in inspect.getmembers(exceptions, inspect.isclass) if issubclass(kind, KeepsakeError)]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_an_error_survives_pickling(kind: type[KeepsakeError]) -> None:
    extra = {"url": "file:///x", "key": "a/b"} if issubclass(kind, StorageError) else {}
    error = kind("what failed", facts=["a fact"], hint="keepsake ls", **extra)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert again.__dict__ == error.__dict__
    assert str(again) == str(error) == "what failed\na fact\nhint: keepsake ls"
    assert again.args == ("what failed",)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_an_error_survives_the_way_from_a_worker(kind: type[KeepsakeError]) -> None:
    """Pools pickle what their workers raise; a traceback that is lost on the way must not take the error with it."""
    try:
        raise kind("what failed") from OSError(28, "No space left on device")
    except KeepsakeError as error:
        error.add_note("while saving")
        again = copy.deepcopy(error)
    assert type(again) is kind
    assert str(again) == "what failed"
    assert again.__notes__ == ["while saving"]
    assert (again.facts, again.hint) == ((), None)


def test_an_error_is_caught_by_its_name_in_the_standard_library() -> None:
    for kind in CLASSES:
        for base in kind.__bases__:
            with pytest.raises(base):
                raise kind("what failed")


def test_every_class_says_what_it_means() -> None:
    assert all(kind.__doc__ and kind.__doc__.splitlines()[0].endswith(".") for kind in CLASSES)


def test_the_drawn_tree_is_the_real_one() -> None:
    drawn: dict[str, tuple[str, str]] = {}
    path: list[str] = []
    for line in (exceptions.__doc__ or "").splitlines():
        found = re.match(r"^    ([ │├└─]*)(\w+)\(?(?:Exception\))?(?:\s+\(\+ (\w+)\))?", line)
        if found and found[2][0].isupper() and hasattr(exceptions, found[2]):
            depth = len(found[1]) // 4
            path[depth:] = [found[2]]
            drawn[found[2]] = (path[depth - 1] if depth else "Exception", found[3] or "")
    real = {
        kind.__name__: (kind.__bases__[0].__name__, kind.__bases__[1].__name__ if len(kind.__bases__) > 1 else "")
        for kind in CLASSES
    }
    assert drawn == real
