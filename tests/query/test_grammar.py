"""Filters are read as people write them, and an error points at its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepsake.exceptions import InvalidQuery
from keepsake.query.grammar import MAX_DEPTH, And, Condition, Literal, Not, Or, Tree, parse_tree


def condition(name: str, operator: str, *values: object) -> Condition:
    literals = [Literal(value, value) if isinstance(value, str) else value for value in values]
    return Condition(name, operator, tuple(literal for literal in literals if isinstance(literal, Literal)))


def quoted(text: str) -> Literal:
    return Literal(text, text, quoted=True)


A, B, C = (condition(name, "=", Literal("1", 1)) for name in "abc")


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a = 1 or b = 1 and c = 1", Or((A, And((B, C))))),
        ("(a = 1 or b = 1) and c = 1", And((Or((A, B)), C))),
        ("not a = 1 and b = 1", And((Not(A), B))),
        ("not (a = 1 and b = 1)", Not(And((A, B)))),
        ("NOT not a=1 OR((b=1))And c=1", Or((Not(Not(A)), And((B, C))))),
        ("a = 1 and b = 1 and c = 1", And((A, B, C))),
        ("  ( a==1 )\n", A),
    ],
)
def test_precedence(text: str, tree: Tree) -> None:
    assert parse_tree(text) == tree


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        # As in keepsake 0.4.2.
        ("foo=0.001", condition("foo", "=", Literal("0.001", 0.001))),
        ("foo = bar", condition("foo", "=", "bar")),
        (" foo=bar ", condition("foo", "=", "bar")),
        ("foo = 1", condition("foo", "=", Literal("1", 1))),
        ("foo = 1.5", condition("foo", "=", Literal("1.5", 1.5))),
        ("foo = true", condition("foo", "=", Literal("true", True))),
        ("foo = null", condition("foo", "=", Literal("null", None))),
        ("foo = None", condition("foo", "=", Literal("None", None))),
        ('foo = {"foo": "bar"}', condition("foo", "=", Literal('{"foo": "bar"}', {"foo": "bar"}))),
        ('foo = ["foo", "bar"]', condition("foo", "=", Literal('["foo", "bar"]', ["foo", "bar"]))),
        ("foo != bar", condition("foo", "!=", "bar")),
        ("foo >= bar", condition("foo", ">=", "bar")),
        ("foo foo >= bar", condition("foo foo", ">=", "bar")),
        ("foo >= bar bar", condition("foo", ">=", "bar bar")),
        # Names.
        ("val/loss<1e-3", condition("val/loss", "<", Literal("1e-3", 0.001))),
        ("optim.lr == 3", condition("optim.lr", "=", Literal("3", 3))),
        ("batch-size=-3", condition("batch-size", "=", Literal("-3", -3))),
        ('"val loss < 2" >= 3', condition("val loss < 2", ">=", Literal("3", 3))),
        ("'and' exists", condition("and", "exists")),
        ("missing missing", condition("missing", "missing")),
        ("x[0] = 1", condition("x[0]", "=", Literal("1", 1))),
        # Values.
        ('x = "3"', condition("x", "=", quoted("3"))),
        ("x = 'say \"hi\"'", condition("x", "=", quoted('say "hi"'))),
        ('x = "say ""hi"""', condition("x", "=", quoted('say "hi"'))),
        (r'x ~ "\d+\\"', condition("x", "~", quoted(r"\d+\\"))),
        ('x = ""', condition("x", "=", quoted(""))),
        ("x = Adam(lr=0.1, b=(1, 2))", condition("x", "=", "Adam(lr=0.1, b=(1, 2))")),
        ("command = train.py --lr=0.1 --and", condition("command", "=", "train.py --lr=0.1 --and")),
        ("x ~ ^[ab]+(c|d)$", condition("x", "~", "^[ab]+(c|d)$")),
        ("x !~ [1]", condition("x", "!~", "[1]")),
        ("x = [1, 2", condition("x", "=", "[1, 2")),
        ("x = order", condition("x", "=", "order")),
        ("x in (a b, 'c,d', f(e, f), [1, 2])", condition("x", "in", "a b", quoted("c,d"), "f(e, f)", Literal("[1, 2]", [1, 2]))),
        ("x NOT IN(1)", condition("x", "not in", Literal("1", 1))),
        ("x exists", condition("x", "exists")),
        ("x Missing", condition("x", "missing")),
    ],
)
def test_conditions(text: str, parsed: Condition) -> None:
    assert parse_tree(text) == parsed
    assert [type(one.value) for one in parse_tree(text).values] == [type(one.value) for one in parsed.values]  # type: ignore[union-attr]
    assert parse_tree(f"not ({text})") == Not(parsed)
    assert parse_tree(f"{text} and a = 1") == And((parsed, A))


