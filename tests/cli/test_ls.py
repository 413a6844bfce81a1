"""``keepsake ls`` and ``keepsake ps``: which experiments, in which order, in which columns."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from keepsake.display.text import width
from tests.cli.conftest import FAILED, FINISHED, IN_ORDER, INTERRUPTED, KILLED, RUNNING, Repo, Result, checkpoint, full_id

Run = Callable[..., Result]

PIPED = """\
EXPERIMENT  STARTED               STATUS   LR      OPTIMIZER  VAL_LOSS  ACC     BEST CHECKPOINT     LATEST CHECKPOINT
eb96def     2026-03-01T08:00:00Z  stopped  0.001   sgd        0.2121    0.9411  fe6a313 (step 100)  0b77c4e (step 200)
76ab171     2026-03-01T10:00:00Z  failed   0.003   adamw      -         -
91af3b0     2026-03-01T11:00:00Z  stopped  0.0001  adamw      -         -
4591273     2026-03-01T13:00:00Z  stopped  0.001   adamw      0.1484*   0.9641  45da0f8 (step 300)  45da0f8 (step 300)
bfb06bc     2026-03-01T14:00:00Z  running  0.0003  adamw      0.1500    0.9500  d01b7aa (step 50)   d01b7aa (step 50)
"""


def test_piped_it_is_a_whole_table_and_nothing_else(repo: Repo, keepsake: Run) -> None:
    assert keepsake("ls") == Result(0, PIPED, "")
    assert keepsake("ls", COLUMNS="20") == Result(0, PIPED, "")


@pytest.mark.parametrize(
    ("columns", "headings"),
    [
        (60, "EXPERIMENT STARTED STATUS VAL_LOSS BEST_CHECKPOINT"),
        (80, "EXPERIMENT STARTED STATUS LR OPTIMIZER VAL_LOSS BEST_CHECKPOINT"),
        (120, "EXPERIMENT STARTED STATUS LR OPTIMIZER VAL_LOSS ACC BEST_CHECKPOINT LATEST_CHECKPOINT"),
    ],
)
def test_on_a_terminal_whole_columns_give_way(repo: Repo, terminal, columns: int, headings: str) -> None:
    result = terminal("ls", width=columns, NO_COLOR="1").end()
    table, footer = result.out.split("\n\n")
    assert result.code == 0
    assert re.split(r"  +", table.splitlines()[0]) == [heading.replace("_C", " C") for heading in headings.split()]
    assert all(width(line) <= columns for line in table.splitlines())
    assert re.search(r"^eb96def +\d+d ago +stopped ", table, re.MULTILINE)
    lines = footer.splitlines()
    assert lines[0] == "5 experiments, 1 running. Best val_loss 0.1484 (4591273)"
    assert lines[1] == "Same in all: batch_size=64 model.depth=3"
    assert [" hidden: " in line for line in lines[2:]] == ([True] if columns < 120 else [])


def test_params_beyond_the_third_give_way_before_metrics(repo: Repo, terminal) -> None:
    for number, short in enumerate(("aa", "bb")):
        params = dict.fromkeys(("alpha", "beta", "gamma", "delta", "epsilon"), number)
        metrics = {"val_loss": 0.5 + number, "acc": 0.1 * number}
        repo.add(short, user="eve", params=params, checkpoints=[checkpoint(full_id(short + "c"), 1, 1, metrics=metrics)])
    heading = terminal("ls", "-f", "user = eve", width=86, NO_COLOR="1").end().out.splitlines()[0]
    assert "ACC" in heading
    assert "GAMMA" in heading
    assert "EPSILON" not in heading


def test_all_shows_what_is_equal_too(repo: Repo, here: Run) -> None:
    heading = here("ls", "--all").lines[0].split()
    assert heading[3:9] == ["HOST", "USER", "LR", "OPTIMIZER", "BATCH_SIZE", "MODEL.DEPTH"]


def test_json_has_the_keys_of_the_original_and_ours(repo: Repo, keepsake: Run) -> None:
    result = keepsake("ls", "--json")
    listed = json.loads(result.out, parse_constant=pytest.fail)
    original = "id created params command num_checkpoints latest_checkpoint best_checkpoint user host running"
    ours = "status status_reason last_heartbeat error ended duration_s uploaded git name tags notes aliases size_bytes"
    assert [list(one) for one in listed] == [[*original.split(), *ours.split()]] * 5
    assert [one["id"] for one in listed] == IN_ORDER
    assert [one["running"] for one in listed] == [False, False, False, False, True]
    assert [one["status"] for one in listed] == ["stopped", "failed", "stopped", "stopped", "running"]
    assert listed[0]["best_checkpoint"]["metrics"] == {"val_loss": 0.21211111, "acc": 0.9411}
    assert (listed[0]["num_checkpoints"], listed[1]["latest_checkpoint"]) == (2, None)
    assert listed[0]["created"] == "2026-03-01T08:00:00.000000Z"


def test_json_is_one_document_whichever_way_it_comes(repo: Repo, here: Run) -> None:
    def listed(*options: str) -> str:
        # The last sign of life is told by its age, at each look anew.
        return re.sub(r'("last_heartbeat": ?)"[^"]*"', r"\1null", here("ls", *options).out)

    whole = listed("--json")
    assert [one["id"] for one in json.loads(whole)] == IN_ORDER
    assert whole == json.dumps(json.loads(whole), indent=2, ensure_ascii=False) + "\n"
    assert listed("--json", "-s", "created") == listed("--json", "--no-cache") == whole
    by_line = [json.loads(line) for line in listed("--format", "jsonl").splitlines()]
    assert by_line == json.loads(whole)
    assert json.loads(listed("--json", "-n", "2")) == by_line[-2:]
    assert json.loads(listed("--json", "-s", "-created")) == by_line[::-1]
    assert listed("--json", "-f", "user = nobody") == "[]\n"


def test_json_spells_what_json_lacks_and_steers_no_terminal(repo: Repo, keepsake: Run) -> None:
    repo.add("aaaaaaa", params={"x": math.nan, "y": -math.inf, "z": "\x1b[2J\x9b\u202e\ud800"})
    result = keepsake("ls", "--json", "-f", "id = " + full_id("aaaaaaa"))
    params = json.loads(result.out)[0]["params"]
    assert params == {"x": "[NaN]", "y": "[-Infinity]", "z": "\x1b[2J\x9b\u202e\ud800"}
    assert not set(result.out) & {"\x1b", "\x9b", "\u202e"}


def test_quiet_prints_whole_ids(repo: Repo, keepsake: Run) -> None:
    assert keepsake("ls", "-q") == Result(0, "".join(f"{id}\n" for id in IN_ORDER), "")


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        (["optimizer = sgd"], [FINISHED]),
        (["lr = 0.001"], [FINISHED, KILLED]),
        (["lr = 0.001", "optimizer = adamw"], [KILLED]),
        (["status = failed"], [FAILED]),
        (["status = stopped"], [FINISHED, FAILED, INTERRUPTED, KILLED]),
        (["val_loss < 0.2"], [KILLED, RUNNING]),
        (["val_loss != 0.15"], [FINISHED, FAILED, INTERRUPTED, KILLED]),
        (["created >= 2026-03-01T13:00Z"], [KILLED, RUNNING]),
        (["outcome = interrupted"], [INTERRUPTED]),
        (["model.depth > 2"], IN_ORDER),
        (["optimizer in (sgd, lion) or not val_loss exists"], [FINISHED, FAILED, INTERRUPTED]),
        (["optimizer ~ ADAM and (status = running or val_loss < 0.15)"], [KILLED, RUNNING]),
    ],
)
def test_filters_must_all_hold(repo: Repo, here: Run, filters: list[str], wanted: list[str]) -> None:
    arguments = [word for text in filters for word in ("-f", text)]
    assert here("ls", "-q", *arguments).lines == wanted


@pytest.mark.parametrize("command", ["ls", "list"])
def test_what_has_no_value_comes_last_in_either_direction(repo: Repo, here: Run, command: str) -> None:
    repo.add("aaaaaaa", checkpoints=[checkpoint(full_id("ccccccc"), 1, 1, metrics={"val_loss": math.nan})])
    last = {full_id("aaaaaaa"), FAILED, INTERRUPTED}
    for key, ordered in (("val_loss", [KILLED, RUNNING, FINISHED]), ("-val_loss", [FINISHED, RUNNING, KILLED])):
        ids = here(command, "-q", "-s", key).lines
        assert (ids[:3], set(ids[3:])) == (ordered, last)
    assert here(command, "-q", "-s", "-val_loss").lines == here(command, "-q", "-s", "val_loss-desc").lines


def test_an_empty_repository(empty_repo: Repo, keepsake: Run) -> None:
    assert keepsake("ls") == Result(0, "", "No experiments in file://.keepsake yet.\n")
    assert keepsake("ls", "--json") == Result(0, "[]\n", "")


def test_the_reader_of_a_pipe_may_leave(repo: Repo) -> None:
    for number in range(300):
        repo.add(f"c{number:04}", params={"text": "x" * 1000 + str(number)})
    line = f"set -o pipefail; '{sys.executable}' -W error -m keepsake ls | head -1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120, env=os.environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("EXPERIMENT")


def test_hostile_text_is_shown_and_not_obeyed(repo: Repo, here: Run, terminal) -> None:
    evil = "\x1b]0;pwned\x07\x1b[2J\u202e\x9b\n"
    repo.add("aaaaaaa", params={evil: evil}, user=evil, host=evil, command=evil, error=evil, outcome="failed")
    for arguments in (["ls"], ["ls", "--all"], ["show", "aaaaaaa"], ["diff", "aaaaaaa", "eb96def"], ["show", "aaaaaaa", "--all"]):
        result = here(*arguments)
        assert result.code == 0
        assert not set(result.out + result.err) & {"\x1b", "\x07", "\u202e", "\x9b"}
    assert not set(terminal("ls", NO_COLOR="1").end().out) & {"\x1b", "\x07", "\u202e", "\x9b"}


def test_wide_characters_stay_in_their_columns(repo: Repo, here: Run) -> None:
    repo.add("aaaaaaa", params={"optimizer": "模型", "lr": 0.1, "batch_size": 64, "model": {"depth": 3}})
    lines = here("ls").lines
    column = width(lines[0].split("VAL_LOSS")[0])
    rows = {line[:7]: line for line in lines}
    assert "模型" in rows["aaaaaaa"]
    starts = {width(row[: row.index("  -") + 2]) for id, row in rows.items() if id in ("aaaaaaa", "91af3b0")}
    assert starts == {column}


# --- ps -------------------------------------------------------------------------------------------------------------


def test_ps_lists_what_runs(repo: Repo, here: Run) -> None:
    result = here("ps")
    assert (result.code, result.err) == (0, "")
    assert result.lines[0].split()[:6] == ["EXPERIMENT", "STARTED", "STATUS", "ELAPSED", "LAST", "HOST"]
    assert [line[:7] for line in result.lines[1:]] == ["bfb06bc"]
    assert here("ps", "-q").lines == [RUNNING]
    assert [one["id"] for one in json.loads(here("ps", "--json").out)] == [RUNNING]
    assert here("ps", "-q", "-f", "user = eve").lines == []


def test_ps_where_nothing_runs(repo: Repo, here: Run) -> None:
    repo.repository.end_beat(RUNNING)
    assert here("ps").err == "No experiments are running (5 experiments in file://.keepsake).\n"


# --- colours and options of the whole program ----------------------------------------------------------------------------

COLOURED = "\x1b["


@pytest.mark.parametrize(
    ("arguments", "env", "coloured"),
    [
        ([], {}, False),
        (["--color=always"], {}, True),
        (["--color"], {}, True),
        (["--color", "true"], {"NO_COLOR": "1"}, True),
        ([], {"FORCE_COLOR": "1"}, True),
        ([], {"CLICOLOR_FORCE": "1"}, True),
        (["--color=never"], {"FORCE_COLOR": "1"}, False),
        (["--color=false"], {"FORCE_COLOR": "1"}, False),
    ],
)
def test_colours_in_a_pipe(repo: Repo, keepsake: Run, arguments: list[str], env: dict[str, str], coloured: bool) -> None:
    for command in (["ls", *arguments], [*arguments, "ls"]):
        result = keepsake(*command, **env)
        assert (result.code, COLOURED in result.out) == (0, coloured)
        assert re.sub(r"\x1b\[\d+m", "", result.out) == PIPED


@pytest.mark.parametrize(
    ("arguments", "env", "coloured"),
    [([], {}, True), ([], {"NO_COLOR": "1"}, False), ([], {"TERM": "dumb"}, False), (["--color=never"], {}, False)],
)
def test_colours_on_a_terminal(repo: Repo, terminal, arguments: list[str], env: dict[str, str], coloured: bool) -> None:
    assert (COLOURED in terminal("ls", *arguments, **env).end().out) == coloured


def test_the_project_directory_before_and_after_the_command(repo: Repo, keepsake: Run) -> None:
    elsewhere = repo.directory.parent
    for arguments in (
        ["-D", "project", "ls", "-q"],
        ["ls", "-q", "-D", "project"],
        ["ls", "-q", "-R", "file://project/.keepsake"],
    ):
        assert keepsake(*arguments, cwd=elsewhere).lines == IN_ORDER
    assert keepsake("ls", "-q", cwd=elsewhere, KEEPSAKE_DIRECTORY="project").lines == IN_ORDER
    assert keepsake("ls", "-q", cwd=elsewhere, KEEPSAKE_REPOSITORY="file://project/.keepsake").lines == IN_ORDER


# --- columns ----------------------------------------------------------------------------------------------------------


def test_columns_are_chosen_in_the_order_wanted(repo: Repo, keepsake: Run) -> None:
    assert keepsake("ls", "-c", "val_loss,optimizer", "-f", "optimizer = sgd").out == (
        "EXPERIMENT  VAL_LOSS  OPTIMIZER\neb96def     0.2121    sgd\n"
    )


def test_columns_are_added_and_taken_away(repo: Repo, here: Run) -> None:
    usual = here("ls").lines[0].split()
    assert here("ls", "-c", "+batch_size,-optimizer").lines[0].split() == [
        *(heading for heading in usual if heading != "OPTIMIZER"),
        "BATCH_SIZE",
    ]
    assert here("ls", "-c", "-metrics.*").lines[0].split()[3:5] == ["LR", "OPTIMIZER"]
    assert "ACC" not in here("ls", "-c", "-metrics.*").out


def test_what_is_asked_for_is_the_last_to_give_way(repo: Repo, terminal) -> None:
    heading = terminal("ls", "-c", "+batch_size", width=60, NO_COLOR="1").end().out.splitlines()[0]
    assert "BATCH_SIZE" in heading


def test_a_column_that_does_not_exist_is_an_error_with_the_nearest(repo: Repo, keepsake: Run) -> None:
    assert keepsake("ls", "-c", "val_los") == Result(2, "", 'error: no column named "val_los"\nhint: did you mean val_loss?\n')


def test_wide_shows_what_a_narrow_terminal_hides(repo: Repo, terminal) -> None:
    shown = terminal("ls", "--wide", width=60, NO_COLOR="1").end().out
    assert "LATEST CHECKPOINT" in shown
    assert "hidden" not in shown


# --- how many ---------------------------------------------------------------------------------------------------------


def test_a_limit_shows_the_last(repo: Repo, here: Run) -> None:
    assert here("ls", "-q", "-n", "2").lines == IN_ORDER[-2:]
    assert here("ls", "-q", "-n", "2", "-s", "-created").lines == IN_ORDER[:2][::-1]
    assert here("ls", "-q", "-n", "0").lines == IN_ORDER


def test_a_terminal_is_shown_the_newest_and_told_how_many_there_are(repo: Repo, terminal) -> None:
    for number in range(60):
        repo.add(f"{number:02x}f")
    shown = terminal("ls", NO_COLOR="1", width=200).end().out
    assert len(shown.split("\n\n")[0].splitlines()) == 51
    assert "Showing 50 of 65 experiments, 1 running (-n 0 for all)." in shown
    assert len(terminal("ls", "-n", "0", NO_COLOR="1", width=200).end().out.split("\n\n")[0].splitlines()) == 66


# --- formats ----------------------------------------------------------------------------------------------------------


def test_csv_has_whole_ids_and_all_digits(repo: Repo, here: Run) -> None:
    repo.add(
        "aaaaaaa",
        params={"text": 'a "quoted", \x1b[31m text'},
        checkpoints=[checkpoint(full_id("c"), 1, 1, metrics={"x": 1 / 3})],
    )
    rows = list(csv.reader(io.StringIO(here("ls", "--format", "csv", "-c", "text,x,best").out)))
    assert rows[0] == ["experiment", "params.text", "metrics.x", "best_checkpoint"]
    assert [full_id("aaaaaaa"), 'a "quoted", \\x1b[31m text', "0.3333333333333333", ""] in rows
    assert here("ls", "--format", "tsv", "-c", "x").out.splitlines()[0] == "experiment\tmetrics.x"


def test_markdown_and_lines_of_json(repo: Repo, here: Run) -> None:
    lines = here("ls", "--format", "md", "-c", "optimizer", "-f", "optimizer = sgd").lines
    assert lines == ["| EXPERIMENT | OPTIMIZER |", "| --- | --- |", "| eb96def | sgd |"]
    objects = [json.loads(line) for line in here("ls", "--format", "jsonl").lines]
    assert [one["id"] for one in objects] == IN_ORDER


def test_nothing_found_is_a_valid_document_in_each_format(repo: Repo, here: Run) -> None:
    for form, expected in (("json", "[]\n"), ("jsonl", ""), ("csv", ""), ("ids", "")):
        assert here("ls", "--format", form, "-f", "lr > 100") == Result(0, expected, "")


# --- again and again --------------------------------------------------------------------------------------------------


def test_watch_shows_what_is_new_until_ctrl_c(repo: Repo, terminal) -> None:
    screen = terminal("ls", "--watch", NO_COLOR="1", width=100)
    screen.wait_for("bfb06bc")
    repo.add("fedcba9")
    screen.wait_for("fedcba9")
    screen.type("\x03")
    assert screen.end().code == 0


def test_watch_needs_a_terminal(repo: Repo, keepsake: Run) -> None:
    result = keepsake("ls", "--watch")
    assert (result.code, result.out) == (2, "")
    assert "--watch shows a table on a terminal" in result.err


# --- the cache --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [["ls"], ["ps"], ["show", "eb96def", "--json"], ["diff", "eb96def", "76ab171", "--json"], ["checkout", "eb96def", "-n"]],
)
def test_without_a_cache_all_is_the_same_and_nothing_is_kept(
    repo: Repo, keepsake: Run, tmp_path: Path, command: list[str]
) -> None:
    empty = tmp_path / "empty-cache"
    without = keepsake(*command, "--no-cache", KEEPSAKE_CACHE_DIR=str(empty))
    assert not empty.exists()
    assert without == keepsake(*command, KEEPSAKE_CACHE_DIR=str(empty))
    assert without.code == 0
    assert list(empty.glob("*.index.sqlite"))


def test_columns_of_the_settings_hold_where_no_flag_says_otherwise(repo: Repo, keepsake: Run) -> None:
    with (repo.directory / "keepsake.yaml").open("a", encoding="utf-8") as file:
        file.write("\nls: {columns: [lr, user]}\n")
    assert keepsake("ls").out.split()[:3] == ["EXPERIMENT", "LR", "USER"]
    assert keepsake("ls", KEEPSAKE_COLUMNS="optimizer").out.split()[:2] == ["EXPERIMENT", "OPTIMIZER"]
    assert keepsake("ls", "-c", "acc", KEEPSAKE_COLUMNS="optimizer").out.split()[:2] == ["EXPERIMENT", "ACC"]


def test_the_names_that_there_are(repo: Repo, here: Run) -> None:
    result = here("ls", "--names")
    assert result.lines[0].split() == ["NAME", "KIND", "EXPERIMENTS", "VALUES"]
    rows = {line.split()[0]: line.split()[1:] for line in result.lines[1:]}
    assert rows["optimizer"][0] == "param"
    assert rows["duration"] == ["field"]
    assert rows["model.depth"] == ["param", "5", "3"]
    assert rows["val_loss"][0] == "metric"
    assert len(here("ls", "--names", "-f", "status = failed").lines) < len(result.lines)
    assert here("ls", "--names", "--json").code == 2
    assert here("ls", "--names", "--watch").code == 2
