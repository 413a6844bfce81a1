"""The grammar of filters: a text becomes a tree of conditions, an error points at its place. What names mean is none of its business.

::

    filter     = and { "or" and }
    and        = not { "and" not }
    not        = "not" not | "(" filter ")" | condition
    condition  = NAME OPERATOR VALUE
               | NAME [ "not" ] "in" "(" VALUE { "," VALUE } ")"
               | NAME "exists" | NAME "missing"
    OPERATOR   = "=" | "==" | "!=" | "<" | "<=" | ">" | ">=" | "~" | "!~"

``not`` binds closer than ``and``, and ``and`` closer than ``or``. Keywords are written in any case. A name or a value that holds
spaces may do without quotes, as in keepsake 0.4.2 (``optimizer = adam w``), up to the next ``and``, ``or`` or closing parenthesis.
Within quotes of either sort nothing is special but the quote itself, which is written twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from keepsake.exceptions import InvalidQuery
from keepsake.query.literals import plain_value

if TYPE_CHECKING:
    from collections.abc import Callable

OPERATORS = ("=", "==", "!=", "<", "<=", ">", ">=", "~", "!~")
"""The operators that are signs."""

MAX_DEPTH = 100
"""How deep parentheses may be nested."""


@dataclass(frozen=True, slots=True)
class Literal:
    """A value as it was written.

    Args:
        raw: Its text, without quotes.
        value: What it means where nothing says more: a number, a truth value, None, a list, a dict, or the text.
        quoted: Whether it stood in quotes, and so is a text.
    """

    raw: str
    value: Any
    quoted: bool = False

    def __str__(self) -> str:
        return self.raw if not self.quoted and not isinstance(self.value, str) else f'"{self.raw}"'


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison.

    Args:
        name: What is looked up.
        operator: ``= != < <= > >= ~ !~``, ``in``, ``not in``, ``exists`` or ``missing``.
        values: What it is compared with: one value, several for ``in``, none for ``exists``.
        text: The comparison as it was written.
    """

    name: str
    operator: str
    values: tuple[Literal, ...] = ()
    text: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Not:
    """The contrary of a part."""

    part: Tree