BAD = {
    "": ("a filter is needed", None),
    " ": ("a filter is needed", None),
    "lr": ("expected an operator after lr, such as = != < <= > >= ~ in exists", 2),
    "lr 3": ("expected an operator after lr 3, such as = != < <= > >= ~ in exists", 4),
    "lr <": ("expected a value after <", 4),
    "< 3": ("expected a name", 0),
    '"" = 3': ("a name is needed", 0),
    "lr >> 3": (">> is none of the operators = == != < <= > >= ~ !~", 3),
    "lr < 3 and": ("expected a name", 10),
    "lr < 3 or and": ('expected a name, found "and"', 10),
    "lr < and b = 1": ('expected a value after <; a text "and" needs quotes', 5),
    "lr < 3 loss < 4": ('expected "and" or "or" before another comparison; a text with signs needs quotes', 12),
    "lr = <3>": ("expected a value after =; a text that begins with < needs quotes", 5),
    "(lr = 3": ("this is never closed", 0),
    "(lr = 3 or": ("expected a name", 10),
    "lr = 3)": ("nothing is open that this could close", 6),
    "(lr exists lr": ('expected "and", "or" or ")"', 11),
    "lr exists 3": ('expected "and", "or" or the end', 10),
    "x = a(b": ("this is never closed", 5),
    'x = "a': ("this quote is never closed", 4),
    'x = "a" b': ('expected "and", "or" or the end', 8),
    'x = "a"b': ("a text ends at its quote; write a quote inside it twice", 4),
    "x in a": ('expected "(" after "in", as in: optimizer in (adam, sgd)', 5),
    "x in ()": ("expected a value", 6),
    "x in (a,": ('expected a value after ","', 8),
    "x in (a": ("this is never closed", 5),
    "x in ('a' b)": ('expected "," or ")"', 10),
    "x not 3": ('expected "in" after "not"', 6),
}


@pytest.mark.parametrize("text", BAD)
def test_bad_syntax_is_shown_in_its_place(text: str) -> None:
    what, column = BAD[text]
    with pytest.raises(InvalidQuery) as raised:
        parse_tree(text)
    assert raised.value.message == f"cannot understand the filter: {what}"
    assert raised.value.facts == ((f"  {text}", f"  {' ' * column}^") if column is not None else ())
    assert raised.value.hint == "keepsake help filters"


def test_the_caret_stands_under_its_place_in_any_text() -> None:
    with pytest.raises(InvalidQuery) as raised:
        parse_tree("名\x1b\nx = 1 and y")
    assert raised.value.facts == ("  名  x = 1 and y", "                 ^")
    with pytest.raises(InvalidQuery) as raised:
        parse_tree(" and ".join(["x = 1"] * 50 + [">"] + ["x = 1"] * 50))
    shown, caret = raised.value.facts
    assert shown[caret.index("^")] == ">"
    assert len(shown) < 110
    assert (shown[2], shown[-1]) == ("…", "…")


def test_nesting_has_a_limit() -> None:
    parse_tree("(" * MAX_DEPTH + "x = 1" + ")" * MAX_DEPTH)
    for deep in ("(" * 100_000, "not " * 100_000):
        with pytest.raises(InvalidQuery, match="lie within each other"):
            parse_tree(deep)
    parse_tree(" and ".join(["x = 1"] * 10_000))
    assert parse_tree("x = " + "[" * 100_000) == condition("x", "=", "[" * 100_000)


@given(
    st.text()
    | st.lists(
        st.sampled_from(["a", " ", "and", "or", "not", "in", "(", ")", ",", '"', "'", "=", "<", "~", "[1]", "missing"])
    ).map("".join)
)
def test_any_text_is_a_filter_or_an_invalid_query(text: str) -> None:
    try:
        tree = parse_tree(text)
    except InvalidQuery as err:
        assert err.message.startswith("cannot understand the filter: ")  # noqa: PT017 - the other outcome is fine as well
    else:
        assert isinstance(tree, Condition | Not | And | Or)
