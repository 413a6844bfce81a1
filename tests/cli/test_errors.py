"""Every mistake a person can make, through the real command line: what stands on standard error, and the exit code."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from keepsake.repository import layout
from tests.cli.conftest import FINISHED, FINISHED_BEST, IN_ORDER, KILLED, Repo, Result

Run = Callable[..., Result]


def fails(result: Result, code: int, *lines: str) -> None:
    """Assert the exit code, that nothing is on standard output, and the lines of the error."""
    assert (result.code, result.out, result.err.splitlines()) == (code, "", list(lines))


# --- IDs ------------------------------------------------------------------------------------------------------------

ID_COMMANDS = [["show"], ["checkout", "-o", "out"], ["rm", "--yes"], ["diff", "eb96def"]]


@pytest.mark.parametrize("command", ID_COMMANDS, ids=lambda command: command[0])
def test_a_wrong_id(repo: Repo, keepsake: Run, command: list[str]) -> None:
    message = 'error: nothing starts with "zzz" (searched 5 experiments, 4 checkpoints in file://.keepsake)'
    fails(keepsake(*command, "zzz"), 3, message, "hint: keepsake ls")


@pytest.mark.parametrize("command", ID_COMMANDS, ids=lambda command: command[0])
def test_an_ambiguous_id(repo: Repo, keepsake: Run, command: list[str]) -> None:
    result = keepsake(*command, "45")
    assert (result.code, result.out) == (3, "")
    first, experiment, checkpoint, hint = result.err.splitlines()
    assert first == 'error: "45" matches 2 things'
    assert experiment.startswith("4591273  2026-03-01 13:00  experiment  lr=0.001 optimizer=adamw")
    assert checkpoint == "45da0f8  2026-03-01 13:20  checkpoint  step 300 of 4591273"
    assert hint == "hint: type at least 3 characters, e.g. 459"
    assert repo.ids() == IN_ORDER


def test_what_an_ambiguous_id_lists_cannot_steer_the_terminal(repo: Repo, keepsake: Run) -> None:
    repo.add("eb96deff", params={"name": "\x1b[2J\u202eevil\nsecond line"})
    result = keepsake("show", "eb96def")
    assert result.code == 3
    assert "\x1b" not in result.err
    assert "\u202e" not in result.err
    assert "\\x1b[2J" in result.err


# --- filters and sort keys --------------------------------------------------------------------------------------------


def test_a_typo_in_a_filter(repo: Repo, keepsake: Run) -> None:
    result = keepsake("ls", "-f", "vall_loss < 0.2")
    fails(
        result,
        2,
        'error: no param, metric or field named "vall_loss"',
        "hint: did you mean val_loss? (all names: keepsake ls --names)",
    )


def test_a_typo_in_a_sort_key(repo: Repo, keepsake: Run) -> None:
    fails(
        keepsake("ls", "-s", "-optimzer"),
        2,
        'error: no param, metric or field named "optimzer"',
        "hint: did you mean optimizer? (all names: keepsake ls --names)",
    )


def test_a_name_that_resembles_nothing(repo: Repo, keepsake: Run) -> None:
    fails(
        keepsake("ls", "-f", "qqq = 1"),
        2,
        'error: no param, metric or field named "qqq"',
        "hint: keepsake ls --names lists all names",
    )


def test_a_valid_filter_without_a_match_is_no_error(repo: Repo, keepsake: Run) -> None:
    fails(keepsake("ls", "-f", "val_loss < 0.01"), 0, "No experiments match val_loss < 0.01 (best is 0.1484, 4591273).")
    fails(keepsake("ls", "-f", "lr > 9"), 0, "No experiments match lr > 9 (highest is 0.003, 76ab171).")
    fails(keepsake("ls", "-f", "lr > 9", "-f", "user = ana"), 0, "No experiments match lr > 9 and user = ana.")


def test_machine_formats_of_nothing_are_empty(repo: Repo, keepsake: Run) -> None:
    assert keepsake("ls", "-f", "lr > 9", "--json") == Result(0, "[]\n", "")
    assert keepsake("ls", "-f", "lr > 9", "-q") == Result(0, "", "")


def test_a_clash_of_types(repo: Repo, keepsake: Run) -> None:
    fails(keepsake("ls", "-f", "lr = abc"), 2, 'error: lr is a number in all 5 experiments, cannot compare with "abc"')


def test_bad_filter_syntax(repo: Repo, here: Run) -> None:
    fails(
        here("ls", "-f", "lr > 3 and optimizer >> adam"),
        2,
        "error: cannot understand the filter: >> is none of the operators = == != < <= > >= ~ !~",
        "  lr > 3 and optimizer >> adam",
        "                       ^",
        "hint: keepsake help filters",
    )


def test_what_is_no_status_and_no_time(repo: Repo, here: Run) -> None:
    assert here("ls", "-f", "status = finished").code == 2
    result = here("ls", "-f", "created > yesterday")
    fails(result, 2, 'error: created is a time, cannot compare with "yesterday"', 'hint: keepsake ls -f "created > 2026-11-01"')
    assert here("ls", "-f", "created > 0001-01-01T00:00:00+02:00").code == 2
    assert here("ls", "-f", "optimizer ~ (a+)+").code == 2


def test_none_has_no_order(repo: Repo, here: Run) -> None:
    repo.add("aaaaaaa", params={"lr": None})
    assert here("ls", "-q", "-f", "lr < none").code == 2
    assert here("ls", "-q", "-f", "lr = none").out.startswith("aaaaaaa")


# --- configuration --------------------------------------------------------------------------------------------------


def test_no_configuration(tmp_path: Path, keepsake: Run) -> None:
    hint = "hint: keepsake init   or   keepsake ls -R s3://bucket/path"
    result = keepsake("ls", cwd=tmp_path)
    fails(result, 5, f"error: no repository: found no keepsake.yaml in {tmp_path} or above", hint)


def test_an_unknown_key_is_a_warning(repo: Repo, keepsake: Run) -> None:
    (repo.directory / "keepsake.yaml").write_text('repository: "file://.keepsake"\nrepositry: x\n', encoding="utf-8")
    result = keepsake("ls", "-q")
    assert (result.code, result.lines) == (0, IN_ORDER)
    assert result.err == 'warning: keepsake.yaml line 2: unknown key "repositry", did you mean "repository"?\n'


def test_only_an_unknown_key_is_an_error(repo: Repo, keepsake: Run) -> None:
    (repo.directory / "keepsake.yaml").write_text("repositry: x\n", encoding="utf-8")
    result = keepsake("ls")
    assert (result.code, result.out) == (5, "")
    assert result.err.startswith('error: keepsake.yaml line 1: unknown key "repositry", did you mean "repository"?\nhint: ')


def test_invalid_yaml(repo: Repo, keepsake: Run) -> None:
    (repo.directory / "keepsake.yaml").write_text('ok: 1\nrepository: "file://\n', encoding="utf-8")
    result = keepsake("ls")
    assert (result.code, result.out) == (5, "")
    assert result.err.startswith("error: keepsake.yaml line ")
    assert "not valid YAML" in result.err


def test_a_directory_that_does_not_exist(repo: Repo, keepsake: Run) -> None:
    fails(keepsake("ls", "-D", "nowhere"), 5, 'error: no such directory: "nowhere"')


# --- repositories ---------------------------------------------------------------------------------------------------


def test_an_unknown_scheme(repo: Repo, keepsake: Run) -> None:
    result = keepsake("ls", "-R", "gopher://x/y")
    assert (result.code, result.out) == (5, "")
    assert result.err.startswith("error: ")
    assert "gopher" in result.err
    assert "Traceback" not in result.err


def test_a_newer_repository(repo: Repo, keepsake: Run) -> None:
    (repo.root / layout.SPEC_KEY).write_text('{"version":2}', encoding="utf-8")
    for command in (["ls"], ["show", "eb96def"], ["rm", "--yes", "eb96def"], ["ps"], ["diff", "eb96def", "76ab171"]):
        result = keepsake(*command)
        assert (result.code, result.out) == (5, "")
        assert result.err.startswith("error: repository file://.keepsake is format 2, this keepsake ")
        assert result.err.endswith("reads format 1\nhint: pip install -U keepsake\n")
    assert (repo.root / layout.record_key(FINISHED)).exists()


def test_a_damaged_repository_json(repo: Repo, keepsake: Run) -> None:
    (repo.root / layout.SPEC_KEY).write_text("{", encoding="utf-8")
    result = keepsake("ls")
    assert (result.code, result.out) == (5, "")
    assert result.err.startswith("error: repository.json in file://.keepsake is damaged\n")
    assert "hint: " in result.err


def test_a_damaged_record_hides_no_others(repo: Repo, keepsake: Run) -> None:
    key = layout.record_key(FINISHED)
    (repo.root / key).write_text('{"id":', encoding="utf-8")
    result = keepsake("ls", "-q")
    assert (result.code, result.lines) == (0, IN_ORDER[1:])
    assert result.err.startswith(f"warning: the record {key} is damaged: ")
    assert len(result.err.splitlines()) == 1
    shown = keepsake("show", FINISHED)
    assert (shown.code, shown.out) == (5, "")


# --- archives -------------------------------------------------------------------------------------------------------


def archive(repo: Repo, id: str = FINISHED_BEST) -> Path:
    return repo.root / layout.checkpoint_archive_key(id)


def test_a_missing_archive(repo: Repo, keepsake: Run) -> None:
    archive(repo).unlink()
    for arguments in (["-o", "out"], ["-o", "-", "--path", "model.pth"]):
        result = keepsake("checkout", "fe6a313", *arguments)
        message = "error: the files of checkpoint fe6a313 in file://.keepsake are not in the repository"
        fails(result, 1, message, "hint: keepsake fsck -R file://.keepsake")
    assert not (repo.directory / "out").exists()


def test_an_altered_archive_does_not_match_its_digest(repo: Repo, keepsake: Run) -> None:
    repo.archive(layout.checkpoint_archive_key(FINISHED_BEST), {"model.pth": b"other weights"})
    result = keepsake("checkout", "fe6a313", "-o", "out")
    assert (result.code, result.out) == (1, "")
    message = "error: checkpoint fe6a313 in file://.keepsake does not match its record: the sha256 of its index is another"
    # The plan comes first: it is made by the index.
    assert result.err.splitlines()[-2:] == [message, "hint: keepsake fsck -R file://.keepsake"]
    assert not (repo.directory / "out").exists()


def test_a_truncated_archive(repo: Repo, keepsake: Run) -> None:
    archive(repo).write_bytes(archive(repo).read_bytes()[:-20])
    result = keepsake("checkout", "fe6a313", "-o", "out")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("error: checkpoint fe6a313 in file://.keepsake is damaged")
    assert not (repo.directory / "out").exists()


@pytest.mark.parametrize("name", ["../../evil", "/evil", "id/../../../evil\x1b[31m"])
def test_an_unsafe_archive(repo: Repo, keepsake: Run, name: str) -> None:
    with tarfile.open(archive(repo), "w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))
    before = sorted(path for path in repo.directory.parent.rglob("*"))
    result = keepsake("checkout", "fe6a313", "-o", "out")
    assert (result.code, result.out) == (1, "")
    assert "is not safe to open" in result.err
    assert "\x1b" not in result.err
    assert sorted(path for path in repo.directory.parent.rglob("*")) == before


def test_a_path_that_was_not_saved(repo: Repo, keepsake: Run) -> None:
    result = keepsake("checkout", "fe6a313", "--path", "model.pt", "-o", "out")
    assert (result.code, result.out) == (3, "")
    assert 'error: no file "model.pt" in checkpoint fe6a313' in result.err
    assert "close to it: model.pth" in result.err


# --- what cannot be undone ------------------------------------------------------------------------------------------


def test_a_checkout_that_would_overwrite(repo: Repo, keepsake: Run) -> None:
    (repo.directory / "train.py").write_text("mine\n", encoding="utf-8")
    result = keepsake("checkout", "eb96def", input="y\n")
    assert (result.code, result.out) == (6, "")
    assert result.err.splitlines()[-3:] == [
        "error: your version of 1 file would be lost",
        "add --backup to keep a copy, -o DIR to check out elsewhere, or -f/--force to give it up",
        "hint: keepsake checkout eb96def --backup",
    ]
    assert (repo.directory / "train.py").read_text(encoding="utf-8") == "mine\n"
    assert not (repo.directory / "model.pth").exists()


def test_rm_without_an_answer(repo: Repo, keepsake: Run) -> None:
    result = keepsake("rm", "eb96def")
    assert (result.code, result.out) == (6, "")
    assert result.err.splitlines()[-2:] == ["error: no answer: standard input is at its end", "hint: answer with -y/--yes"]
    assert repo.ids() == IN_ORDER


@pytest.mark.parametrize("variable", ["CI", "KEEPSAKE_NO_PROMPT"])
def test_rm_where_nobody_is(repo: Repo, keepsake: Run, variable: str) -> None:
    result = keepsake("rm", "eb96def", input="y\n", **{variable: "1"})
    assert (result.code, result.out) == (6, "")
    assert result.err.endswith(f"{variable} is set\nhint: answer with -y/--yes\n")
    assert repo.ids() == IN_ORDER


@pytest.mark.parametrize("arguments", [[], ["--yes"], ["--dry-run"]])
def test_rm_of_a_running_experiment(repo: Repo, keepsake: Run, arguments: list[str]) -> None:
    result = keepsake("rm", "bfb06bc", "eb96def", *arguments, input="y\n")
    hint = "hint: stop the training first, or add -f/--force"
    fails(result, 6, "error: experiment bfb06bc is still running", hint)
    assert repo.ids() == IN_ORDER


@pytest.mark.parametrize(("command", "choices"), [("rm", "[y/N] "), ("checkout", "[b/o/N] ")])
def test_ctrl_c_at_a_question_is_one_line(repo: Repo, terminal, command: str, choices: str) -> None:
    (repo.directory / "train.py").write_text("mine\n", encoding="utf-8")
    asked = terminal(command, "eb96def")
    asked.wait_for(choices)
    asked.type("\x03")
    result = asked.end()
    assert result.code == 130
    assert result.out.partition(choices)[2] == "^C\ninterrupted\n"
    assert repo.ids() == IN_ORDER
    assert (repo.directory / "train.py").read_text(encoding="utf-8") == "mine\n"
    assert not list(repo.directory.glob(".keepsake-checkout-*"))


# --- usage ----------------------------------------------------------------------------------------------------------


def test_ctrl_c_while_modules_are_loaded_is_one_line() -> None:
    script = """
import sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "click":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupting())
from keepsake.__main__ import main
main(["ls"])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_an_unknown_command(keepsake: Run) -> None:
    fails(keepsake("shw"), 2, 'error: no command "shw", did you mean show?', "hint: keepsake --help")
    fails(keepsake("zzz"), 2, 'error: no command "zzz"', "hint: keepsake --help")


def test_an_unknown_option(keepsake: Run) -> None:
    result = keepsake("ls", "--quite")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: no such option")
    assert "--quite" in result.err
    assert result.err.endswith("hint: keepsake ls --help\n")
    assert keepsake("--nonsense").code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["show"],
        ["diff"],
        ["diff", ".", "."],
        ["diff", "a", "--only", "parms"],
        ["checkout"],
        ["ls", "surplus"],
        ["ls", "--color=pink"],
    ],
)
def test_arguments_that_do_not_fit(here: Run, arguments: list[str]) -> None:
    result = here(*arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: ")
    assert result.err.endswith(f"hint: keepsake {arguments[0]} --help\n")


def test_printing_needs_a_path(repo: Repo, here: Run) -> None:
    fails(
        here("checkout", "fe6a313", "-o", "-"),
        2,
        "error: -o - prints one file: name it with --path",
        "hint: keepsake checkout --help",
    )


# --- what nobody foresaw ----------------------------------------------------------------------------------------------


def test_tracebacks_only_where_they_are_asked_for(repo: Repo, keepsake: Run) -> None:
    assert "Traceback" not in keepsake("show", "zzz").err
    for result in (
        keepsake("-v", "show", "zzz"),
        keepsake("show", "zzz", "--verbose"),
        keepsake("show", "zzz", KEEPSAKE_DEBUG="1"),
    ):
        assert result.code == 3
        assert "Traceback" in result.err
        assert 'error: nothing starts with "zzz"' in result.err


def test_an_unforeseen_error_is_two_lines(repo: Repo, keepsake: Run) -> None:
    (repo.directory / "keepsake.yaml").unlink()
    (repo.directory / "out").write_text("", encoding="utf-8")
    result = keepsake("init", "-D", "out", "--yes")
    assert result.code != 0
    assert "Traceback" not in result.err
    assert result.err.startswith("error: ")


def test_json_is_never_mixed_with_messages(repo: Repo, keepsake: Run) -> None:
    (repo.root / layout.record_key(KILLED)).write_text("{}", encoding="utf-8")
    result = keepsake("ls", "--json")
    assert len(json.loads(result.out)) == 4
    assert result.err.startswith("warning: ")
