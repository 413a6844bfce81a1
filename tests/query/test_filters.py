"""Filters mean what they say, for whatever a person may write and whatever may be recorded."""

from __future__ import annotations

import math
import operator
import re
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepsake.exceptions import InvalidQuery
from keepsake.query.filters import nearest, parse, select
from keepsake.repository.primary_metric import PrimaryMetric
from keepsake.repository.status import Heartbeat
from keepsake.repository.summary import Summary
from tests.query.summaries import LOSS, NOW, START, checkpoint, matches, summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# --- any expression, against an evaluator that shares nothing with ours -------------------------------------------------

ABSENT = object()
NAMES = ["a", "b c", "val/loss", "optim.lr", 'quo"te', "it's", "and", "NOT x", "in", "best.x", "(y)"]
SIGNS = {"=": operator.eq, "==": operator.eq, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
CLAUSES = {"!=": "=", "not in": "in", "missing": "exists", "!~": "~"}

numbers = st.integers(-3, 3) | st.sampled_from([0.5, -1.5, 1e300, math.inf, -math.inf])
texts = st.text(alphabet="ab'\" ()=1.é", max_size=3)
recorded = st.one_of(
    numbers, st.booleans(), st.none(), st.just(math.nan), texts, st.sampled_from([[1, 2], [1, "a"], [], {"k": 1}])
)
params = st.dictionaries(st.sampled_from(NAMES), recorded, max_size=len(NAMES))

# A value is how it is written, and what it is: ("quoted", text) or ("bare", value, raw).
values = st.one_of(
    texts.map(lambda text: ("quoted", text)),
    st.one_of(
        numbers, st.booleans(), st.none(), st.just(math.nan), st.sampled_from(["ab", "a b", "a(b, c)", [1, 2], {"k": 1}])
    ).map(lambda value: ("bare", value)),
)
ordered = texts.map(lambda text: ("quoted", text)) | numbers.map(lambda value: ("bare", value))
names = st.sampled_from(NAMES)
comparisons = st.one_of(
    st.tuples(st.just("compare"), names, st.sampled_from(["=", "==", "!="]), values),
    st.tuples(st.just("compare"), names, st.sampled_from(["<", "<=", ">", ">="]), ordered),
    st.tuples(
        st.just("compare"),
        names,
        st.sampled_from(["~", "!~"]),
        st.sampled_from(["a", "^A", "1$", "B|1"]).map(lambda text: ("quoted", text)),
    ),
    st.tuples(st.just("compare"), names, st.sampled_from(["in", "not in"]), st.lists(values, min_size=1, max_size=3)),
    st.tuples(st.just("compare"), names, st.sampled_from(["exists", "missing"]), st.none()),
)
trees = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.tuples(st.just("not"), inner), st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, min_size=2, max_size=3))
    ),
    max_leaves=8,
)


def evaluate(tree: Any, present: dict[str, Any]) -> bool:
    """Say what a tree means for params, as `keepsake help filters` has it."""
    if tree[0] == "not":
        return not evaluate(tree[1], present)
    if tree[0] in ("and", "or"):
        outcomes = [evaluate(part, present) for part in tree[1]]
        return all(outcomes) if tree[0] == "and" else any(outcomes)
    _, name, sign, wanted = tree
    if sign in CLAUSES:
        return not evaluate(("compare", name, CLAUSES[sign], wanted), present)
    found = present.get(name, ABSENT)
    if sign == "exists":
        return found is not ABSENT
    if sign == "in":
        return any(equals(found, one) for one in wanted)
    if sign in ("=", "=="):
        return equals(found, wanted)
    if found is ABSENT or found is None:
        return False
    if sign == "~":
        return re.search(wanted[1], found if isinstance(found, str) else written(found), re.IGNORECASE) is not None
    number = isinstance(found, int | float) and not isinstance(found, bool)
    if wanted[0] == "quoted":
        return isinstance(found, str) and SIGNS[sign](found, wanted[1])
    return number and SIGNS[sign](found, wanted[1])


