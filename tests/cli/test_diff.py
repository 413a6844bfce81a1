"""``keepsake diff``: what differs between experiments, checkpoints and the working directory."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from keepsake.capture.files import FileEntry
from keepsake.repository import layout
from tests.archives import store_archive
from tests.cli.conftest import FINISHED, FINISHED_BEST, KILLED, START, Repo, Result, checkpoint, full_id

Run = Callable[..., Result]

FIRST, SECOND, THIRD = (full_id(short) for short in ("1111111", "2222222", "3333333"))

TRAIN = b"""\
import torch


def make_optimizer(model, args):
    \"\"\"Return the optimizer.\"\"\"
    count = sum(1 for _ in model.parameters())
    assert count
    return torch.optim.SGD(model.parameters(), lr=args.lr)
"""
EVIL = "\x1b]0;pwned\x07\x1b[2J\u202e\x9b"
NOTEBOOK = '{"cells": [{"cell_type": "code", "source": ["lr = %s\\n", "train(lr)"], "outputs": ["%s"]}], "nbformat": 4}'


def code_of(version: int) -> dict[str, bytes]:
    files = {
        "train.py": TRAIN
        if version == 1
        else TRAIN.replace(b"SGD(", b"AdamW(\n        ").replace(b"args.lr)", b"args.lr\n    )"),
        "notes.ipynb": (NOTEBOOK % ("0.1" if version == 1 else "0.2", "x" * version)).encode(),
        "outputs.ipynb": (NOTEBOOK % ("0.1", "x" * version)).encode(),
        "logo.png": b"\x89PNG\0" + bytes([version]) * 200,
        "run.sh": b"#!/bin/sh\n",
        "README.md": b"the same\n",
    }
    return files | ({"schedule.py": b"def warmup(step, n):\n    return min(1, step / n)"} if version > 1 else {})


def save(repo: Repo, id: str, code: Mapping[str, bytes] | None, files: Mapping[str, bytes] | None = None, **fields) -> None:
    """Save an experiment with code and one checkpoint with files; of the code ``run.sh`` is executable but for the first."""
    record = repo.add(id, **fields)
    if code is not None:
        source = repo.directory.parent / "code" / id
        for name, content in code.items():
            path = source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            path.chmod(0o755 if name == "run.sh" and id != FIRST else 0o644)
        entries = [FileEntry(name, source / name, "file") for name in code]
        record.path, record.archive = ".", store_archive(repo.repository, layout.experiment_archive_key(id), entries, id)
    if files is not None:
        [shown] = record.checkpoints
        shown.path, shown.archive = "out", repo.archive(layout.checkpoint_archive_key(shown.id), files)
    repo.repository.save(record)


@pytest.fixture
def three(empty_repo: Repo) -> Repo:
    """Three experiments with code and checkpoints."""
    values = [
        (FIRST, "sgd", 0.3, 0.2121, 0.9411, 0.1622),
        (SECOND, "adamw", 0.1, 0.1484, 0.9641, 0.0911),
        (THIRD, "adamw", 0.1, 0.25, 0.9, 0.3),
    ]
    for number, (id, optimizer, dropout, loss, accuracy, train_loss) in enumerate(values, 1):
        save(
            empty_repo,
            id,
            code_of(number),
            {"model.pth": bytes([number]) * 101_000, "vocab.json": b"{}"},
            created=START + timedelta(hours=number),
            ended=START + timedelta(hours=number, minutes=72),
            params={"lr": 0.001, "optimizer": optimizer, "model": {"dropout": dropout}},
            python_version="3.12.4",
            python_packages={"click": "8.1.7", "torch": f"2.{7 + number}.0"},
            system={"os": "Linux 6.1 x86_64", "gpus": [{"name": "H100"}] * number},
            checkpoints=[
                checkpoint(
                    full_id(f"c{number}"),
                    number * 100,
                    90 * number,
                    metrics={"val_loss": loss, "val_acc": accuracy, "train_loss": train_loss},
                )
            ],
        )
    return empty_repo


# --- two ----------------------------------------------------------------------------------------------------------------

REPORT = """\
                  1111111                  2222222
