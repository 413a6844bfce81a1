"""``keepsake init`` writes the configuration, and nothing that a person did not agree to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from keepsake import config
from tests.cli.conftest import Result

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "new"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


def repository_in(directory: Path) -> object:
    return yaml.safe_load((directory / "keepsake.yaml").read_text(encoding="utf-8"))["repository"]


def test_without_a_terminal_nothing_is_asked(directory: Path, keepsake: Run) -> None:
    result = keepsake("init")
    assert (result.code, result.out) == (0, "")
    assert result.err.splitlines()[0] == "Wrote keepsake.yaml: experiments will live in file://.keepsake."
    assert [path.name for path in directory.iterdir()] == ["keepsake.yaml"]
    assert repository_in(directory) == "file://.keepsake"
    assert keepsake("ls").err == "No experiments in file://.keepsake yet.\n"


def test_yes_keeps_the_repository_out_of_git(directory: Path, here: Run) -> None:
    (directory / ".git").mkdir()
    (directory / ".gitignore").write_text("*.pyc", encoding="utf-8")
    assert "Added .keepsake/ to .gitignore." in here("init", "--yes").err
    assert (directory / ".gitignore").read_text(encoding="utf-8") == "*.pyc\n.keepsake/\n"
    assert here("init", "--yes", "--force").code == 0
    assert (directory / ".gitignore").read_text(encoding="utf-8") == "*.pyc\n.keepsake/\n"


def test_no_gitignore_without_git(directory: Path, here: Run) -> None:
    assert here("init", "--yes").code == 0
    assert not (directory / ".gitignore").exists()


def test_a_repository_elsewhere_needs_no_gitignore(directory: Path, tmp_path: Path, here: Run) -> None:
    (directory / ".git").mkdir()
    assert here("init", "--yes", "--repository", f"file://{tmp_path / 'runs'}").code == 0
    assert here("init", "--yes", "-f", "--repository", "file://../runs").code == 0
    assert not (directory / ".gitignore").exists()


@pytest.mark.parametrize("name", ["my runs", 'quo"te', "back\\slash", "模型", "#hash", "a: b"])
def test_any_address_survives_the_file(directory: Path, here: Run, name: str) -> None:
    assert here("init", "-R", f"file://{name}").code == 0
    assert repository_in(directory) == f"file://{name}"
    assert config.load().url == f"file://{directory / name}"


def test_the_address_may_stand_alone(directory: Path, here: Run) -> None:
    assert here("init", "file:///mine").code == 0
    assert repository_in(directory) == "file:///mine"
    twice = here("init", "file:///mine", "-R", "file:///yours")
    assert (twice.code, twice.err.splitlines()[0]) == (2, "error: give the address once, as URL or with -R/--repository")


def test_what_says_so_already_is_fine(directory: Path, here: Run) -> None:
    """So that the hint for a bucket that does not exist works where keepsake.yaml names it."""
    here("init", "file:///mine")
    again = here("init", "file:///mine")
    assert (again.code, again.err) == (0, "keepsake.yaml is there already: experiments live in file:///mine.\n")
    assert here("init", "file:///yours").code == 6


def test_what_is_there_stays(directory: Path, keepsake: Run) -> None:
    (directory / "keepsake.yaml").write_text("repository: file:///mine\n", encoding="utf-8")
    result = keepsake("init", "--yes")
    assert (result.code, result.out) == (6, "")
    assert result.err == ("error: keepsake.yaml is there already\nhint: change it by hand, or replace it with -f/--force\n")
    assert repository_in(directory) == "file:///mine"
    assert keepsake("init", "--force").code == 0
    assert repository_in(directory) == "file://.keepsake"


def test_an_address_that_nobody_understands(directory: Path, here: Run) -> None:
    assert here("init", "-R", "gopher://x/y").code == 5
    assert not (directory / "keepsake.yaml").exists()


def test_in_another_directory(directory: Path, here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two", "three"):
        (directory / name).mkdir()
    assert here("init", "-D", "one").code == 0
    assert here("-D", "two", "init").code == 0
    monkeypatch.setenv("KEEPSAKE_DIRECTORY", "three")
    assert here("init").code == 0
    assert sorted(path.parent.name for path in directory.rglob("keepsake.yaml")) == ["one", "three", "two"]
    assert here("init", "-D", "nowhere").code == 5


def test_a_person_is_asked_both_questions(directory: Path, terminal) -> None:
    (directory / ".git").mkdir()
    asked = terminal("init")
    asked.wait_for("Where should experiments live? [file://.keepsake] ")
    asked.type("file://runs\n")
    asked.wait_for("Add runs/ to .gitignore? [y/N] ")
    asked.type("y\n")
    assert asked.end().code == 0
    assert repository_in(directory) == "file://runs"
    assert (directory / ".gitignore").read_text(encoding="utf-8") == "runs/\n"


def test_a_person_may_take_the_defaults(directory: Path, terminal) -> None:
    (directory / ".git").mkdir()
    asked = terminal("init")
    asked.wait_for("live? ")
    asked.type("\n")
    asked.wait_for("[y/N] ")
    asked.type("\n")
    assert asked.end().code == 0
    assert repository_in(directory) == "file://.keepsake"
    assert not (directory / ".gitignore").exists()


def test_ctrl_c_at_the_first_question_writes_nothing(directory: Path, terminal) -> None:
    asked = terminal("init")
    asked.wait_for("live? ")
    asked.type("\x03")
    result = asked.end()
    assert (result.code, result.out.splitlines()[-1]) == (130, "interrupted")
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize("variable", ["CI", "KEEPSAKE_NO_PROMPT"])
def test_a_terminal_where_nobody_is_gets_the_defaults(directory: Path, terminal, variable: str) -> None:
    (directory / ".git").mkdir()
    result = terminal("init", **{variable: "1"}).end()
    assert (result.code, "?" in result.out) == (0, False)
    assert repository_in(directory) == "file://.keepsake"