def equals(found: Any, wanted: Any) -> bool:
    how, value = wanted
    if how == "quoted":
        return isinstance(found, str) and found == value
    if isinstance(found, str):
        # A text is compared with what was written, whatever that means otherwise.
        return found == (value if isinstance(value, str) else written(value))
    if value is None:
        return found is None or found is ABSENT
    if isinstance(value, float) and math.isnan(value):
        return isinstance(found, float) and math.isnan(found)
    return (
        found is not ABSENT
        and type(found is True) is bool
        and isinstance(found, bool) == isinstance(value, bool)
        and found == value
    )


def written(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | dict):
        return (
            "[" + ", ".join(f'"{one}"' if isinstance(one, str) else str(one) for one in value) + "]"
            if isinstance(value, list)
            else '{"k": 1}'
        )
    if isinstance(value, float) and not math.isfinite(value):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[repr(value)]
    return value if isinstance(value, str) else repr(value)


@st.composite
def printed(draw: st.DrawFn, tree: Any, level: int = 0) -> str:
    """Write a tree down in one of many ways; `level` is how closely the surroundings bind: 0 or, 1 and, 2 not."""
    space = draw(st.sampled_from([" ", "  ", "\n"]))
    binding = {"or": 0, "and": 1, "not": 2, "compare": 3}[tree[0]]
    if tree[0] == "compare":
        text = draw(printed_comparison(tree))
    elif tree[0] == "not":
        text = draw(st.sampled_from(["not", "NOT"])) + space + draw(printed(tree[1], 2))
    else:
        # A part of the same sort needs parentheses, or it would become one with the whole; the meaning is the same.
        parts = [draw(printed(part, binding)) for part in tree[1]]
        text = f"{space}{draw(st.sampled_from([tree[0], tree[0].upper()]))}{space}".join(parts)
    return f"({text})" if binding < level or draw(st.integers(0, 9)) == 0 else text


@st.composite
def printed_comparison(draw: st.DrawFn, tree: Any) -> str:
    _, name, sign, wanted = tree
    plain = name in ("a", "b c", "val/loss", "optim.lr", "it's", "in", "best.x")
    text = name if plain and draw(st.booleans()) else quoted(name, draw(st.sampled_from("'\"")))
    if sign in ("exists", "missing"):
        return f"{text} {sign}"
    if sign in ("in", "not in"):
        return f"{text} {sign} ({', '.join([draw(printed_value(one)) for one in wanted])})"
    space = draw(st.sampled_from(["", " "]))
    return f"{text}{space}{sign}{space}{draw(printed_value(wanted))}"


@st.composite
def printed_value(draw: st.DrawFn, value: Any) -> str:
    return quoted(value[1], draw(st.sampled_from("'\""))) if value[0] == "quoted" else written(value[1])


def quoted(text: str, quote: str) -> str:
    return quote + text.replace(quote, quote * 2) + quote


@settings(max_examples=400)
@given(st.data(), trees, st.lists(params, min_size=1, max_size=4))
def test_any_expression_means_what_it_says(data: st.DataObject, tree: Any, experiments: list[dict[str, Any]]) -> None:
    text = data.draw(printed(tree))
    condition = parse(text)
    for values in experiments:
        assert condition.matches(summary(params=values)) == evaluate(tree, values), text