checkpoint        c100000 step 100 best    c200000 step 200 best
ran               2026-03-01 09:00 1h 12m  2026-03-01 10:00 1h 12m

Params (2 of 3 differ)
  optimizer       sgd                      adamw
  model.dropout   0.3                      0.1

Metrics (3 of 3 differ)
  val_loss (min)  0.2121                   0.1484  -0.0637   -30%  better
  val_acc         0.9411                   0.9641  +0.0230  +2.4%
  train_loss      0.1622                   0.0911  -0.0711   -44%

Environment (2 of 5 differ)
  gpu             1x H100                  2x H100
  torch           2.8.0                    2.9.0

Code (6 files, +6 -2)
  logo.png        205 B  181c970           205 B  edc845e  differs
  outputs.ipynb   106 B  bfe6bc0           107 B  cbb01bd  outputs differ
  run.sh          10 B  a8076d3            10 B  a8076d3   executable now
--- 1111111/notes.ipynb
+++ 2222222/notes.ipynb (sources of its cells)
@@ -1,3 +1,3 @@
 # %% [code]
-lr = 0.1
+lr = 0.2
 train(lr)
--- /dev/null
+++ 2222222/schedule.py
@@ -0,0 +1,2 @@
+def warmup(step, n):
+    return min(1, step / n)
\\ No newline at end of file
--- 1111111/train.py
+++ 2222222/train.py
@@ -5,4 +5,6 @@ def make_optimizer(model, args):
     \"""Return the optimizer.\"""
     count = sum(1 for _ in model.parameters())
     assert count
-    return torch.optim.SGD(model.parameters(), lr=args.lr)
+    return torch.optim.AdamW(
+        model.parameters(), lr=args.lr
+    )

Files (1 of 2 differs)
  model.pth       101 kB  5bc8468          101 kB  33a8556  differs
  vocab.json      same
"""

STAT_AT_60 = """\
                 1111111       2222222
checkpoint       c10000… best  c200000 step 200 best
ran              2026-0…h 12m  2026-03-01 10:00 1h 12m

Code (6 files, +6 -2)
  logo.png       205 B …1c970  205 B …dc845e  differs
  notes.ipynb    +1 -1
  outputs.ipynb  106 B …e6bc0  107 B …bb01bd  outputs differ
  run.sh         10 B  …076d3  10 B  a8076d3  executable now
  schedule.py    +2 -0                        new
  train.py       +3 -1
"""


@pytest.mark.parametrize("width", [80, 120])
def test_two_on_a_terminal(three: Repo, terminal, width: int) -> None:
    assert terminal("diff", "111", "222", width=width, NO_COLOR="1").end().out == REPORT


def test_two_in_a_pipe(three: Repo, keepsake: Run) -> None:
    piped = REPORT.replace("--- 1111111/", "--- a/").replace("+++ 2222222/", "+++ b/")
    assert keepsake("diff", "111", "222") == Result(0, piped, "")


def test_colours_are_added_and_nothing_else(three: Repo, terminal) -> None:
    shown = terminal("diff", "111", "222").end().out
    assert "\x1b[32m+    return torch.optim.AdamW(\x1b[0m" in shown
    assert "\x1b[31m-lr = 0.1\x1b[0m" in shown
    assert "\x1b[32mbetter\x1b[0m" in shown
    assert re.sub(r"\x1b\[\d*m", "", shown) == REPORT


def test_files_that_differ_in_numbers(three: Repo, terminal) -> None:
    shown = terminal("diff", "111", "222", "--stat", "--only", "code", width=60, NO_COLOR="1").end().out
    assert shown == STAT_AT_60


def test_two_checkpoints_of_one_experiment(repo: Repo, here: Run) -> None:
    result = here("diff", "fe6a313", "0b77c4e")
    assert "worse" in result.out
    assert {"Params: same", "Code: same"} <= set(result.lines)
    assert "  model.pth       12 B  85d4abc            14 B  058223b  differs" in result.lines


