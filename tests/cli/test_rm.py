"""``keepsake rm`` deletes what it says, all of it, and nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from keepsake.repository import layout
from tests.cli.conftest import (
    FINISHED,
    FINISHED_BEST,
    FINISHED_LATEST,
    IN_ORDER,
    INTERRUPTED,
    KILLED,
    KILLED_ONLY,
    RUNNING,
    RUNNING_ONLY,
    Repo,
    Result,
)

Run = Callable[..., Result]

PLAN = '  experiment eb96def  stopped  2 checkpoints  lr=0.001 optimizer=sgd batch_size=64 model={"depth": 3}'


def objects(repo: Repo) -> set[str]:
    return {info.key for info in repo.repository.storage.list()}


def test_an_experiment_goes_with_everything_that_is_its_own(repo: Repo, keepsake: Run) -> None:
    before = objects(repo)
    result = keepsake("rm", "eb96def", input="y\n")
    plan, rest = result.err.split("\n", 1)
    assert (result.code, result.out, plan) == (0, "", PLAN)
    assert re.fullmatch(r"Delete (1 experiment \(2 checkpoints, [\d.]+ k?B\))\? \[y/N\] Deleted \1\.\n", rest)
    assert before - objects(repo) == {
        layout.record_key(FINISHED),
        layout.experiment_archive_key(FINISHED),
        layout.checkpoint_archive_key(FINISHED_BEST),
        layout.checkpoint_archive_key(FINISHED_LATEST),
    }


@pytest.mark.parametrize(("answer", "deleted"), [("y", True), ("YES", True), ("n", False), ("", False), ("yeah", False)])
def test_only_yes_is_yes(repo: Repo, here: Run, answer: str, deleted: bool) -> None:
    result = here("rm", "eb96def", input=f"{answer}\n")
    assert result.code == (0 if deleted else 6)
    assert (FINISHED not in repo.ids()) == deleted
    assert ("error: nothing was deleted: you said no" in result.err) != deleted


def test_yes_answers_and_so_does_force(repo: Repo, here: Run) -> None:
    assert here("rm", "eb96def", "-y").code == 0
    assert here("rm", "76ab171", "--force").code == 0
    assert repo.ids() == [INTERRUPTED, KILLED, RUNNING]


def test_a_running_experiment_goes_with_force(repo: Repo, here: Run) -> None:
    result = here("rm", "-f", "bfb06bc")
    assert (result.code, RUNNING in repo.ids()) == (0, False)
    assert layout.heartbeat_key(RUNNING) not in objects(repo)


def test_a_killed_experiment_is_not_running(repo: Repo, here: Run) -> None:
    assert here("rm", "-y", "4591273").code == 0
    assert KILLED not in repo.ids()


def test_a_checkpoint_leaves_the_record(repo: Repo, here: Run) -> None:
    result = here("rm", "-y", "fe6a313")
    assert result.err.splitlines()[0] == "  checkpoint fe6a313  step 100 of experiment eb96def"
    assert [checkpoint.id for checkpoint in repo.repository.load(FINISHED).checkpoints] == [FINISHED_LATEST]
    assert layout.checkpoint_archive_key(FINISHED_BEST) not in objects(repo)
    assert repo.ids() == IN_ORDER


def test_all_checkpoints_of_an_experiment_one_by_one(repo: Repo, here: Run) -> None:
    result = here("rm", "-y", "fe6a313", "0b77c4e")
    assert result.code == 0
    assert repo.repository.load(FINISHED).checkpoints == []
    assert "Deleted 2 checkpoints (" in result.err


def test_an_experiment_and_its_own_checkpoint(repo: Repo, here: Run) -> None:
    for order in (["eb96def", "fe6a313"], ["fe6a313", "eb96def"]):
        dry = here("rm", "--dry-run", *order)
        assert dry.err.splitlines()[0] == PLAN
        assert "1 experiment (2 checkpoints, " in dry.err
    result = here("rm", "-y", "eb96def", "fe6a313")
    assert result.code == 0
    assert repo.ids() == IN_ORDER[1:]


def test_one_thing_named_twice(repo: Repo, here: Run) -> None:
    result = here("rm", "-y", "eb96def", "eb96", FINISHED, "eb96def")
    assert (result.code, result.err.count("  experiment eb96def")) == (0, 1)
    assert repo.ids() == IN_ORDER[1:]


def test_a_mistake_in_the_last_id_costs_nothing(repo: Repo, here: Run) -> None:
    before = objects(repo)
    assert here("rm", "-y", "eb96def", "fe6a313", "zzz").code == 3
    assert objects(repo) == before


def test_a_dry_run_prints_the_plan_and_changes_nothing(repo: Repo, keepsake: Run) -> None:
    before = objects(repo)
    result = keepsake("rm", "-n", "--yes", "eb96def", "76ab171", "45da0f8")
    plan = result.err.splitlines()
    assert (result.code, result.out) == (0, "")
    assert plan[0] == PLAN
    assert plan[1].startswith("  experiment 76ab171  failed  0 checkpoints  lr=0.003")
    assert plan[2] == "  checkpoint 45da0f8  step 300 of experiment 4591273"
    assert re.fullmatch(r"Would delete 2 experiments and 1 checkpoint \(2 checkpoints, [\d.]+ k?B\) \(dry run\)\.", plan[3])
    assert objects(repo) == before


def test_a_dry_run_of_a_running_experiment_with_force(repo: Repo, here: Run) -> None:
    assert here("rm", "-n", "-f", "bfb06bc").code == 0
    assert repo.ids() == IN_ORDER


def test_nothing_named_means_nothing_deleted(repo: Repo, keepsake: Run) -> None:
    assert keepsake("rm") == Result(0, "", "Nothing to delete.\n")
    assert keepsake("rm", "--yes", "--force") == Result(0, "", "Nothing to delete.\n")
    assert repo.ids() == IN_ORDER


def test_the_checkpoint_of_a_running_experiment(repo: Repo, here: Run) -> None:
    assert here("rm", "-y", "d01b7aa").code == 6
    assert here("rm", "-f", "d01b7aa").code == 0
    assert RUNNING_ONLY not in [checkpoint.id for checkpoint in repo.repository.load(RUNNING).checkpoints]


def shell(line: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = f"keepsake() {{ '{sys.executable}' -W error -m keepsake \"$@\"; }}; set -o pipefail; {line}"
    return subprocess.run(
        ["bash", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, env={**os.environ, **env}
    )


def test_a_pipe_answers(repo: Repo) -> None:
    done = shell("(yes || true) | keepsake rm eb96def 76ab171")
    assert (done.returncode, done.stdout) == (0, "")
    assert "Delete 2 experiments (2 checkpoints, " in done.stderr
    assert repo.ids() == IN_ORDER[2:]


def test_what_ls_finds_is_deleted(repo: Repo) -> None:
    done = shell('keepsake rm --yes $(keepsake ls -q -f "optimizer = adamw" -f "status = stopped")')
    assert done.returncode == 0
    assert repo.ids() == [FINISHED, RUNNING]  # "stopped" is whatever does not run, as in keepsake 0.4.2
    done = shell('keepsake rm --yes $(keepsake ls -q -f "val_loss < 0.01")')
    assert (done.returncode, done.stderr) == (0, "Nothing to delete.\n")


def test_a_person_at_a_terminal_is_asked_once(repo: Repo, terminal) -> None:
    asked = terminal("rm", "eb96def")
    asked.wait_for("[y/N] ")
    asked.type("y\n")
    result = asked.end()
    assert result.code == 0
    assert result.out.count("[y/N]") == 1
    assert FINISHED not in repo.ids()


def test_hostile_params_are_not_printed_raw(repo: Repo, here: Run) -> None:
    repo.add("aaaaaaa", params={"na\x1b[2Jme": "va\x9blue\u202e"}, error="\x1b]0;title\x07")
    result = here("rm", "-n", "aaaaaaa")
    assert not set(result.err) & {"\x1b", "\x9b", "\u202e", "\x07"}
    assert "na\\x1b[2Jme=va\\x9blue\\u202e" in result.err


def test_only_the_records_concerned_are_read(repo: Repo, keepsake: Run) -> None:
    for number in range(3):
        (repo.root / layout.record_key(f"{number:064x}")).write_text("damaged", encoding="ascii")
    result = keepsake("rm", "-y", FINISHED)
    assert (result.code, "damaged" in result.err) == (0, False)


def test_a_long_plan_is_cut(repo: Repo, here: Run) -> None:
    ids = [repo.add(f"c{number:06x}").id for number in range(60)]
    result = here("rm", "-n", *ids)
    assert result.err.splitlines()[-2:] == ["  … 10 more", "Would delete 60 experiments (0 checkpoints) (dry run)."]


def test_the_record_is_written_once_for_many_checkpoints(repo: Repo, here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from keepsake.storage import DiskStorage

    written: list[str] = []
    write = DiskStorage.write
    monkeypatch.setattr(DiskStorage, "write", lambda self, key, body: (written.append(key), write(self, key, body))[1])
    assert here("rm", "-y", FINISHED_BEST, FINISHED_LATEST, KILLED_ONLY).code == 0
    assert written == [layout.record_key(FINISHED), layout.record_key(KILLED)]


KILLED_AT = """
import os, pathlib, signal, sys
from keepsake.__main__ import main