# --- values -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("present", "text", "expected"),
    [
        (True, "x = true", True),
        (True, "x = 1", False),
        (True, "x < 2", False),
        (1, "x = true", False),
        (1, "x = 1.0", True),
        (0.001, "x = 1e-3", True),
        (0.001, "x = .001", True),
        (2**70, "x > 1e21", True),
        (None, "x = none", True),
        (None, "x != null", False),
        (None, "x exists", True),
        (None, "x < 1", False),
        (0, "x = none", False),
        (math.inf, "x > 1e300", True),
        (math.inf, "x = inf", True),
        (math.nan, "x < 1", False),
        (math.nan, "x > 1", False),
        (math.nan, "x = nan", True),
        (math.nan, "x != nan", False),
        (1.0, "x = nan", False),
        ("none", 'x = "none"', True),
        (None, 'x = "none"', False),
        ("007", "x = 007", True),
        (7, "x = 007", True),
        ("7", "x = 007", False),
        ("1.10", "x = 1.10", True),
        ("adam w", "x = adam w", True),
        ("adam w", "x = Adam w", False),
        ("b", "x > a", True),
        ("2", "x < 10", False),
        ("2", 'x < "10"', False),
        (["foo", "bar"], 'x = ["foo", "bar"]', True),
        (["foo", "bar"], 'x = ["bar", "foo"]', False),
        ([1, 2], "x = 3", False),
        ([1, 2], "x != 3", True),
        ({"foo": "bar"}, 'x = {"foo": "bar"}', True),
        ("AdamW", "x ~ adam", True),
        ("AdamW", "x ~ adam$", False),
        ("AdamW", "x !~ adam$", True),
        (0.25, r"x ~ ^0\.", True),
        ([1, "zürich"], "x ~ ZÜRICH", True),
        (True, "x ~ TRUE", True),
        (3, "x in (1, 2, 3)", True),
        ("3", "x in (1, 2, 3)", True),
        (4, "x not in (1, 2, 3)", True),
        ("b", "x in (a,b)", True),
    ],
)
def test_values(present: object, text: str, expected: bool) -> None:
    assert matches(text, summary(params={"x": present})) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1", False),
        ("x != 1", True),
        ("x < 1", False),
        ("x ~ .", False),
        ("x !~ .", True),
        ("x in (1, 2)", False),
        ("x not in (1, 2)", True),
        ("x exists", False),
        ("x missing", True),
        ("not x = 1", True),
        ("x = none", True),
        ("x != none", False),
        ("x in (1, none)", True),
    ],
)
def test_who_lacks_the_name(text: str, expected: bool) -> None:
    assert matches(text, summary()) is expected


# --- fields -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("id = 0000", True),
        ("id = 1", False),
        ("id != 00000", False),
        ("id in (1, 0)", True),
        ("user = ana", True),
        ("user ~ AN", True),
        ("user > a", True),
        ("host missing", True),
        ('host = ""', True),
        ("host = none", True),
        ("command = python train.py --lr=0.1", True),
        ("path = .", True),
        ("error exists", False),
        ("outcome = finished", True),
        ("outcome in (failed, interrupted)", False),
        ("status = stopped", True),
        ("status = Stopped", True),
        ("status != running", True),
        ("status in (running, failed)", False),
        ("checkpoints = 0", True),
        ("step <= 50", True),
        ("step > 0", False),
        ("latest.step missing", True),
        ("uploaded = true", True),
        ("uploaded != false", True),
        ("size < 1kB", True),
        ("python_version >= 3.9", True),
        ("python_version < 3.12", False),
        ("python_version = 3.12.4", True),
        ("python_version = v3.12.4.0", True),
        (r"python_version ~ ^3\.12", True),
        ("env.python > 3.2", True),
        ("env.torch >= 2.9", True),
        ("env.torch < 2.10", True),
        ("env.torch = 2.9.1", True),
        ("env.torch = 2.9.1+cu128", True),
        ("env.torch = 2.9.1+cpu", False),
        ("env.torch > 2.9.1rc1", True),
        ("env.Scikit_Learn exists", True),
        ("env.jax missing", True),
        ("env.odd > trunk", False),
        ("env.odd = trunk", True),
        ("git.commit = 8f3c2ad", True),
        ("git.commit = 8F3C", True),
        ("git.commit ~ ^8f3c", True),
        ("git.branch = main", True),
        ("git.dirty = true", True),
        ("git.dirty != true", False),
        ("git.remote ~ example", True),
        ("git.remote missing", False),
        ("keepsake_version = none", True),
    ],
)
def test_fields(text: str, expected: bool) -> None:
    one = summary(
        user="ana",
        command="python train.py --lr=0.1",
        path=".",
        python_version="3.12.4",
        python_packages={"torch": "2.9.1+cu128", "scikit-learn": "1.7", "odd": "trunk"},
        git={"commit": "8f3c2ad9" * 5, "branch": "main", "dirty": True, "remote": "https://example.org/hotdog.git"},
    )
    assert matches(text, one) is expected