def test_percent_is_never_scientific(repo: Repo, here: Run) -> None:
    for short, loss in (("aa", 0.25), ("bb", 1.25)):
        repo.add(short, checkpoints=[checkpoint(full_id(short + "c"), 1, 1, metrics={"val_loss": loss})])
    result = here("diff", "aa0", "bb0")
    assert "+400%" in result.out
    assert "e+" not in result.out


def test_runs_without_checkpoints_and_without_code(empty_repo: Repo, here: Run) -> None:
    for short in ("aa", "bb"):
        empty_repo.add(short)
    save(empty_repo, full_id("cc"), {"a": b"1"})
    assert here("diff", "aa", "bb").lines[1].split() == ["checkpoint", "none", "none"]
    assert here("diff", "aa", "bb").lines[4:] == [
        "Params: none",
        "Metrics: none",
        "Environment: none",
        "Code: none",
        "Files: none",
    ]
    assert here("diff", "aa", "cc").lines[-2:] == ["Code: nothing saved in aa00000", "Files: none"]


def test_code_that_is_not_stored_yet(three: Repo, here: Run) -> None:
    def take_back(record) -> None:
        record.archive, record.archive_pending = None, True

    three.repository.update(SECOND, take_back)
    result = here("diff", "111", "222", "--exit-code")
    assert result.code == 1
    assert "Code: not stored yet in 2222222" in result.lines
    assert here("diff", "222", "222", "--only", "code", "--exit-code").code == 3


def test_code_and_files_that_are_lost(three: Repo, here: Run) -> None:
    for key in (layout.experiment_archive_key(FIRST), layout.checkpoint_archive_key(full_id("c200000"))):
        (three.root / key).unlink()
    result = here("diff", "111", "222", "--exit-code")
    assert result.code == 1
    assert "Code: not in the repository any more in 1111111" in result.lines
    assert "Files: not in the repository any more in 2222222" in result.lines
    assert any(line.startswith("  optimizer") for line in result.lines)
    patch = here("diff", "111", "222", "--only", "code")
    assert (patch.code, patch.out) == (3, "")


# --- choices ------------------------------------------------------------------------------------------------------------


def test_only_some_sections(three: Repo, here: Run) -> None:
    shown = here("diff", "111", "222", "--only", "files,params").lines
    assert [line for line in shown if line[:1].isupper()] == ["Params (2 of 3 differ)", "Files (1 of 2 differs)"]
    assert here("diff", "111", "222", "--only", "files", "--only", "params").lines == shown
    result = here("diff", "111", "222", "--only", "metric")
    assert result.code == 2
    assert 'no section "metric", did you mean "metrics"?' in result.err


def test_only_some_paths(three: Repo, here: Run) -> None:
    shown = here("diff", "111", "222", "--path", "*.py", "--path", "model.pth", "--stat").lines
    assert shown[4:] == [
        "Code (2 files, +5 -1)",
        "  schedule.py  +2 -0                      new",
        "  train.py     +3 -1",
        "",
        "Files (1 of 1 differs)",
        "  model.pth  101 kB  5bc8468          101 kB  33a8556  differs",
    ]


def test_all_shows_also_what_is_the_same(three: Repo, here: Run) -> None:
    shown = here("diff", "111", "222", "--all").lines
    assert "  lr              0.001                    0.001" in shown
    assert "  click           8.1.7                    8.1.7" in shown
    many = {f"{number:02}.bin": b"1" for number in range(9)}
    for short in ("aa", "bb"):
        id = full_id(short)
        save(three, id, None, many | {"x": short.encode()}, checkpoints=[checkpoint(full_id("e" + short), 1, 1)])
    shown = here("diff", "aa", "bb", "--only", "files").lines
    assert [line.split()[0] for line in shown[-7:]] == ["x", *(f"{number:02}.bin" for number in range(5)), "…"]
    assert shown[-1] == "  … 4 more are the same: --all"
    assert len(here("diff", "aa", "bb", "--only", "files", "--all").lines) == len(shown) + 3


