"""``keepsake tag``, ``name``, ``note`` and ``alias`` say what they are told, and every command finds what is called so."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from keepsake.repository import layout
from tests.cli.conftest import FAILED, FINISHED, FINISHED_BEST, FINISHED_LATEST, RUNNING, Repo, Result

Run = Callable[..., Result]


def done(result: Result) -> str:
    """Return what a command that went well has said, in one text."""
    assert result.code == 0, result.err
    return result.out + result.err


def shown(result: Result) -> str:
    """Return the ID that ``show --json`` is about."""
    assert result.code == 0, result.err
    return str(json.loads(result.out)["id"])


# --- tag ------------------------------------------------------------------------------------------------------------


def test_tags(repo: Repo, here: Run) -> None:
    assert done(here("tag", "eb96def", "prod", "base", "2026")) == "Tags of eb96def: 2026, base, prod.\n"
    assert done(here("tag", "eb96def", "new", "--remove", "prod", "--remove", "2026")) == "Tags of eb96def: base, new.\n"
    assert here("tag", "eb96def").out == "base\nnew\n"
    assert here("ls", "-q", "-f", "tag = base").lines == [FINISHED]
    assert done(here("tag", "eb96def", "--remove", "base", "--remove", "new")) == "Tags of eb96def: none.\n"
    assert here("tag", "eb96def").out == ""


def test_the_experiment_of_a_checkpoint_gets_the_tag(repo: Repo, here: Run) -> None:
    assert done(here("tag", "fe6a313", "prod")) == "Tags of eb96def: prod.\n"


def test_a_bad_tag_is_a_usage_error_and_changes_nothing(repo: Repo, here: Run) -> None:
    result = here("tag", "eb96def", "good", "not good")
    assert (result.code, result.err.splitlines()[0]) == (2, 'error: "not good" cannot be a tag')
    assert here("tag", "eb96def").out == ""


def test_a_running_experiment_takes_a_tag(repo: Repo, keepsake: Run) -> None:
    assert done(keepsake("tag", "bfb06bc", "prod")) == "Tags of bfb06bc: prod.\n"


# --- name -----------------------------------------------------------------------------------------------------------


def test_a_name(repo: Repo, here: Run) -> None:
    assert done(here("name", "eb96def", "warm-up")) == 'eb96def is named "warm-up".\n'
    assert here("name", "eb96def").out == "warm-up\n"
    assert shown(here("show", "warm-up", "--json")) == FINISHED
    assert shown(here("show", "warm-up@latest", "--json")) == FINISHED_LATEST
    assert done(here("name", "warm-up", "--clear")) == "eb96def has no name.\n"
    assert here("name", "eb96def").out == ""
    assert here("show", "warm-up").code == 3


def test_a_name_that_is_taken(repo: Repo, here: Run) -> None:
    here("name", "eb96def", "warm-up")
    result = here("name", "76ab171", "warm-up")
    assert result.code == 2
    assert result.err.splitlines() == [
        'error: "warm-up" is the name of experiment eb96def',
        "hint: keepsake name eb96def --clear",
    ]


@pytest.mark.parametrize(("name", "why"), [("last", "stands for"), ("2026", "start of an ID"), ("a b", ""), ("", "no name")])
def test_what_cannot_be_a_name(repo: Repo, here: Run, name: str, why: str) -> None:
    result = here("name", "eb96def", name)
    assert result.code == 2
    assert why in result.err


def test_a_name_that_is_nearly_right(repo: Repo, here: Run) -> None:
    here("name", "eb96def", "warm-up")
    result = here("show", "warm-pu")
    assert result.code == 3
    assert result.err.splitlines() == ['error: no experiment named "warm-pu"', "hint: did you mean warm-up?"]


@pytest.mark.parametrize("command", ["name", "note"])
def test_what_is_given_and_taken_away_at_once(repo: Repo, here: Run, command: str) -> None:
    assert here(command, "eb96def", "x", "--clear").code == 2


# --- note -----------------------------------------------------------------------------------------------------------


def test_notes(repo: Repo, here: Run, keepsake: Run) -> None:
    assert done(here("note", "eb96def", "lower dropout")) == "Notes of eb96def written.\n"
    assert here("note", "eb96def").out == "lower dropout\n"
    assert done(keepsake("note", "eb96def", "-", input="first ☃\n\nsecond \x1b[31m\n")) == "Notes of eb96def written.\n"
    assert here("note", "eb96def").out == "first ☃\n\nsecond \\x1b[31m\n"
    assert done(here("note", "eb96def", "--clear")) == "eb96def has no notes.\n"
    assert here("note", "eb96def").out == ""


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return what makes a shell script the editor; ``$1`` is the file."""

    def use(script: str) -> None:
        program = tmp_path / "an editor"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("VISUAL", shlex.quote(str(program)))

    return use


