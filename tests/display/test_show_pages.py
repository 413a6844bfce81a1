"""The pages of `keepsake show` at several widths, letter by letter, and what holds at any width for any record."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepsake.display.details import checkpoint_details, experiment_details
from keepsake.display.files import file_table, totals, tree
from keepsake.display.tables import View
from keepsake.repository.primary_metric import PrimaryMetric
from keepsake.repository.records import CheckpointRecord, ExperimentRecord
from keepsake.repository.status import Heartbeat
from tests.display.letters import WIDTHS, compare, fits, titled
from tests.display.pages import FILES, NOW, SHOWN, Said, archive, checkpoint, file, record
from tests.query.samples import full_id


@pytest.fixture(autouse=True, scope="module")
def _utc() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


# --- letter by letter -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHOWN)
def test_the_page_of_an_experiment(name: str) -> None:
    shown = SHOWN[name]()
    pages = {}
    for columns in WIDTHS:
        view = View(now=NOW, width=columns)
        page = experiment_details(shown.record, view, courses=shown.courses(), annotation=shown.said)
        assert fits(page, columns)
        pages[titled(columns)] = page
    compare(name, pages)


def test_the_page_of_a_checkpoint() -> None:
    shown = SHOWN["finished"]()
    best = shown.record.best()
    assert best is not None
    pages = {}
    for columns in WIDTHS:
        view = View(now=NOW, width=columns)
        page = checkpoint_details(
            shown.record, best, view, files=FILES, annotation=shown.said, options=["-R", "s3://acme/hot dog"]
        )
        assert fits(page, columns)
        pages[titled(columns)] = page
    compare("checkpoint", pages)


def test_files_as_a_table_and_as_a_tree() -> None:
    pages = {}
    for columns in WIDTHS:
        view = View(now=NOW, width=columns)
        table, drawn = file_table(FILES, view), tree(FILES, view)
        assert fits(table + drawn, columns)
        pages |= {f"--files, {titled(columns)}": table, f"--code, {titled(columns)}": drawn}
    pages["--code, without Unicode"] = tree(FILES, View(now=NOW, width=80, unicode=False))
    compare("files", pages)


# --- what a page says -------------------------------------------------------------------------------------------------


def test_all_shows_everything_and_cuts_nothing_but_fits_all_the_same() -> None:
    shown = SHOWN["crowded"]()
    page = experiment_details(shown.record, View(now=NOW, width=80, every=True), courses=shown.courses(), annotation=shown.said)
    text = "".join(line.replace(" ", "") for line in page)
    assert "--all" not in text
    assert all(f"e{step:06}" in text for step in range(12))
    for value in (shown.record.params["text"].strip(), shown.record.params["digest"], *shown.record.params):
        assert value.replace(" ", "") in text


def test_commands_carry_the_options_that_they_need() -> None:
    shown = SHOWN["finished"]()
    page = experiment_details(shown.record, View(now=NOW), options=["-R", "s3://acme/hot dog"])
    assert "keepsake checkout 4591273 -o out/ -R 's3://acme/hot dog'" in page[-2]
    assert "keepsake diff 4591273 . -R 's3://acme/hot dog'" in page[-1]


def test_without_blocks_trends_are_drawn_in_ascii() -> None:
    shown = SHOWN["finished"]()
    page = experiment_details(shown.record, View(now=NOW, width=80, unicode=False), courses=shown.courses())
    assert next(line for line in page if line.startswith("  val_acc")).endswith("__.--~=+**##")


def test_without_a_history_the_checkpoints_make_the_trend() -> None:
    shown = SHOWN["interrupted"]()
    with_history = experiment_details(shown.record, View(now=NOW), courses=shown.courses())
    assert experiment_details(shown.record, View(now=NOW)) == with_history


def test_git_says_how_many_files_were_modified_where_that_is_known() -> None:
    commit: dict[str, Any] = {"commit": "8f3c2ad" * 5, "branch": "main"}
    for changes, said in (
        ({"dirty": True, "modified": 1}, "8f3c2ad on main, 1 file modified"),
        ({"dirty": True}, "8f3c2ad on main, with changes that are not committed"),
        ({"dirty": False, "modified": 0}, "8f3c2ad on main"),
        ({"dirty": True, "modified": "many"}, "8f3c2ad on main, with changes that are not committed"),
    ):
        assert f"Git         {said}" in experiment_details(record("a1", NOW - NOW, git=commit | changes), View(now=NOW))


def test_no_files_no_lines() -> None:
    assert tree([], View(now=NOW, width=80)) == []
    assert totals(FILES) == "14 files, 8.11 GB"


# --- hostile records --------------------------------------------------------------------------------------------------

EVIL = "\x1b]0;pwned\x07\x1b[2J\u202e\x9b\x00\x7f\u2028\ud800\r"
FORBIDDEN = {char for char in EVIL if not char.isprintable()}


def hostile() -> tuple[ExperimentRecord, Said]:
    """Return an experiment in which every text that anybody can record steers a terminal."""
    primary = PrimaryMetric(f"loss{EVIL}", "minimize")
    digest = replace(archive(1, digest="a"), sha256=EVIL * 4)
    metrics = {f"loss{EVIL}": 1.0, f"text{EVIL}": EVIL, "list": [EVIL, {EVIL: EVIL}]}
    checkpoints = [
        CheckpointRecord(full_id(start), NOW, step, f"path{EVIL}", metrics, primary, digest) for step, start in enumerate("ab")
    ]
    fields: dict[str, Any] = dict.fromkeys(
        ("user", "host", "command", "path", "python_version", "error", "keepsake_version"), EVIL
    )
    fields |= {
        "params": {EVIL: EVIL, "nested": {EVIL: [EVIL]}},
        "python_packages": {EVIL: EVIL},
        "git": dict.fromkeys(("commit", "branch", "remote", "dirty"), EVIL) | {"modified": EVIL},
        "system": {"os": EVIL, "gpus": [{"name": EVIL, "driver": EVIL, "memory_bytes": EVIL}, EVIL]},
        "outcome": "failed",
        "archive": digest,
    }
    said = Said(f"name{EVIL}", (f"tag{EVIL}",), f"notes{EVIL}\n{EVIL}", {f"alias{EVIL}": full_id("a")})
    return ExperimentRecord(full_id("c"), NOW, checkpoints=checkpoints, **fields), said


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("outcome", ["failed", "interrupted", "finished", None])
def test_no_recorded_text_steers_a_terminal(columns: int | None, every: bool, outcome: Any) -> None:
    evil, said = hostile()
    evil.outcome, evil.heartbeat = outcome, Heartbeat(10_000.0, NOW)
    view = View(now=NOW, width=columns, every=every)
    files = [
        file(f"dir{EVIL}/file{EVIL}", 1, sha256=EVIL * 9),
        file(f"link{EVIL}", 0, kind="link", link_target=EVIL, sha256=None),
        file(f"empty{EVIL}", 0, kind="directory", sha256=None),
    ]
    pages = [
        experiment_details(evil, view, annotation=said, options=["-R", f"file:///{EVIL}"]),
        checkpoint_details(evil, evil.checkpoints[0], view, files=files, annotation=said, options=["-D", EVIL]),
        file_table(files, view),
        tree(files, view),
    ]
    for page in pages:
        assert not set("".join(page)) & FORBIDDEN
    assert "\\x1b]0;pwned" in "".join(pages[0])


def test_numbers_and_times_at_the_ends_of_what_a_record_can_hold() -> None:
    moments = [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)]
    huge = replace(archive(1), size_bytes=10**400, files=10**400)
    metrics = {"val_loss": 10**400, "x": 1.7e308, "y": -5e-324, "z": True}
    for first, last in ((0, 1), (1, 0)):
        ends = checkpoint("a", 10**30, NOW - NOW, metrics, path="x", archive=huge), checkpoint("b", 0, NOW - NOW, {"x": -1.7e308})
        odd = ExperimentRecord(full_id("c"), moments[first], ended=moments[last], outcome="finished", checkpoints=list(ends))
        odd.resumed = moments
        odd.checkpoints[0].created = moments[last]
        odd.system = {"gpus": 3, "os": []}
        odd.git = {"commit": 5, "modified": True}
        assert experiment_details(odd, View(now=NOW, width=80))
        assert checkpoint_details(odd, odd.checkpoints[0], View(now=NOW, width=80))


TEXTS = st.text(max_size=120)
VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS, st.lists(st.integers(), max_size=20))
NAMED = st.dictionaries(TEXTS, VALUES, max_size=8)


@given(
    columns=st.integers(60, 200),
    params=st.dictionaries(TEXTS, st.one_of(VALUES, NAMED), max_size=30),
    metrics=st.lists(NAMED, max_size=14),
    texts=st.lists(TEXTS, min_size=6, max_size=6),
    aliases=st.lists(TEXTS, max_size=3),
    paths=st.lists(TEXTS, max_size=14),
    every=st.booleans(),
)
def test_any_page_fits_any_terminal(
    columns: int, params: Any, metrics: Any, texts: Any, aliases: Any, paths: Any, every: bool
) -> None:
    checkpoints = [checkpoint(f"{step:07}", step, NOW - NOW, found, path="x") for step, found in enumerate(metrics)]
    user, host, command, error, name, notes = texts
    shown = record(
        "a1",
        NOW - NOW,
        *checkpoints,
        params=params,
        user=user,
        host=host,
        command=command,
        error=error,
        outcome="failed",
        path=".",
    )
    said = Said(name, (user, host), notes, {alias: full_id("0000001") for alias in aliases})
    view = View(now=NOW, width=columns, every=every)
    files = [file(path, number) for number, path in enumerate(paths)]
    assert fits(experiment_details(shown, view, annotation=said), columns)
    for one in checkpoints[:2]:
        assert fits(checkpoint_details(shown, one, view, files=[] if every else files, annotation=said), columns)
    if not every and files:
        assert fits(file_table(files, view) + tree(files, view), columns)


def test_nan_is_a_gap_and_no_value_of_a_metric_is_lost() -> None:
    shown = SHOWN["killed"]()
    lines = experiment_details(shown.record, View(now=NOW, width=80))
    assert "  val_loss (min)   0.5   inf  █▁" in lines
    assert math.isnan(shown.record.params["lr"])
    assert "  lr  nan    init  -inf" in lines