def test_context_lines(three: Repo, here: Run) -> None:
    assert "@@ -8 +8,3 @@ def make_optimizer(model, args):" in here("diff", "111", "222", "-U", "0").lines
    assert "@@ -1,8 +1,10 @@" in here("diff", "111", "222", "-U9").lines


def test_words_that_differ(three: Repo, here: Run, terminal) -> None:
    expected = "    return torch.optim.[-SGD-]{+AdamW+}("
    assert expected in here("diff", FIRST, SECOND, "--word").out
    # Words are for people: what asks for them is no patch, not even in a pipe.
    assert expected in here("diff", FIRST, SECOND, "--only", "code", "--word").out
    assert "{+def warmup(step, n):+}" in here("diff", FIRST, SECOND, "--word").out
    coloured = terminal("diff", FIRST, SECOND, "--word", width=100).end().out
    assert "\x1b[31m[-SGD-]\x1b[0m\x1b[32m{+AdamW+}\x1b[0m" in coloured
    for other in ("--json", "--stat", "--tool=true"):
        result = here("diff", FIRST, SECOND, "--word", other)
        assert (result.code, result.err.splitlines()[0]) == (2, "error: --word goes with neither --json nor --stat nor --tool")
    assert here("diff", FIRST, SECOND, THIRD, "--word").code == 2


