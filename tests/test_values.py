"""Whatever a training program has at hand becomes JSON. Values of frameworks are tried in tests/frameworks."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import json
import math
import re
import types
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from keepsake import values
from keepsake.values import Value, convert, convert_metrics, convert_params, flatten


class Color(enum.Enum):
    RED = "red"
    PAIR = (1, 2)


class Level(enum.IntEnum):
    LOW = 1


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Optimizer:
    name: str
    lr: decimal.Decimal
    betas: tuple[float, float] = (0.9, 0.999)


class Settings:
    """Has attributes only."""

    def __init__(self) -> None:
        self.lr = 0.1
        self._secret = 1


class Thing:
    """Has nothing, not even a text of its own."""


class Raises:
    """Raises whatever it is asked."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")

    @property
    def dtype(self) -> object:
        raise RuntimeError("no type")

    def __len__(self) -> int:
        raise RuntimeError("no length")


class Enormous:
    """Has a text that is too long."""

    def __repr__(self) -> str:
        return "x" * 1_000_000


class Callback:
    """Must not be called."""

    def __call__(self) -> None:
        raise AssertionError("called")


class Model:
    """Looks like a PyTorch module."""

    def state_dict(self) -> None:
        raise AssertionError("called")

    def __call__(self) -> None:
        raise AssertionError("called")

    def __repr__(self) -> str:
        raise AssertionError("printed")


class Missing(Mapping[str, Any]):
    """Refuses some of its values, as OmegaConf does for those that were not given."""

    def __getitem__(self, key: str) -> object:
        if key == "missing":
            raise ValueError("missing mandatory value")
        return key.upper()

    def __iter__(self) -> Iterator[str]:
        return iter(["a", "missing", "b"])

    def __len__(self) -> int:
        return 3


class Endless(Mapping[str, Any]):
    """Never stops."""

    def __getitem__(self, key: str) -> object:
        return Endless()

    def __iter__(self) -> Iterator[str]:
        number = 0
        while True:
            number += 1
            yield str(number)

    def __len__(self) -> int:
        return 1


class EndlesslyMissing(Endless):
    """Never stops, and never gives anything."""

    def __getitem__(self, key: str) -> object:
        raise KeyError(key)


class FakeArray:
    """The attributes of an array."""

    def __init__(self, elements: Any, shape: tuple[int | None, ...], dtype: object = "float32") -> None:
        self.elements, self.shape, self.dtype = elements, shape, dtype

    def item(self) -> object:
        return self.elements

    def tolist(self) -> object:
        return self.elements