at, calls = int(sys.argv[1]), 0


def killed_before(real):
    def call(self, *arguments, **keywords):
        global calls
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)
        calls += 1
        return real(self, *arguments, **keywords)
    return call


for name in ("replace", "unlink"):
    setattr(pathlib.Path, name, killed_before(getattr(pathlib.Path, name)))
main(sys.argv[2:])
"""
"""Runs the command line and kills itself before the n-th time that it removes or replaces a file."""


def test_killed_anywhere_no_record_is_left_of_nothing(repo: Repo, here: Run) -> None:
    whole = repo.directory / "whole"
    shutil.copytree(repo.root, whole)
    at = 0
    while True:
        arguments = ["rm", "-y", "eb96def", "76ab171", "45da0f8"]
        code = subprocess.run([sys.executable, "-c", KILLED_AT, str(at), *arguments], capture_output=True, timeout=120).returncode
        assert not [one for one in json.loads(here("fsck", "--json").out)["findings"] if one["severity"] == "damage"], at
        if code != -signal.SIGKILL:
            break
        assert here("fsck", "--repair").code == 0
        left = set(repo.ids())
        archives = {key for key in objects(repo) if key.startswith(("experiments/", "checkpoints/"))}
        # Archives that no record names are kept for a day: they may belong to somebody who has just begun.
        assert FINISHED not in left or len(archives) == 3, at
        shutil.rmtree(repo.root)
        shutil.copytree(whole, repo.root)
        at += 1
    assert code == 0
    assert at > 5
    assert repo.ids() == [INTERRUPTED, KILLED, RUNNING]
    assert not {key for key in objects(repo) if key.startswith(("experiments/", "checkpoints/"))}
