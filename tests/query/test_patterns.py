"""A search never takes for ever, whatever is searched for and wherever."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepsake.exceptions import InvalidQuery
from keepsake.query.patterns import MAX_LENGTH, searcher


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("adam", "AdamW", True),
        ("^adam$", "AdamW", False),
        ("s3://.*/hotdog", "S3://acme/hotdog", True),
        (r"(adam|sgd)w?\b", "x sgd", True),
        (r"^v\d+(\.\d+)?$", "v2.10", True),
        ("[*+?{(|)]", "a*b", True),
        ("[]a]+", "]]", True),
        (r"a{2}\.b{1,3}c{2,}", "aa.bbcc", True),
        (r"a++b*?c?+", "aac", True),
        ("{x}", "{X}", True),
        ("a{}", "a{}", True),
        ("(?i:A)(?=b)(?<!c)(?P<name>b)(?>c)", "abc", True),
        ("straße", "STRASSE", False),
        ("", "anything", True),
    ],
)
def test_what_is_found(pattern: str, text: str, expected: bool) -> None:
    assert searcher(pattern)(text) is expected


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(a+)+$", "what is repeated holds a repetition or alternatives"),
        ("(a|a)*$", "what is repeated holds a repetition or alternatives"),
        ("(a+){,}$", "what is repeated holds a repetition or alternatives"),
        ("((?:x(a?)y)){30}", "what is repeated holds a repetition or alternatives"),
        (r"([\d+]|b)+", "what is repeated holds a repetition or alternatives"),
        (r"(.*)\1", "references to groups"),
        ("(?P<a>b)(?P=a)", "a sort of group that is not supported"),
        ("(?x)(a+) +", "a sort of group that is not supported"),
        ("a(?#b)*", "a sort of group that is not supported"),
        ("a?" * 30 + "a" * 30, "so many repetitions"),
        ("a*" * 4 + "b", "so many repetitions"),
        ("(", "missing"),
        ("*", "nothing to repeat"),
        ("a" * (MAX_LENGTH + 1), "longer than 1,000 characters"),
        ("a{99999999999999}", "the repetition number is too large"),
    ],
)
def test_what_is_refused(pattern: str, why: str) -> None:
    with pytest.raises(InvalidQuery, match=r"cannot be searched for: .*") as raised:
        searcher(pattern)
    assert why in raised.value.message
    assert raised.value.facts


@settings(max_examples=500)
@given(st.text(alphabet="ab()[]{}|*+?^$.\\1,:<=!#P-xi", max_size=20), st.text(alphabet="ab", max_size=20))
def test_any_pattern_is_refused_or_searched_for(pattern: str, text: str) -> None:
    try:
        search = searcher(pattern)
    except InvalidQuery:
        return
    assert search(text) == bool(re.search(pattern, text, re.IGNORECASE))


simple = st.lists(st.sampled_from(["a", "b", ".", ".*", ".+", r"\.", r"\w", r"\d"]), max_size=8).map("".join)


@settings(max_examples=500)
@given(st.sampled_from(["", "^"]), simple, st.sampled_from(["", "$"]), st.text(alphabet="aB.\n", max_size=15))
def test_the_fast_way_finds_the_same(start: str, pattern: str, end: str, text: str) -> None:
    assert searcher(start + pattern + end)(text) == bool(re.search(start + pattern + end, text, re.IGNORECASE))


def test_wildcards_between_words_are_fast() -> None:
    # The test's time limit is minutes; without steps this takes hours.
    assert not searcher(".*loss.*val.*loss.*val.*x")("lossval" * 500)