def test_what_people_have_said_of_an_experiment() -> None:
    class Annotation:
        name = "warm-up fix"
        tags = ("prod", "base")
        notes = "lower dropout\nafter sweep 3"

    plain, one = summary(), summary()
    one.annotation = Annotation()  # type: ignore[assignment]
    one.aliases = {"production": "f" * 64}
    for text in (
        "name = warm-up fix",
        "tag = prod",
        "tags = base",
        "tag ~ ^PR",
        "tag in (old, base)",
        "tag exists",
        "notes ~ sweep 3$",
        "alias = production",
        "alias = @production",
        "aliases ~ prod",
    ):
        assert matches(text, one), text
        assert not matches(text, plain), text
    for text in ("tag = pro", "tag != prod", "tag = none", "alias = prod", "name missing"):
        assert not matches(text, one), text
    for text in ("tag != prod", "tag = none", "tag missing", "notes = none", "alias !~ p"):
        assert matches(text, plain), text


def test_stopped_is_whatever_does_not_run() -> None:
    running = {"outcome": None, "heartbeat": Heartbeat(1.0, START)}
    ones = [summary(0), summary(1, outcome="failed"), summary(2, outcome=None), summary(3, **running)]
    found = {
        word: [ones.index(one) for one in select(ones, [parse(f"status = {word}")])] for word in ("stopped", "failed", "running")
    }
    assert found == {"stopped": [0, 1, 2], "failed": [1], "running": [3]}
    assert select(ones, [parse("status != stopped")]) == [ones[3]]


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Let a test choose the local time zone."""

    def choose(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield choose
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def utc(zone: Callable[[str], None]) -> None:
    """Make the local time zone that of the tests' times."""
    zone("UTC")


# --- times and sizes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Started on 2026-03-06 at 12:30:15 UTC, 1 day, 11 hours and some before now.
        ("created > 2d", True),
        ("created > 1d", False),
        ("created < 1 day", True),
        ("created > 1w", True),
        ("created > 2h30m", False),
        ("age < 2d", True),
        ("age < 36h", True),
        ("age > 1.5 days", False),
        ("created > 2026-03-06", True),
        ("created > 2026-03-06T12:30:15Z", False),
        ("created >= 2026-03-06T12:30:15Z", True),
        ("created < 2026-03-06 13:30:16+01:00", True),
        ("created = 2026-03-06", True),
        ("created = 2026-03-05", False),
        ("created = 2026-03-06T12:30Z", True),
        ("created = 2026-03-06T12:30:15Z", True),
        ("created = 2026-03-06T12:30:15.5Z", False),
        ("created != 2026-03-06T12:31Z", True),
        ("created in (2026-03-05, 2026-03-06)", True),
        ('started > "2026-03-06T12:00Z"', True),
        ("ended exists", True),
        ("ended < 2026-03-06T14:01Z", True),
        ("duration > 1h", True),
        ("duration > 1h30m", False),
        ("duration = 90 min", True),
        ("duration >= 5400", True),
    ],
)
def test_times(text: str, expected: bool, utc: None) -> None:
    created = START + timedelta(days=5, hours=12, minutes=30, seconds=15)
    one = summary(created=created, ended=created + timedelta(hours=1, minutes=30))
    assert matches(text, one) is expected


