"""``keepsake fsck`` says what is damaged, mends what can be mended, and touches nothing else."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keepsake.repository import layout
from keepsake.repository.verify import ORPHANED_S
from tests.cli.conftest import FINISHED, FINISHED_BEST, FINISHED_LATEST, Repo, Result, full_id
from tests.conftest import bound_by_permissions

Run = Callable[..., Result]


def contents(repo: Repo) -> dict[str, bytes]:
    return {info.key: repo.repository.storage.read(info.key) for info in repo.repository.storage.list()}


def path_of(repo: Repo, key: str) -> Path:
    return repo.root / key


def backdate(path: Path) -> None:
    at = path.stat().st_mtime - ORPHANED_S - 60
    os.utime(path, (at, at))


def test_what_is_whole_is_said_to_be(repo: Repo, keepsake: Run) -> None:
    result = keepsake("fsck")
    assert (result.code, result.err) == (0, "")
    assert re.fullmatch(r"Checked 5 experiments, 4 checkpoints, [\d.]+ kB: no damage\.\n", result.out)
    assert keepsake("fsck", "--quick").out.startswith("Looked at 5 experiments, 4 checkpoints, ")


def test_altered_files_are_found_by_reading_them(repo: Repo, here: Run) -> None:
    before = contents(repo)
    archive = path_of(repo, layout.checkpoint_archive_key(FINISHED_BEST))
    data = bytearray(archive.read_bytes())
    data[60] ^= 1
    archive.write_bytes(data)
    assert here("fsck", "--quick").code == 0
    for arguments in (["fsck"], ["fsck", "--repair"]):
        result = here(*arguments)
        assert result.code == 7
        assert result.lines[0] == "Damaged:"
        assert result.lines[1].startswith("  the files of checkpoint fe6a313 (step 100 of experiment eb96def): ")
        assert result.lines[2:4] == [f"    {layout.checkpoint_archive_key(FINISHED_BEST)}", "    hint: keepsake rm fe6a313"]
        assert result.lines[-1].endswith(": 1 damaged.")
    assert {key for key, content in contents(repo).items() if before[key] != content} == {
        layout.checkpoint_archive_key(FINISHED_BEST)
    }


def test_missing_and_truncated_files_are_found_quickly(repo: Repo, here: Run) -> None:
    path_of(repo, layout.checkpoint_archive_key(FINISHED_BEST)).unlink()
    archive = path_of(repo, layout.checkpoint_archive_key(FINISHED_LATEST))
    archive.write_bytes(archive.read_bytes()[:-10])
    path_of(repo, layout.experiment_archive_key(FINISHED)).unlink()
    result = here("fsck", "--quick")
    assert result.code == 7
    assert [line for line in result.lines if line.startswith("  the")] == [
        "  the files of experiment eb96def are not there",
        "  the files of checkpoint fe6a313 (step 100 of experiment eb96def) are not there",
        f"  the files of checkpoint 0b77c4e (step 200 of experiment eb96def): {archive.stat().st_size} bytes instead of"
        f" {archive.stat().st_size + 10}",
    ]
    # The way that the hints name.
    assert here("rm", "fe6a313", "0b77c4e", "--yes").code == 0
    assert here("fsck").code == 7


def test_a_record_that_cannot_be_read_keeps_its_archives(repo: Repo, here: Run) -> None:
    record = path_of(repo, layout.record_key(FINISHED))
    whole = record.read_bytes()
    record.write_bytes(whole[:100])
    for key in (layout.checkpoint_archive_key(FINISHED_BEST), layout.experiment_archive_key(FINISHED)):
        backdate(path_of(repo, key))
    result = here("fsck", "--repair")
    assert result.code == 7
    assert result.lines[1].startswith("  the record of experiment eb96def is damaged: ")
    assert result.out.count("it may belong to a record that is damaged, and is kept") == 3
    record.write_bytes(whole)
    assert here("fsck").code == 0


def test_what_nobody_needs_is_removed_when_it_is_old_enough(repo: Repo, here: Run) -> None:
    orphan = full_id("abc")
    strays = [layout.checkpoint_archive_key(orphan), layout.experiment_archive_key(orphan), layout.heartbeat_key(orphan)]
    before = contents(repo)
    for key in strays:
        repo.repository.storage.write(key, b"x")
    repo.repository.beat(FINISHED)
    for key in (*strays, layout.heartbeat_key(FINISHED)):
        backdate(path_of(repo, key))
    young = layout.checkpoint_archive_key(full_id("def"))
    repo.repository.storage.write(young, b"y")

    result = here("fsck")
    assert result.code == 0
    assert "keepsake fsck --repair mends 4 of these." in result.err
    assert contents(repo).keys() == before.keys() | {*strays, young, layout.heartbeat_key(FINISHED)}
    result = here("fsck", "--repair")
    assert result.code == 0
    assert result.lines[-1].endswith(": no damage, 4 repaired.")
    assert contents(repo).keys() == before.keys() | {young}


def test_foreign_files_are_named_and_left_alone(repo: Repo, here: Run) -> None:
    strays = ["metadata/experiments/notes.txt", "checkpoints/README", "metadata/heartbeats/x.json"]
    for key in strays:
        repo.repository.storage.write(key, b"x")
        backdate(path_of(repo, key))
    result = here("fsck", "--repair")
    assert result.code == 0
    assert result.lines[0] == "Worth knowing:"
    assert all(f"    {key}" in result.lines for key in strays)
    assert all(repo.repository.storage.read(key) == b"x" for key in strays)


def test_a_format_file_that_is_lost_is_written_again(repo: Repo, here: Run) -> None:
    path_of(repo, layout.SPEC_KEY).unlink()
    assert here("fsck").code == 7
    assert here("fsck", "--repair").code == 0
    assert path_of(repo, layout.SPEC_KEY).read_bytes() == b'{"version":1}'


def test_files_that_are_there_and_not_announced_are_announced(repo: Repo, here: Run) -> None:
    def forget(record: Any) -> None:
        for checkpoint in record.checkpoints:
            checkpoint.archive, checkpoint.archive_pending = None, True

    repo.repository.update(FINISHED, forget)
    path_of(repo, layout.checkpoint_archive_key(FINISHED_LATEST)).unlink()
    result = here("fsck", "--repair")
    assert result.code == 7
    assert "the files of checkpoint fe6a313 (step 100 of experiment eb96def) are there, and not announced" in result.out
    assert "the files of checkpoint 0b77c4e (step 200 of experiment eb96def) have never arrived" in result.out
    best, latest = repo.repository.load(FINISHED).checkpoints
    assert best.archive is not None
    assert not best.archive_pending
    assert latest.archive is None
    assert here("checkout", "fe6a313", "-o", "out", "-y").code == 0


def test_json_names_each_finding(repo: Repo, here: Run) -> None:
    path_of(repo, layout.checkpoint_archive_key(FINISHED_BEST)).unlink()
    result = here("fsck", "--json")
    report = json.loads(result.out)
    assert (result.code, result.err) == (7, "")
    assert (report["experiments"], report["checkpoints"]) == (5, 4)
    assert report["findings"] == [
        {
            "severity": "damage",
            "kind": "files-missing",
            "key": layout.checkpoint_archive_key(FINISHED_BEST),
            "text": "the files of checkpoint fe6a313 (step 100 of experiment eb96def) are not there",
            "hint": "keepsake rm fe6a313",
            "repairable": False,
            "outcome": "open",
        }
    ]


def test_a_repository_that_may_only_be_read_is_checked(repo: Repo, here: Run) -> None:
    orphan = layout.checkpoint_archive_key(full_id("abc"))
    repo.repository.storage.write(orphan, b"x")
    backdate(path_of(repo, orphan))
    for directory in (repo.root, *[path for path in repo.root.rglob("*") if path.is_dir()]):
        directory.chmod(0o555)
    with bound_by_permissions(repo.root):
        assert here("fsck").code == 0
        result = here("fsck", "--repair")
    assert result.code == 1
    assert f"    cannot be repaired: cannot delete {orphan}" in result.out


def test_no_repository(tmp_path: Path, keepsake: Run) -> None:
    result = keepsake("fsck", "-R", f"file://{tmp_path}/nowhere")
    assert result.code == 5
    assert result.err.startswith("error: no repository at ")
    assert not (tmp_path / "nowhere").exists()


def test_recorded_text_cannot_steer_the_terminal(repo: Repo, here: Run) -> None:
    path_of(repo, layout.record_key(FINISHED)).write_bytes(b'{"id": "\\u001b[2J"}')
    result = here("fsck")
    assert result.code == 7
    assert "\x1b" not in result.out + result.err