@dataclass(frozen=True, slots=True)
class And:
    """All parts, of which there are at least two."""

    parts: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Any of the parts, of which there are at least two."""

    parts: tuple[Tree, ...]


Tree: TypeAlias = Condition | Not | And | Or


def parse_tree(text: str) -> Tree:
    """Parse a filter.

    Raises:
        InvalidQuery: It is not of the grammar; the facts show where.

    Example:
        >>> tree = parse_tree("lr < 0.1 and not (optimizer = adam or tag in (old, bad))")
        >>> tree.parts[0].name, tree.parts[1].part.parts[1].operator
        ('lr', 'in')
    """
    return _Parser(text).whole()


_SPACE = re.compile(r"\s*")
_KEYWORD = re.compile(r"(?:and|or|not|in|exists|missing)(?=[\s()]|\Z)", re.IGNORECASE)
_NAME_WORD = re.compile(r'[^\s=<>!~()"]+')
_SIGNS = re.compile(r"[=<>!~]+")
_WORD = re.compile(r"[^\s()]+")
_WORD_IN_LIST = re.compile(r"[^\s(),]+")


class _Parser:
    """Reads a text from left to right; each method leaves `_at` behind what it has read."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def whole(self) -> Tree:
        if not self._text.strip():
            self._fail("a filter is needed", 0)
        tree = self._filter()
        if self._at < len(self._text):
            if self._text[self._at] == ")":
                self._fail("nothing is open that this could close")
            self._fail('expected "and", "or" or the end')
        return tree

    # --- the rules of the grammar -----------------------------------------------------------------------------------

    def _filter(self) -> Tree:
        return self._chain("or", Or, lambda: self._chain("and", And, self._not))

    def _chain(self, keyword: str, node: type[And | Or], part: Callable[[], Tree]) -> Tree:
        parts = [part()]
        while self._keyword() == keyword:
            self._at += len(keyword)
            parts.append(part())
        return parts[0] if len(parts) == 1 else node(tuple(parts))

    def _not(self) -> Tree:
        if self._keyword() == "not":
            with_not = self._at
            self._at += len("not")
            self._deeper(with_not)
            tree: Tree = Not(self._not())
            self._depth -= 1
            return tree
        return self._group() if self._next() == "(" else self._condition()

    def _group(self) -> Tree:
        opened = self._at
        self._deeper(opened)
        self._at += 1
        tree = self._filter()
        if self._next() != ")":
            if self._at == len(self._text):
                self._fail("this is never closed", opened)
            self._fail('expected "and", "or" or ")"')
        self._at += 1
        self._depth -= 1
        self._next()
        return tree

    def _condition(self) -> Condition:
        start = self._at
        name, written = self._name()
        signs = _SIGNS.match(self._text, self._at)
        if signs is not None:
            if signs[0] not in OPERATORS:
                self._fail(f"{signs[0]} is none of the operators {' '.join(OPERATORS)}")
            self._at = signs.end()
            operator = "=" if signs[0] == "==" else signs[0]
            values: tuple[Literal, ...] = (self._value(f"a value after {signs[0]}", as_json="~" not in operator),)
        else:
            operator, values = self._named_operator(written)
        text = self._text[start : self._at].strip()
        self._next()
        return Condition(name, operator, values, text)

    def _named_operator(self, name: str) -> tuple[str, tuple[Literal, ...]]:
        keyword = self._keyword()
        if keyword in ("exists", "missing"):
            self._at += len(keyword)
            return keyword, ()
        operator = "in"
        if keyword == "not":
            operator = "not in"
            self._at += len("not")
            keyword = self._keyword()
            if keyword != "in":
                self._fail('expected "in" after "not"')
        if keyword != "in":
            self._fail(f"expected an operator after {name}, such as = != < <= > >= ~ in exists")
        self._at += len("in")
        return operator, self._list()

    def _list(self) -> tuple[Literal, ...]:
        if self._next() != "(":
            self._fail('expected "(" after "in", as in: optimizer in (adam, sgd)')
        opened = self._at
        self._at += 1
        values = [self._value("a value", in_list=True)]
        while self._next() == ",":
            self._at += 1
            values.append(self._value('a value after ","', in_list=True))
        if self._next() != ")":
            if self._at == len(self._text):
                self._fail("this is never closed", opened)
            self._fail('expected "," or ")"')
        self._at += 1
        return tuple(values)

    # --- names and values -------------------------------------------------------------------------------------------

    def _name(self) -> tuple[str, str]:
        """Read a name; return it, and as it was written."""
        start = self._at
        if self._next() in ("'", '"'):
            name = self._quoted()
            end = self._at
            if not name:
                self._fail("a name is needed", start)
        else:
            if self._keyword() in ("and", "or"):
                self._fail(f'expected a name, found "{self._keyword()}"')
            end = start
            while (word := _NAME_WORD.match(self._text, self._at)) is not None:
                if end > start and self._keyword() is not None:
                    break
                end = self._at = word.end()
                self._next()
            if end == start:
                self._fail("expected a name")
            name = self._text[start:end]
        self._next()
        return name, self._text[start:end]

    def _value(self, expected: str, *, in_list: bool = False, as_json: bool = True) -> Literal:
        first = self._next()
        if first in ("'", '"'):
            start = self._at
            raw = self._quoted()
            following = self._text[self._at : self._at + 1]
            if following and not following.isspace() and following not in "),":
                self._fail("a text ends at its quote; write a quote inside it twice", start)
            return Literal(raw, raw, quoted=True)
        if first in ("[", "{") and as_json and (literal := self._json()) is not None:
            return literal
        raw = self._unquoted(expected, _WORD_IN_LIST if in_list else _WORD)
        return Literal(raw, plain_value(raw))

    def _quoted(self) -> str:
        start = self._at
        quote = self._text[start]
        match = re.compile(f"{quote}((?:[^{quote}]|{quote}{quote})*){quote}").match(self._text, start)
        if match is None:
            self._fail("this quote is never closed", start)
        self._at = match.end()
        return match[1].replace(quote * 2, quote)

    def _json(self) -> Literal | None:
        """Read a list or an object; return None where it is none, but some other text."""
        import json

        try:
            value, end = json.JSONDecoder().raw_decode(self._text, self._at)
        except (ValueError, RecursionError):
            return None
        if re.compile(r"[^\s),]").match(self._text, end):
            return None
        raw = self._text[self._at : end]
        self._at = end
        return Literal(raw, value)

    def _unquoted(self, expected: str, word: re.Pattern[str]) -> str:
        """Read words up to a keyword, or to a parenthesis that was not opened here."""
        start = end = self._at
        if self._keyword() in ("and", "or"):
            self._fail(f'expected {expected}; a text "{self._keyword()}" needs quotes')
        if (sign := self._sign()) is not None:
            self._fail(f"expected {expected}; a text that begins with {sign} needs quotes")
        while self._piece(word):
            end = self._at
            self._next()
            if self._at > end:
                if self._keyword() in ("and", "or"):
                    break
                if self._sign() is not None:
                    self._fail('expected "and" or "or" before another comparison; a text with signs needs quotes')
        if end == start:
            self._fail(f"expected {expected}")
        self._at = end
        return self._text[start:end]

    def _piece(self, word: re.Pattern[str]) -> bool:
        """Read a word, or parentheses with all that is in them; tell whether there was one."""
        if self._text[self._at : self._at + 1] != "(":
            match = word.match(self._text, self._at)
            self._at = match.end() if match is not None else self._at
            return match is not None
        depth = 0
        for at in range(self._at, len(self._text)):
            depth += {"(": 1, ")": -1}.get(self._text[at], 0)
            if depth == 0:
                self._at = at + 1
                return True
        return self._fail("this is never closed")

    def _sign(self) -> str | None:
        char = self._text[self._at : self._at + 1]
        return char if char and char in "=<>!" else None

    # --- places -----------------------------------------------------------------------------------------------------

    def _next(self) -> str:
        """Go to the next character that is no space, and return it; an empty text at the end."""
        match = _SPACE.match(self._text, self._at)
        assert match is not None  # it matches nothing, too
        self._at = match.end()
        return self._text[self._at : self._at + 1]

    def _keyword(self) -> str | None:
        """Return the keyword that comes next, in lower case."""
        self._next()
        match = _KEYWORD.match(self._text, self._at)
        return match[0].lower() if match is not None else None

    def _deeper(self, at: int) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail(f"more than {MAX_DEPTH} conditions lie within each other", at)

    def _fail(self, what: str, at: int | None = None) -> NoReturn:
        shown, column = _window(self._text, self._at if at is None else at)
        raise InvalidQuery(
            f"cannot understand the filter: {what}",
            facts=[f"  {shown}", f"  {' ' * column}^"] if shown.strip() else [],
            hint="keepsake help filters",
        )


def _window(text: str, at: int, room: int = 50) -> tuple[str, int]:
    """Return the part of a text around a place, on one line, and the column of the place in it."""
    from unicodedata import east_asian_width

    # What takes no column or two, or steers the terminal, would move the caret.
    line = "".join(char if char.isprintable() else " " for char in text)
    start = max(0, at - room)
    before, after = line[start:at], line[at : at + room]
    before = f"…{before}" if start else before
    after = f"{after}…" if at + room < len(line) else after
    return before + after, sum(2 if east_asian_width(char) in "WF" else 1 for char in before)