def test_a_time_without_a_zone_is_local(zone: Callable[[str], None]) -> None:
    zone("Europe/Berlin")
    # 2026-03-28 is a day of 24 hours there, the next one has 23.
    late = summary(created=START.replace(day=28, hour=22, minute=59))
    early, over = summary(created=START.replace(day=28, hour=23)), summary(created=START.replace(day=29, hour=22))
    assert [matches("created = 2026-03-28", one) for one in (late, early, over)] == [True, False, False]
    assert [matches("created = 2026-03-29", one) for one in (late, early, over)] == [False, True, False]
    assert matches("created > 2026-03-28T23:58", late)
    assert not matches("created > 2026-03-29T00:00", late)


def test_how_long_an_experiment_took() -> None:
    running = summary(outcome=None, heartbeat=Heartbeat(1.0, NOW))
    died = summary(outcome=None, heartbeat=Heartbeat(1e6, START + timedelta(hours=2)))
    silent = summary(outcome=None, checkpoints=[checkpoint(1, {})])
    assert matches("duration = 1w", running)
    assert matches("duration = 2h", died)
    assert matches("duration = 0", silent)
    assert matches("duration missing", summary(outcome=None))


def test_sizes() -> None:
    from keepsake.repository.records import ArchiveInfo

    one = summary(archive=ArchiveInfo(1_500_000_000, 3, "0" * 64))
    for text in (
        "size > 1GB",
        "size = 1.5 gb",
        "size < 1.5 GiB",
        "size >= 1500 MB",
        "size > 1G",
        "size < 1TB",
        "size = 1500000000",
    ):
        assert matches(text, one), text
    assert not matches("size < 1GiB", one)


# --- names --------------------------------------------------------------------------------------------------------------


def test_fields_come_first_then_metrics_then_params_and_prefixes_choose() -> None:
    steps = [
        checkpoint(1, {"loss": 3.0, "acc": 0.1}, LOSS),
        checkpoint(2, {"loss": 1.0, "acc": 0.5}),
        checkpoint(3, {"loss": 2.0, "acc": 0.9}),
    ]
    one = summary(
        params={
            "loss": 10,
            "user": "param",
            "size": "large",
            "optim": {"lr": 0.1},
            "env": {"name": "CartPole", "num": 4},
            "best.x": 5,
        },
        user="ana",
        checkpoints=steps,
    )
    for text in (
        "loss = 1",
        "metric.loss = 1",
        "best.loss = 1",
        "latest.loss = 2",
        "max.loss = 3",
        "min.loss = 1",
        "best.step = 2",
        "latest.step = 3",
        "step = 3",
        "param.loss = 10",
        "user = ana",
        "param.user = param",
        "param.size = large",
        "optim.lr = 0.1",
        "param.optim.lr < 0.2",
        'optim = {"lr": 0.1}',
        "best.x = 5",
        "param.best.x = 5",
        "env.name = CartPole",
        "env.num > 3",
        "max.acc > 0.8 and best.acc < 0.8",
        "best.optim.lr missing",
    ):
        assert matches(text, one), text


def test_metrics_that_json_lacks_are_found_behind_prefixes_too() -> None:
    one = summary(checkpoints=[checkpoint(1, {"loss": 1.0, "acc": math.inf}, LOSS), checkpoint(2, {"loss": math.nan})])
    for text in ("latest.loss = nan", "best.acc > 1e300", "metric.acc = inf", "loss = 1", "max.acc missing", "latest.step = 2"):
        assert matches(text, one), text


def test_names_are_told_each_once() -> None:
    assert parse("a = 1 and (best.b > 2 or not a missing)").names() == ["a", "best.b"]


def test_several_filters_must_all_hold_and_the_order_stays() -> None:
    ones = [summary(n, params={"a": n, "b": n % 2}) for n in range(6)]
    assert select(ones, [parse("a > 1"), parse("b = 0")]) == [ones[2], ones[4]]
    assert select(ones, []) == ones


# --- what makes no sense ------------------------------------------------------------------------------------------------


def error_of(text: str, *summaries: Summary) -> tuple[str, str | None]:
    with pytest.raises(InvalidQuery) as raised:
        select(summaries, [parse(text, now=NOW)])
    return raised.value.message, raised.value.hint