def test_what_is_too_long_for_a_terminal_is_counted(three: Repo, here: Run, terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    for short, digit in (("aa", b"1"), ("bb", b"2")):
        long = {"long.txt": b"".join(b"%b%d\n" % (digit, number) for number in range(2500)), "my data.csv": digit * 1_000_001}
        save(three, full_id(short), long)
    shown = terminal("diff", "aa", "bb", "--only", "code", width=100, NO_COLOR="1").end().out.splitlines()
    assert [line.split() for line in shown[-3:-1]] == [
        ["long.txt", "+2500", "-2500"],
        ["my", "data.csv", "1", "MB", shown[-2].split()[4], "1", "MB", shown[-2].split()[7], "differs"],
    ]
    assert shown[-1] == "  too long to show; as a patch: keepsake diff aa00000 bb00000 --only code > changes.patch"
    piped = here("diff", "aa", "bb", "--path", "my*").lines
    assert (
        piped[-3]
        == "  too long to show; as a patch: keepsake diff aa00000 bb00000 --only code --path 'my data.csv' > changes.patch"
    )
    assert "+22499" in here("diff", "aa", "bb").lines


def test_the_exit_code(three: Repo, here: Run) -> None:
    assert here("diff", "111", "222", "--exit-code").code == 1
    assert here("diff", "111", "222", "--only", "code", "--exit-code").code == 1
    assert here("diff", "111", "222", "333", "--json", "--exit-code").code == 1
    assert here("diff", "111", "222", "--path", "README.md", "--exit-code").code == 0
    same = here("diff", "111", "111", "--exit-code")
    assert same.code == 0
    assert same.lines[4:] == ["Params: same", "Metrics: same", "Environment: same", "Code: same", "Files: same"]
    assert here("diff", "111", "111", "--only", "code", "--exit-code") == Result(0, "", "")


# --- JSON ---------------------------------------------------------------------------------------------------------------


def test_json(three: Repo, keepsake: Run) -> None:
    compared = json.loads(keepsake("diff", "111", "222", "--json").out)
    assert list(compared) == ["left", "right", "params", "metrics", "environment", "code", "files"]
    assert compared["left"] == {"experiment": FIRST, "checkpoint": full_id("c1")}
    assert compared["params"]["optimizer"] == {"left": "sgd", "right": "adamw"}
    assert "lr" not in compared["params"]
    loss = compared["metrics"]["val_loss"]
    assert (loss["better"], loss["goal"], loss["delta"]) == (True, "minimize", pytest.approx(-0.0637))
    files = {file["path"]: file for file in compared["code"]["files"]}
    assert files.keys() == {"logo.png", "notes.ipynb", "outputs.ipynb", "run.sh", "schedule.py", "train.py"}
    assert (files["schedule.py"]["status"], files["schedule.py"]["added"], "left" in files["schedule.py"]) == ("added", 2, False)
    assert (files["run.sh"]["left"]["executable"], files["run.sh"]["right"]["executable"]) == (False, True)
    assert "added" not in files["logo.png"]
    assert compared["code"]["same"] == 1
    [model] = compared["files"]["files"]
    assert model["left"]["size_bytes"] == 101_000
    assert len(model["right"]["sha256"]) == 64


def test_json_of_two_without_code_is_as_before(repo: Repo, keepsake: Run) -> None:
    compared = json.loads(keepsake("diff", "eb96def", "4591273", "--json", "--only", "params,metrics,env").out)
    assert list(compared) == ["left", "right", "params", "metrics", "environment"]
    assert compared["left"] == {"experiment": FINISHED, "checkpoint": FINISHED_BEST}
    assert compared["right"]["experiment"] == KILLED
    everything = json.loads(keepsake("diff", "eb96def", "4591273", "--json").out)
    assert everything["code"] == {"files": [], "same": 0, "absent": {"right": "nothing saved"}}


def test_json_of_three_and_of_the_working_directory(three: Repo, keepsake: Run) -> None:
    compared = json.loads(keepsake("diff", "111", "222", ".", "--json").out)
    assert [side["experiment"] for side in compared["sides"]] == [FIRST, SECOND, None]
    second, directory = compared["compared_with_first"]
    assert second["params"]["optimizer"] == {"left": "sgd", "right": "adamw"}
    assert directory["params"] is None
    assert {file["status"] for file in directory["code"]["files"]} == {"deleted", "added"}


# --- three and more -----------------------------------------------------------------------------------------------------

THREE = """\
                  1111111                  2222222                  3333333
checkpoint        c100000 step 100 best    c200000 step 200 best    c300000 step 300 best
ran               2026-03-01 09:00 1h 12m  2026-03-01 10:00 1h 12m  2026-03-01 11:00 1h 12m

Params
  optimizer       sgd                      adamw                    adamw
  model.dropout   0.3                      0.1                      0.1

Metrics
  val_loss (min)  0.2121                   0.1484                   0.2500
  val_acc         0.9411                   0.9641                   0.9000
  train_loss      0.1622                   0.0911                   0.3000

Environment
  gpu             1x H100                  2x H100                  3x H100
  torch           2.8.0                    2.9.0                    2.10.0

Code              6 files                  +6 -2 in 6 files         +6 -2 in 6 files
Files             2 files                  1 of 2 differ            1 of 2 differ
"""

THREE_AT_80 = """\
EXPERIMENT  OPTIMIZER  MODEL.DROPOUT  VAL_LOSS (MIN)  VAL_ACC  CODE
1111111     sgd        0.3            0.2121          0.9411   6 files
2222222     adamw      0.1            0.1484          0.9641   +6 -2 in 6 files
3333333     adamw      0.1            0.2500          0.9000   +6 -2 in 6 files

6 columns hidden, which have no room: checkpoint ran train_loss gpu torch files
"""


def test_three_beside_each_other(three: Repo, terminal, keepsake: Run) -> None:
    assert keepsake("diff", "111", "222", "333") == Result(0, THREE, "")
    assert terminal("diff", "111", "222", "333", width=120, NO_COLOR="1").end().out == THREE
    assert terminal("diff", "111", "222", "333", width=80, NO_COLOR="1").end().out == THREE_AT_80
    coloured = terminal("diff", "111", "222", "333", width=120).end().out
    assert "\x1b[32m0.1484\x1b[0m" in coloured
    assert "\x1b[31m0.2500\x1b[0m" in coloured


def test_the_code_of_three_line_by_line(three: Repo, here: Run) -> None:
    found = here("diff", "111", "222", "333", "--code")
    assert found.err == ""
    plain, result = here("diff", "111", "222", "333").lines, found.lines
    assert result[: len(plain)] == plain
    rest = result[len(plain) :]
    heads = [line for line in rest if line.startswith("Code of ")]
    assert heads == ["Code of 1111111 and 2222222 (6 files, +6 -2)", "Code of 1111111 and 3333333 (6 files, +6 -2)"]
    patch = [line for line in here("diff", "111", "333").lines if line[:1] in ("+", "-", "@")]
    assert patch
    assert [line for line in rest[rest.index(heads[1]) :] if line[:1] in ("+", "-", "@")] == patch
    without = here("diff", "111", "222", "222", "--only", "params").out
    assert here("diff", "111", "222", "222", "--code", "--only", "params").out == without
    assert here("diff", "111", "111", "111", "--code", "--only", "code").lines[-3:] == [
        "Code of 1111111 and 1111111: same",
        "",
        "Code of 1111111 and 1111111: same",
    ]
    for option in ("--json", "--stat", "--tool=true"):
        assert here("diff", "111", "222", "333", "--code", option).code == 2


def test_of_three_that_are_the_same_and_one_with_less(three: Repo, here: Run) -> None:
    assert here("diff", "111", "111", "111").lines[3:] == [
        "",
        "Params: same",
        "Metrics: same",
        "Environment: same",
        "Code: same",
        "Files: same",
    ]
    three.add("44")
    table = here("diff", "111", "44", "222", "--only", "params,code,files").lines
    assert [line.split()[:3] for line in table if line.startswith(("  lr", "  opt"))] == [
        ["lr", "0.001", "-"],
        ["optimizer", "sgd", "-"],
    ]
    assert [" ".join(line.split()) for line in table[-2:]] == [
        "Code 6 files nothing saved +6 -2 in 6 files",
        "Files 2 files nothing saved 1 of 2 differ",
    ]
    assert "  optimizer" not in here("diff", "222", "333", "333", "--only", "params").out


# --- the working directory ----------------------------------------------------------------------------------------------


def test_the_working_directory(three: Repo, here: Run) -> None:
    for name, content in code_of(1).items():
        (three.directory / name).write_bytes(content)
    (three.directory / "run.sh").chmod(0o644)
    (three.directory / "train.py").write_bytes(TRAIN + b"train()\n")
    expected = """\
            1111111                  .
checkpoint  c100000 step 100 best    working directory
ran         2026-03-01 09:00 1h 12m  now

Params, Metrics, Environment: not recorded of a working directory

Code (2 files, +2 -0)
--- /dev/null
+++ b/keepsake.yaml
@@ -0,0 +1 @@
+repository: "file://.keepsake"
--- a/train.py
+++ b/train.py
@@ -6,3 +6,4 @@ def make_optimizer(model, args):
     count = sum(1 for _ in model.parameters())
     assert count
     return torch.optim.SGD(model.parameters(), lr=args.lr)
+train()

Files: no out in .
"""
    assert here("diff", "111").out == expected
    assert here("diff", "111", ".").out == expected
    assert "-train()" in here("diff", ".", "111").lines
    (three.directory / "below").mkdir()
    assert here("diff", "111", "-D", str(three.directory)).out == expected


def test_a_patch_brings_the_working_directory_to_an_experiment(three: Repo) -> None:
    for name, content in code_of(1).items():
        (three.directory / name).write_bytes(content)
    line = f"set -o pipefail; '{sys.executable}' -W error -m keepsake diff . 222 --only code | git apply"
    env = {**os.environ, "GIT_CEILING_DIRECTORIES": str(three.directory.parent)}
    subprocess.run(["bash", "-c", line], check=True, timeout=120, env=env)
    assert {name: (three.directory / name).read_bytes() for name in code_of(2)} == code_of(2)
    assert os.access(three.directory / "run.sh", os.X_OK)


def test_a_patch_is_printed_whole_or_not_at_all(three: Repo, here: Run) -> None:
    for short in ("aa", "bb"):
        save(three, full_id(short), {"first.txt": short.encode(), "last.bin": random.Random(short).randbytes(3 << 20)})
    archive = three.root / layout.experiment_archive_key(full_id("bb"))
    content = bytearray(archive.read_bytes())
    content[2 << 20] ^= 1
    archive.write_bytes(content)
    result = here("diff", "aa", "bb", "--only", "code")
    assert (result.code, result.out) == (1, "")
    assert "error: experiment bb00000 in file://.keepsake: last.bin does not match its sha256" in result.err
    assert "hint: keepsake fsck" in result.err


# --- hostile text -------------------------------------------------------------------------------------------------------


def test_nothing_that_was_recorded_steers_the_terminal(three: Repo, here: Run, terminal) -> None:
    evil = EVIL.encode()
    for short, mark in (("d1", "1"), ("d2", "2")):
        code = {
            f"{EVIL}{mark}.py": evil,
            "train.py": evil + mark.encode() + b"\n",
            f"{EVIL}.ipynb": b'{"cells": []}',
            "b": b"\0" + mark.encode(),
        }
        save(
            three,
            full_id(short),
            code | {f"{EVIL}same.bin": b"\0" + mark.encode(), f"{EVIL}long": mark.encode() * 1_000_001},
            {f"{EVIL}.pth": mark.encode()},
            params={EVIL: EVIL + mark},
            python_version=EVIL + mark,
            python_packages={EVIL: mark},
            system={"os": EVIL + mark, "gpus": [EVIL + mark]},
            checkpoints=[checkpoint(full_id("e" + short), 1, 1, metrics={EVIL: EVIL + mark})],
        )
    harmful = {"\x1b", "\x07", "\u202e", "\x9b"}
    for arguments in (["d1", "d2"], ["d1", "d2", "111"], ["d1", "d2", "--stat", "--all"], ["d1"]):
        result = here("diff", *arguments)
        assert (result.code, result.err) == (0, "")
        assert not set(result.out) & harmful
        assert not set(terminal("diff", *arguments, NO_COLOR="1").end().out) & harmful
    assert not set(terminal("diff", "d1", "d2", "--only", "code", NO_COLOR="1").end().out) & harmful
    assert not set(here("diff", "d1", "d2", "--json").out) & harmful
    # A pipe gets the true bytes of the patch.
    assert "\n+" + EVIL + "2\n" in here("diff", "d1", "d2", "--only", "code").out


def test_tabs_and_line_ends_of_windows_are_shown_as_people_expect(three: Repo, here: Run) -> None:
    save(three, full_id("aa"), {"tabs": b"\ta\n", "windows": b"a\r\nb\r\n", "mixed": b"a\r\nb\n"})
    save(three, full_id("bb"), {"tabs": b"\tb\n", "windows": b"a\r\nc\r\n", "mixed": b"a\r\nc\n"})
    shown = here("diff", "aa", "bb", "--path", "*").lines
    assert {"-\ta", "+\tb", "+c", " a\\r"} <= set(shown)
    assert "+c\\r" not in shown


# --- another program ----------------------------------------------------------------------------------------------------


def test_a_tool_gets_both_trees(three: Repo, here: Run, tmp_path: Path) -> None:
    script = tmp_path / "tool.py"
    script.write_text(
        "import pathlib, sys\n"
        "a, b = map(pathlib.Path, sys.argv[1:])\n"
        "pathlib.Path('seen').write_text(f'{(a / \"train.py\").read_text() != (b / \"train.py\").read_text()} {b}')\n"
        "sys.exit(4)\n"
    )
    (three.directory / "train.py").write_bytes(TRAIN)
    for command in (f"{sys.executable} {script} {{a}} {{b}}", f"{sys.executable} {script}"):
        assert here("diff", "111", "222", "--tool", command).code == 4
        differs, place = (three.directory / "seen").read_text().split()
        assert differs == "True"
        assert not Path(place).exists()
    assert here("diff", "111", ".", "--tool", command).code == 4
    assert (three.directory / "seen").read_text().split() == ["False", str(three.directory)]
    assert here("diff", "111", "222", "--tool", "no-such-program").code == 2
    assert here("diff", "111", "222", "333", "--tool", command).code == 2