def test_notes_in_an_editor(repo: Repo, here: Run, editor: Callable[[str], None]) -> None:
    here("note", "eb96def", "first")
    editor('test "$(cat "$1")" = first && echo "second ☃" >> "$1"')
    assert done(here("note", "eb96def", "--edit")) == "Notes of eb96def written.\n"
    assert here("note", "eb96def").lines == ["first", "second ☃"]
    for leaving in ("true", 'sleep 0; touch "$1"'):
        editor(leaving)
        assert done(here("note", "eb96def", "-e")) == "Notes of eb96def unchanged.\n"
    editor(': > "$1"')
    assert done(here("note", "eb96def", "-e")) == "eb96def has no notes.\n"
    assert here("note", "eb96def").out == ""


def test_an_editor_that_fails_changes_nothing(repo: Repo, here: Run, editor: Callable[[str], None]) -> None:
    here("note", "eb96def", "first")
    editor('echo other > "$1"; exit 1')
    result = here("note", "eb96def", "--edit")
    assert result.code == 1
    assert "Editing failed; the notes are as they were" in result.err
    assert result.err.splitlines()[-1] == "hint: export EDITOR=nano"
    assert here("note", "eb96def").out == "first\n"
    assert here("note", "eb96def", "text", "--edit").code == 2
    assert here("note", "eb96def", "--edit", "--clear").code == 2


# --- alias ----------------------------------------------------------------------------------------------------------


def test_an_alias(repo: Repo, here: Run) -> None:
    assert done(here("alias", "production", "0b77c4e")) == "@production stands for 0b77c4e (step 200 of eb96def).\n"
    assert here("alias", "@production").out == f"{FINISHED_LATEST}\n"
    assert shown(here("show", "@production", "--json")) == FINISHED_LATEST
    said = done(here("alias", "production", "eb96def"))
    assert said == "@production stands for fe6a313 (step 100 of eb96def, its best checkpoint).\n"
    here("alias", "team/x", "last")
    assert here("alias").lines == [
        "ALIAS        CHECKPOINT  EXPERIMENT",
        "@production  fe6a313     eb96def",
        "@team/x      d01b7aa     bfb06bc",
    ]
    assert done(here("alias", "production", "--delete")) == "@production stands for nothing any more.\n"
    assert here("show", "@production").code == 3
    assert here("show", "fe6a313").code == 0


def test_an_alias_of_nothing(repo: Repo, here: Run) -> None:
    assert here("alias").out == ""
    result = here("alias", "x", "76ab171")
    assert (result.code, result.err.splitlines()[0]) == (3, "error: experiment 76ab171 has no checkpoints")
    assert here("alias", "x").code == 3
    assert here("alias", "x", "--delete").code == 3
    assert here("alias", "--delete").code == 2
    assert here("alias", "best", "eb96def").code == 2


def test_an_alias_goes_with_its_checkpoint(repo: Repo, here: Run) -> None:
    here("alias", "production", "0b77c4e")
    here("alias", "other", "fe6a313")
    here("tag", "eb96def", "prod")
    assert here("rm", "-y", "0b77c4e").code == 0
    assert here("alias").lines[1:] == ["@other  fe6a313     eb96def"]
    assert here("rm", "-y", "eb96def").code == 0
    assert not [info.key for info in repo.repository.storage.list() if "alias" in info.key or "annotations" in info.key]


# --- references -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("last", RUNNING),
        ("last~4", FINISHED),
        ("LAST~3", FAILED),
        ("last~4@best", FINISHED_BEST),
        ("eb96def@step:200", FINISHED_LATEST),
        ("@production", FINISHED_BEST),
    ],
)
def test_every_command_takes_references(repo: Repo, here: Run, reference: str, found: str) -> None:
    here("alias", "production", "fe6a313")
    assert shown(here("show", reference, "--json")) == found


def test_diff_and_checkout_take_references(repo: Repo, here: Run) -> None:
    here("alias", "production", "0b77c4e")
    here("name", "eb96def", "warm-up")
    compared = here("diff", "warm-up", "last", "--json")
    assert compared.code == 0, compared.err
    assert here("checkout", "@production", "-o", "out").code == 0
    assert (repo.directory / "out" / "model.pth").read_bytes() == b"latest weights"
    assert here("checkout", "warm-up@best", "-o", "best").code == 0
    assert (repo.directory / "best" / "model.pth").read_bytes() == b"best weights"


def test_what_stands_behind_the_at_must_be_a_checkpoint(repo: Repo, here: Run) -> None:
    result = here("show", "eb96def@foo")
    assert result.code == 2
    assert 'behind the @ of an experiment stands best, latest or step:N, not "foo"' in result.err
    result = here("show", "eb96def@step:4000")
    assert result.code == 3
    assert "no checkpoint at step 4000; the nearest are at 100, 200" in result.err


def test_damage_is_named_and_does_not_stand_in_the_way(repo: Repo, here: Run) -> None:
    repo.repository.storage.write(layout.annotations_key(FINISHED), b"{")
    result = here("ls", "-q")
    assert (result.code, len(result.lines)) == (0, 5)
    assert f"warning: the annotation {layout.annotations_key(FINISHED)} is damaged" in result.err