def test_a_name_that_nobody_has() -> None:
    ones = [
        summary(
            params={"lr": 0.1, "optim": {"name": "sgd"}},
            checkpoints=[checkpoint(1, {"val_loss": 1, "old": 2}), checkpoint(2, {"val_loss": 1})],
        )
    ]
    no = "no param, metric or field named"
    assert error_of("vall_loss < 0.2", *ones) == (f'{no} "vall_loss"', "did you mean val_loss? (all names: keepsake ls --names)")
    assert error_of("LR = 1", *ones) == (f'{no} "LR"', "did you mean lr? (all names: keepsake ls --names)")
    assert error_of("lr = 0.1 or not optim.nam = x", *ones) == (
        f'{no} "optim.nam"',
        "did you mean optim.name? (all names: keepsake ls --names)",
    )
    assert error_of("qqq missing", *ones) == (f'{no} "qqq"', "keepsake ls --names lists all names")
    assert error_of("best.vall_loss < 1", *ones) == (
        'no metric named "vall_loss"',
        "did you mean best.val_loss? (all names: keepsake ls --names)",
    )
    assert error_of("param.val_loss < 1", *ones)[0] == 'no param named "val_loss"'
    assert error_of("env.tornh > 1", summary(python_packages={"torch": "2"})) == (
        'no package named "tornh"',
        "did you mean env.torch?",
    )
    assert error_of("git.comit = 1", *ones) == (
        'no fact of Git named "comit"',
        "did you mean git.commit?",
    )
    # A metric that only an older checkpoint has is no typing error, nor is any name where there is nothing.
    assert select(ones, [parse("old < 1")]) == []
    assert select(ones, [parse("git.branch = main")]) == []
    assert select([], [parse("lrr = 1")]) == []


def test_values_that_cannot_be_compared() -> None:
    ones = [summary(n, params={"lr": 0.1, "opt": "sgd", "amp": True, "dims": [1]} | ({"rare": 1} if n else {})) for n in range(2)]
    everywhere = "in all 2 experiments, cannot compare with"
    assert error_of("lr = abc", *ones) == (f'lr is a number {everywhere} "abc"', None)
    assert error_of("lr < abc", *ones) == (f'lr is a number {everywhere} "abc"', None)
    assert error_of('lr != "0.1"', *ones) == (f'lr is a number {everywhere} "0.1"', None)
    assert error_of("lr in (true, b)", *ones) == (f'lr is a number {everywhere} (true, "b")', None)
    assert error_of("opt < 3", *ones) == (f"opt is a text {everywhere} 3", "keepsake ls -f 'opt < \"3\"'")
    assert error_of("amp = 1", *ones) == (f"amp is true or false {everywhere} 1", None)
    assert error_of("dims > 1", *ones) == (f"dims is a list {everywhere} 1", None)
    assert error_of("rare = x", *ones) == ('rare is a number in the 1 experiment that has it, cannot compare with "x"', None)
    assert error_of("not (opt = sgd and lr = abc)", *ones)[0].startswith("lr is a number")
    mixed = [summary(0, params={"x": 1}), summary(1, params={"x": "one"})]
    assert select(mixed, [parse("x = one")]) == [mixed[1]]
    assert select(mixed, [parse("x = true")]) == []
    assert select(ones, [parse("lr = none")]) == []


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("created > yesterday", 'created is a time, cannot compare with "yesterday"', 'keepsake ls -f "created > 2026-11-01"'),
        ("created = 2d", '"created = 2d" asks for one moment, but 2d says how long ago', 'keepsake ls -f "created > 2d"'),
        ("created ~ 2026", "created is a time, which has no text to search", 'keepsake ls -f "created > 2026-11-01"'),
        ("duration > long", 'duration is a span of time, cannot compare with "long"', 'keepsake ls -f "duration < 2h"'),
        ("age < 2026-01-01", 'age is a span of time, cannot compare with "2026-01-01"', 'keepsake ls -f "age < 2h"'),
        ("size > big", 'size is a size, cannot compare with "big"', 'keepsake ls -f "size > 1GB"'),
        ("step > many", 'step is a number, cannot compare with "many"', 'keepsake ls -f "step >= 100"'),
        ("uploaded = 1", 'uploaded is true or false, cannot compare with "1"', 'keepsake ls -f "uploaded = true"'),
        ("status = finished", 'status is running, stopped or failed, never "finished"', 'keepsake ls -f "status = running"'),
        ("outcome = done", 'outcome is finished, failed or interrupted, never "done"', 'keepsake ls -f "outcome = finished"'),
        ("tag > a", "tag is a set of tags, which has no order", 'keepsake ls -f "tag = a"'),
        ("id < 4", "id is an ID, which has no order", 'keepsake ls -f "id = 4"'),
        ("x < true", '"x < true" asks for an order, but true has none', 'keepsake ls -f "x = true"'),
        ("x >= nan and x = 1", '"x >= nan" asks for an order, but nan has none', 'keepsake ls -f "x = nan"'),
        ("x < [1]", '"x < [1]" asks for an order, but [1] has none', 'keepsake ls -f "x = [1]"'),
        ("x ~ [a", '"[a" cannot be searched for: unterminated character set at position 0', 'keepsake ls -f "optimizer ~ ^adam"'),
        ("error < 0.1", "error is a text, cannot compare with 0.1", "keepsake ls -f 'error < \"0.1\"'"),
    ],
)
def test_what_cannot_be_asked(text: str, message: str, hint: str) -> None:
    assert error_of(text, summary(params={"x": 1})) == (message, hint)