def plain_function() -> None:
    raise AssertionError("called")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (0, 0),
        (-(2**63), -(2**63)),
        (2**63, "9223372036854775808"),
        (1.5, 1.5),
        (math.inf, math.inf),
        ("text", "text"),
        (Color.RED, "red"),
        (Color.PAIR, [1, 2]),
        (Level.LOW, 1),
        (Path("runs") / "a", str(Path("runs/a"))),
        (PurePosixPath("/data"), "/data"),
        (decimal.Decimal("0.001"), 0.001),
        (decimal.Decimal("-Infinity"), -math.inf),
        (fractions.Fraction(1, 4), 0.25),
        (1 + 2j, "(1+2j)"),
        (b"\xff", "b'\\xff'"),
        (bytearray(b"ab"), "b'ab'"),
        (datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC), "2026-01-02T03:04:05+00:00"),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (datetime.time(3, 4), "03:04:00"),
        (datetime.timedelta(minutes=2), 120.0),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (re.compile("a+"), "a+"),
        ((1, 2), [1, 2]),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset({"b", "a", 1, None}), [1, None, "a", "b"]),
        (collections.deque([1, 2]), [1, 2]),
        ({"a": 1}.values(), [1]),
        (range(3), [0, 1, 2]),
        (range(10**12), "range(0, 1000000000000)"),
        (Point(1, 2), {"x": 1, "y": 2}),
        (Optimizer("sgd", decimal.Decimal("0.1")), {"name": "sgd", "lr": 0.1, "betas": [0.9, 0.999]}),
        (argparse.Namespace(lr=1, nested=argparse.Namespace(a=2)), {"lr": 1, "nested": {"a": 2}}),
        (types.SimpleNamespace(a=1), {"a": 1}),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        (
            {1: "a", None: "b", (1, 2): "c", Color.RED: "d", 1.5: "e"},
            {"1": "a", "None": "b", "(1, 2)": "c", "red": "d", "1.5": "e"},
        ),
        (math.tanh, "math.tanh"),
        (len, "len"),
        (int, "int"),
        (list[int], "list[int]"),
        (int | None, "int | None"),
        (json, "json"),
        (plain_function, f"{__name__}.plain_function"),
        (Optimizer, f"{__name__}.Optimizer"),
        (functools.partial(Optimizer, "sgd", lr=0.1), f"functools.partial({__name__}.Optimizer, 'sgd', lr=0.1)"),
        (Model(), f"{__name__}.Model"),
        (FakeArray(3.0, ()), 3.0),
        (FakeArray([1.0, 2.0], (2,)), [1.0, 2.0]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_that_have_an_obvious_form_get_it_without_a_warning(value: object, expected: Value) -> None:
    assert convert_params({"name": value}) == ({"name": expected}, [])
    assert convert(value) == expected
    assert type(convert(value)) is type(expected)


def test_nan_stays_a_number() -> None:
    assert math.isnan(convert_metrics({"loss": math.nan})[0]["loss"])  # type: ignore[arg-type]


def test_text_is_valid_unicode() -> None:
    assert convert("a\ud800b") == "a�b"
    assert convert("\ud83d\ude00") == "😀"
    assert convert({"k\udcff": 1}) == {"k�": 1}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Thing(), f"{__name__}.Thing"),
        (object(), "object"),
        (Raises(), f"<{__name__}.Raises>"),
        (Callback(), f"{__name__}.Callback"),
        (iter([1]), "list_iterator"),
        (decimal.Decimal("sNaN"), "Decimal('sNaN')"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_json_cannot_hold_becomes_text_and_the_warning_names_it(value: object, expected: str) -> None:
    converted, problems = convert_params({"lr": 0.1, "model": {"part": value}})
    assert converted == {"lr": 0.1, "model": {"part": expected}}
    [problem] = problems
    assert problem.startswith('param "model.part" is a')
    assert problem.endswith(", stored as text")


def test_long_texts_are_cut() -> None:
    text = convert(Enormous())
    assert isinstance(text, str)
    assert len(text) == values.MAX_TEXT_LENGTH
    converted, [problem] = convert_params({"prompt": "y" * 200_000})
    assert len(str(converted["prompt"])) == values.MAX_STRING_LENGTH + 1
    assert problem == 'param "prompt" has 200,000 characters, cut at 100,000'
    assert len(str(convert(10**100_000))) <= values.MAX_TEXT_LENGTH


def test_the_text_of_an_object_does_not_change_from_process_to_process() -> None:
    assert convert([iter([1]), plain_function.__get__(Thing())]) == ["list_iterator", f"{__name__}.plain_function"]


def test_circles_end() -> None:
    circle: list[Any] = [1]
    circle.append(circle)
    knot: dict[str, Any] = {}
    knot["inner"] = {"outer": knot}
    converted, problems = convert_params({"circle": circle, "knot": knot, "twice": [knot, knot]})
    assert converted["circle"] == [1, "..."]
    assert converted["knot"] == {"inner": {"outer": "..."}}
    assert any('param "circle[1]" contains itself' in problem for problem in problems)
    params: dict[str, Any] = {}
    params["self"] = params
    assert convert_params(params)[0] == {"self": "..."}


def test_the_same_list_twice_is_no_circle() -> None:
    shared = [1]
    assert convert([shared, shared]) == [[1], [1]]


def test_very_deep_values_end_in_text() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    converted, [problem] = convert_params({"deep": deep})
    assert json.dumps(converted).count("[") < 100
    assert "nested more than 32 deep" in problem


def test_very_large_values_do_not_grow_the_record() -> None:
    converted, problems = convert_params({"ids": list(range(1_000_000)), "lr": 0.1})
    assert converted == {"ids": "list of 1000000 items", "lr": 0.1}
    assert problems == ['param "ids" is too large, stored as its type and length']
    for value in (Endless(), [Endless()] * 3, EndlesslyMissing(), [[0] * 100] * 1000):
        assert len(json.dumps(convert_params({"a": value})[0])) < 1_000_000
        assert len(json.dumps(convert_params(value)[0])) < 1_000_000


def test_large_arrays_are_stored_as_one_line() -> None:
    array = FakeArray([[0.0] * 100] * 100, (100, 100))
    assert convert_params({"a": array}) == (
        {"a": "array((100, 100), float32)"},
        ['param "a" is an array of shape (100, 100), stored as its shape and type'],
    )
    assert convert(FakeArray(None, (None, 3))) == "array((None, 3), float32)"


def test_an_array_of_one_element_is_a_number_among_metrics_only() -> None:
    assert convert_metrics({"loss": FakeArray(0.5, (1, 1))})[0] == {"loss": 0.5}
    assert convert_params({"loss": FakeArray([[0.5]], (1, 1))})[0] == {"loss": [[0.5]]}


def test_a_mapping_that_refuses_a_value_gives_the_others() -> None:
    converted, problems = convert_params(Missing())
    assert converted == {"a": "A", "missing": None, "b": "B"}
    assert problems == ['param "missing" cannot be read: ValueError']


def test_keys_of_the_same_spelling_are_said() -> None:
    converted, [problem] = convert_params({1: "number", "1": "text"})
    assert converted == {"1": "text"}
    assert 'param "1" is there twice' in problem


def test_many_problems_are_counted_and_not_all_said() -> None:
    _, problems = convert_params({f"p{number}": Thing() for number in range(50)})
    assert len(problems) == values.MAX_PROBLEMS + 1
    assert problems[-1] == "40 more params could not be stored as they are"


@pytest.mark.parametrize("params", [None, {}, argparse.Namespace()])
def test_no_params_are_no_params(params: object) -> None:
    assert convert_params(params) == ({}, [])


def test_params_may_be_any_object_with_names() -> None:
    assert convert_params(argparse.Namespace(lr=0.1)) == ({"lr": 0.1}, [])
    assert convert_params(Optimizer("sgd", decimal.Decimal(1)))[0]["lr"] == 1.0
    assert convert_params(Settings()) == ({"lr": 0.1}, [])
    assert convert_params(Point(1, 2)) == ({"x": 1, "y": 2}, [])


@pytest.mark.parametrize(
    ("params", "expected"),
    [([1, 2], "[1, 2]"), ("lr=1", "'lr=1'"), (0.5, "0.5"), (Optimizer, repr(Optimizer)), (Callback(), f"{__name__}.Callback")],
)
def test_params_without_names_are_kept_as_one_text(params: object, expected: str) -> None:
    converted, [problem] = convert_params(params)
    assert converted == {"params": expected}
    assert problem.startswith("params must be a dict of names and values, not a")


def test_flatten_joins_names_with_dots() -> None:
    assert flatten({"a": 1, "b": {"c": {"d": 2}, "e": {}}, "f": [{"g": 1}]}) == {"a": 1, "b.c.d": 2, "b.e": {}, "f": [{"g": 1}]}


SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters()),
    st.text(st.characters(categories=["Cs"])),
    st.binary(),
    st.decimals(),
    st.fractions(),
    st.complex_numbers(),
    st.datetimes(),
    st.timedeltas(),
    st.sampled_from([Color.RED, Level.LOW, int, len]),
    st.sampled_from([Thing, Raises, Enormous, Callback, Model, Missing]).map(lambda kind: kind()),
    st.builds(FakeArray, st.floats() | st.none() | st.text(), st.just(())),
)
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner),
        st.lists(inner).map(tuple),
        st.dictionaries(st.none() | st.integers() | st.text(st.characters()) | st.binary() | st.tuples(st.floats()), inner),
        st.dictionaries(st.from_regex("[a-z]+", fullmatch=True), inner).map(lambda items: argparse.Namespace(**items)),
        st.builds(FakeArray, inner, st.just((2,))),
        st.builds(Point, inner, inner),
    ),
    max_leaves=10,
)


@given(ANYTHING)
def test_whatever_comes_json_can_hold_it(value: object) -> None:
    for converted in (
        convert(value),
        convert_params(value)[0],
        convert_metrics({"m": value})[0],
        convert_params({"p": value})[0],
    ):
        json.dumps(converted, ensure_ascii=False).encode()


@given(ANYTHING)
def test_converting_again_changes_nothing(value: object) -> None:
    converted, problems = convert_params({"p": value})
    if not problems:
        again, problems = convert_params(converted)
        assert problems == []
        assert json.dumps(again) == json.dumps(converted)


@given(ANYTHING)
@example({"\n": Thing()})
@example({"\x1b[2J\u2028\ud800": Thing()})
def test_warnings_are_single_lines_of_valid_text(value: object) -> None:
    for problem in convert_params({"a": value})[1]:
        problem.encode()
        assert problem.isprintable()


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.none() | st.integers() | st.text("ab")))
def test_json_objects_stay_as_they_are(values: dict[str, Any]) -> None:
    in_64_bits = {k: v for k, v in values.items() if not isinstance(v, int) or -(2**63) <= v < 2**63}
    assert convert_params(in_64_bits) == (in_64_bits, [])
