"""``keepsake checkout`` brings back what was saved, and asks before anything is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Repo, Result

Run = Callable[..., Result]


def tree(directory: Path) -> dict[str, bytes]:
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


SAVED = {
    "train.py": b"print('train')\n",
    "lib/net.py": b"depth = 3\n",
    "keepsake.yaml": b'repository: "file:///somewhere/else"\n',
    "model.pth": b"best weights",
}


def test_into_another_directory(repo: Repo, keepsake: Run) -> None:
    result = keepsake("checkout", "eb96def", "-o", "out/deep")
    assert (result.code, result.out) == (0, "")
    assert result.err.splitlines() == [
        "From experiment eb96def and its best checkpoint fe6a313 (step 100) into out/deep:",
        "  4 new, 0 changed, 0 identical",
        "4 files written.",
    ]
    assert tree(repo.directory / "out/deep") == SAVED
    again = keepsake("checkout", "eb96def", "-o", "out/deep")
    assert again.err.splitlines()[1:] == ["  0 new, 0 changed, 4 identical", "0 files written."]


def test_a_checkpoint_brings_its_own_weights(repo: Repo, here: Run) -> None:
    result = here("checkout", "0b77c4e", "-o", "out")
    assert result.err.startswith("From checkpoint 0b77c4e (step 200) and its experiment eb96def into ")
    assert tree(repo.directory / "out") == SAVED | {"model.pth": b"latest weights"}


def test_into_the_project_the_configuration_stays(repo: Repo, keepsake: Run) -> None:
    before = (repo.directory / "keepsake.yaml").read_bytes()
    result = keepsake("checkout", "eb96def")
    assert result.code == 0
    assert "  K keepsake.yaml  (yours is kept)" in result.err.splitlines()
    assert (repo.directory / "keepsake.yaml").read_bytes() == before
    assert (repo.directory / "model.pth").read_bytes() == b"best weights"
    assert keepsake("ls", "-q").lines


@pytest.mark.parametrize(
    ("path", "wanted"),
    [("train.py", ["train.py"]), ("lib", ["lib/net.py"]), ("model.pth", ["model.pth"]), ("./lib/", ["lib/net.py"])],
)
def test_only_one_path(repo: Repo, here: Run, path: str, wanted: list[str]) -> None:
    result = here("checkout", "eb96def", "--path", path, "-o", "out")
    assert (result.code, result.err.splitlines()[-1]) == (0, "1 file written.")
    assert tree(repo.directory / "out") == {name: SAVED[name] for name in wanted}


def test_one_file_to_standard_output(repo: Repo, keepsake: Run) -> None:
    assert keepsake("checkout", "eb96def", "--path", "model.pth", "-o", "-") == Result(0, "best weights", "")
    assert keepsake("checkout", "0b77c4e", "--path", "model.pth", "-o", "-") == Result(0, "latest weights", "")
    assert keepsake("checkout", "0b77c4e", "--path", "train.py", "-o", "-") == Result(0, "print('train')\n", "")
    assert sorted(path.name for path in repo.directory.iterdir()) == [".keepsake", "keepsake.yaml"]


def test_printed_bytes_are_the_saved_ones(repo: Repo) -> None:
    content = bytes(range(256)) * 1000
    key = next(info.key for info in repo.repository.storage.list("checkpoints") if "fe6a313" in info.key)
    repo.archive(key, {"model.pth": content})
    arguments = [sys.executable, "-m", "keepsake", "checkout", "fe6a313", "--path", "model.pth", "-o", "-"]
    assert subprocess.run(arguments, capture_output=True, check=True, env=os.environ, timeout=120).stdout == content


@pytest.mark.parametrize("flag", ["--force", "-f", "--yes", "-y"])
def test_the_flags_that_overwrite(repo: Repo, here: Run, flag: str) -> None:
    (repo.directory / "train.py").write_text("mine\n", encoding="utf-8")
    result = here("checkout", "eb96def", flag)
    assert result.code == 0
    assert "  M train.py  (your version would be lost)" in result.err.splitlines()
    assert (repo.directory / "train.py").read_bytes() == SAVED["train.py"]


@pytest.mark.parametrize(("answer", "code", "content"), [("y", 0, SAVED["train.py"]), ("n", 6, b"mine\n"), ("", 6, b"mine\n")])
def test_a_person_is_asked_before_files_are_lost(repo: Repo, terminal, answer: str, code: int, content: bytes) -> None:
    (repo.directory / "train.py").write_bytes(b"mine\n")
    asked = terminal("checkout", "eb96def")
    asked.wait_for("Overwrite 1 file with other content? [y/N] ")
    asked.type(f"{answer}\n")
    result = asked.end()
    assert result.code == code
    assert (repo.directory / "train.py").read_bytes() == content
    assert ("nothing was checked out: you said no" in result.out) == bool(code)


def test_nothing_is_asked_where_nothing_is_lost(repo: Repo, terminal) -> None:
    (repo.directory / "train.py").write_bytes(SAVED["train.py"])
    (repo.directory / "notes.txt").write_text("mine", encoding="utf-8")
    result = terminal("checkout", "eb96def").end()
    assert result.code == 0
    assert "[y/N]" not in result.out
    assert (repo.directory / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_long_lists_of_files_are_cut(repo: Repo, here: Run) -> None:
    from keepsake.repository import layout
    from tests.cli.conftest import FINISHED_BEST, full_id

    names = [f"f{number:02}.txt" for number in range(14)]
    key = layout.checkpoint_archive_key(FINISHED_BEST)
    announced = repo.archive(key, dict.fromkeys(names, b"saved"))
    record = repo.repository.load(full_id("eb96def"))
    record.checkpoints[0].archive = announced
    repo.repository.save(record)
    for name in names:
        (repo.directory / name).write_bytes(b"mine")
    result = here("checkout", "fe6a313")
    assert result.code == 6
    assert result.err.count("  M f") == 10
    assert "  M … 4 more" in result.err.splitlines()
    assert "14 files with other content would be overwritten" in result.err


def test_an_experiment_without_files(repo: Repo, here: Run) -> None:
    result = here("checkout", "76ab171", "-o", "out")
    assert (result.code, result.out) == (3, "")
    assert "has no saved files" in result.err
    assert not (repo.directory / "out").exists()


def test_hostile_file_names_are_not_printed_raw(repo: Repo, here: Run) -> None:
    from keepsake.repository import layout
    from tests.cli.conftest import FINISHED_BEST, full_id

    name = "a\x1b[31m\u202eb"
    record = repo.repository.load(full_id("eb96def"))
    record.checkpoints[0].archive = repo.archive(layout.checkpoint_archive_key(FINISHED_BEST), {name: b"saved"})
    repo.repository.save(record)
    (repo.directory / name).write_bytes(b"mine")
    result = here("checkout", "fe6a313", "--path", name)
    assert result.code == 6
    assert not set(result.err) & {"\x1b", "\u202e"}
    wrong = here("checkout", "fe6a313", "--path", "a[31mb", "-o", "out")
    assert wrong.code == 3
    assert not set(wrong.err) & {"\x1b", "\u202e"}