def test_a_metric_with_the_name_of_a_field_is_hinted_at() -> None:
    one = summary(checkpoints=[checkpoint(1, {"error": 0.05})])
    assert error_of("error < 0.1", one) == ("error is a text, cannot compare with 0.1", "did you mean metric.error?")


@pytest.mark.parametrize(
    "value",
    ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-02-30", "12", "2026-11-01T25:00", "9999999999w", "1x", "d"],
)
def test_what_is_no_moment(value: str) -> None:
    with pytest.raises(InvalidQuery, match="created is a time"):
        parse(f"created > {value}")


@given(
    st.sampled_from(["created", "ended", "age", "duration", "size", "python_version", "id", "step"]),
    st.sampled_from("=<"),
    st.text() | st.datetimes().map(str),
)
def test_any_value_is_compared_or_refused(name: str, sign: str, value: str) -> None:
    try:
        condition = parse(f"{name} {sign} '{value}'")
    except InvalidQuery:
        return
    condition.matches(summary(ended=START))


# --- nearest ------------------------------------------------------------------------------------------------------------


def test_how_near_experiments_come() -> None:
    ones = [
        summary(n, params={"lr": n, "name": "x"}, checkpoints=[checkpoint(n, {"loss": value, "acc": -value}, LOSS)])
        for n, value in enumerate([3.0, 1.0, math.nan, 2.0])
    ]

    def near(*texts: str) -> tuple[str, float, int] | None:
        found = nearest(ones, [parse(text) for text in texts])
        return (found[0], found[1], ones.index(found[2])) if found is not None else None

    assert near("loss < 0.5") == ("best", 1.0, 1)
    assert near("best.loss < 0.5") == ("best", 1.0, 1)
    assert near("loss > 5") == ("highest", 3.0, 0)
    assert near("acc < -5") == ("lowest", -3.0, 0)
    assert near("lr > 5") == ("highest", 3, 3)
    assert near("step >= 100") == ("highest", 3, 3)
    assert near("loss = 5") is None
    assert near("loss < 1", "lr > 9") is None
    assert near("loss < 1 and lr > 9") is None
    assert near("created > 1d") is None
    assert near("param.name < a") is None
    assert nearest([], [parse("lr > 5")]) is None
    highest = summary(checkpoints=[checkpoint(1, {"acc": 0.5}, PrimaryMetric("acc", "maximize"))])
    assert nearest([highest], [parse("acc > 0.9")]) == ("best", 0.5, highest)
