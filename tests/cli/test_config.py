"""``keepsake config``, names of remotes, and what is said of mistakes in configuration files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import keepsake as public
from keepsake.settings import SETTINGS, VARIABLES
from tests.cli.conftest import Repo, Result


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def configure(repo: Repo, text: str, name: str = "keepsake.yaml") -> None:
    (repo.directory / name).write_text(text, encoding="utf-8")


def user_file(text: str) -> None:
    file = Path(os.environ["HOME"]) / ".config" / "keepsake" / "config.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


class TestConfig:
    def test_every_value_with_its_source(self, empty_repo: Repo, keepsake: Callable[..., Result]) -> None:
        configure(
            empty_repo, "# ours\nrepository: s3://acme/hotdog\nls:\n  limit: 20\nprimary_metric: {name: loss, goal: minimize}\n"
        )
        configure(empty_repo, "[tool.keepsake.capture]\ngit = false\n", "pyproject.toml")
        user_file(
            'repository = "s3://mine"\n[ls]\nlimit = 9\n[redact]\nkeys = ["internal_*", "host"]\n[remotes]\nlab = "s3://lab"\n'
        )
        result = keepsake("config", KEEPSAKE_COLUMNS="loss, lr", KEEPSAKE_MODE="offline")
        assert (result.code, result.err) == (0, "")
        settings, _, variables = result.out.partition("\nVARIABLE ")
        assert (
            settings
            == f"""\
Directory  {empty_repo.directory}
Files      keepsake.yaml, pyproject.toml, ~/.config/keepsake/config.toml

SETTING           VALUE             FROM
repository        s3://acme/hotdog  keepsake.yaml line 2
primary_metric    loss, minimize    keepsake.yaml line 5
remotes.lab       s3://lab          ~/.config/keepsake/config.toml line 7
ls.columns        loss, lr          KEEPSAKE_COLUMNS
ls.limit          20                keepsake.yaml line 4
capture.git       false             pyproject.toml line 2
capture.packages  imported          default
capture.gpu       true              default
capture.argv      true              default
capture.env       -                 default
redact.keys       internal_*, host  ~/.config/keepsake/config.toml line 5
redact.allow      -                 default
"""
        )
        rows = {line.split()[0]: line.split()[1:] for line in variables.splitlines()[1:]}
        assert list(rows) == list(VARIABLES)
        assert rows["KEEPSAKE_MODE"] == ["offline", "environment"]
        assert rows["KEEPSAKE_COLUMNS"] == ["loss,", "lr", "environment"]
        assert rows["KEEPSAKE_LOG"] == ["info", "default"]
        assert rows["KEEPSAKE_NAME"] == ["-", "not", "set"]

    def test_json_has_every_setting_and_variable(self, empty_repo: Repo, here: Callable[..., Result]) -> None:
        found = json.loads(here("config", "--json").out)
        assert set(found) == {"directory", "files", "settings", "variables"}
        assert (found["directory"], found["files"]) == (str(empty_repo.directory), [str(empty_repo.directory / "keepsake.yaml")])
        assert list(found["settings"]) == list(SETTINGS)
        assert list(found["variables"]) == list(VARIABLES)
        assert found["settings"]["repository"] == {"value": "file://.keepsake", "source": "keepsake.yaml", "line": 1}
        assert found["settings"]["ls.columns"] == {"value": [], "source": "default", "line": None}
        assert found["settings"]["primary_metric"] == {"value": None, "source": "not set", "line": None}

    def test_the_precedence_of_the_repository(
        self, empty_repo: Repo, here: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def said(*arguments: str) -> tuple[str, str]:
            found = json.loads(here("config", "--json", *arguments).out)["settings"]["repository"]
            return found["value"], found["source"]

        (empty_repo.directory / "keepsake.yaml").unlink()
        assert said() == (None, "not set")
        user_file('repository = "s3://user"\n')
        assert said() == ("s3://user", "~/.config/keepsake/config.toml")
        configure(empty_repo, '[tool.keepsake]\nrepository = "s3://toml"\n', "pyproject.toml")
        assert said() == ("s3://toml", "pyproject.toml")
        configure(empty_repo, "storage: s3://old\n")
        assert said() == ("s3://old", "keepsake.yaml")
        configure(empty_repo, "repository: s3://yaml\n")
        assert said() == ("s3://yaml", "keepsake.yaml")
        monkeypatch.setenv("KEEPSAKE_REPOSITORY", "s3://variable")
        assert said() == ("s3://variable", "KEEPSAKE_REPOSITORY")
        assert said("-R", "s3://flag") == ("s3://flag", "-R")

    def test_the_directory_is_that_of_the_option(self, empty_repo: Repo, here: Callable[..., Result]) -> None:
        other = empty_repo.directory.parent / "other"
        other.mkdir()
        (other / "keepsake.yaml").write_text("repository: s3://other\n", encoding="utf-8")
        result = here("config", "-D", str(other))
        assert result.lines[0] == f"Directory  {other}"
        assert any(line.split()[:2] == ["repository", "s3://other"] for line in result.lines)

    def test_no_secret_is_shown(self, empty_repo: Repo, here: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
        configure(
            empty_repo,
            "repository: https://ana:hunter2@acme/runs\nremotes: {lab: 's3://AKIAABCDEFGHIJKLMNOP:hunter2@lab', bad: 'x://a?token=hunter2'}\n",
        )
        monkeypatch.setenv("KEEPSAKE_REPOSITORY", "s3://bob:hunter2@acme")
        monkeypatch.setenv("KEEPSAKE_NOTES", "password=hunter2")
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://ana:hunter2@minio:9000")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
        for arguments in (["config"], ["config", "--json"], ["config", "-R", "s3://eve:hunter2@acme"]):
            result = here(*arguments)
            assert result.code == 0
            assert "hunter2" not in result.out + result.err
            assert "[redacted]" in result.out

    def test_what_steers_a_terminal_does_not_reach_it(
        self, empty_repo: Repo, here: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        configure(empty_repo, 'repository: "s3://a\\e[2J"\nremotes: {"\\e[31m": s3://b}\n')
        monkeypatch.setenv("KEEPSAKE_NOTES", "\x1b[2J\nnext")
        for arguments in (["config"], ["config", "--json"]):
            assert "\x1b" not in here(*arguments).out

    @pytest.mark.parametrize("width", [60, 80, 120])
    def test_on_a_terminal_a_long_value_leaves_room_for_its_source(
        self, empty_repo: Repo, terminal: Callable[..., Any], width: int
    ) -> None:
        configure(empty_repo, f"repository: s3://acme/{'x' * 300}\n")
        shown = terminal("config", width=width).end().out
        [line] = [line for line in shown.splitlines() if line.startswith("repository")]
        assert line.endswith("…  keepsake.yaml line 1")
        assert len(line) <= width

    def test_it_says_all_that_is_wrong_and_shows_the_rest(self, empty_repo: Repo, keepsake: Callable[..., Result]) -> None:
        configure(empty_repo, "repository: s3://a\nls: {limit: many, colums: [lr]}\ncapture:\n  gpu: 3\nkeep: {best: 1}\n")
        result = keepsake("config")
        assert result.code == 5
        assert result.err.splitlines() == [
            'warning: keepsake.yaml line 2: unknown key "colums" in "ls", did you mean "columns"?',
            'warning: keepsake.yaml line 5: unknown key "keep"',
            'error: keepsake.yaml line 2: ls.limit must be a number from 0 on, not "many"',
            "keepsake.yaml line 4: capture.gpu must be true or false, not 3",
        ]
        assert ["ls.limit", "-", "invalid"] in [line.split() for line in result.lines]
        assert ["repository", "s3://a", "keepsake.yaml", "line", "1"] in [line.split() for line in result.lines]

    def test_without_any_configuration(self, empty_repo: Repo, here: Callable[..., Result]) -> None:
        (empty_repo.directory / "keepsake.yaml").unlink()
        result = here("config")
        assert (result.code, result.err) == (0, "")
        assert result.lines[1] == "Files      none"
        assert ["repository", "-", "not", "set"] in [line.split() for line in result.lines]


class TestMistakes:
    """Through the real command line: one warning for what means nothing, one error for what cannot be."""

    def test_a_key_that_means_nothing_is_named_with_the_nearest_that_does(
        self, repo: Repo, keepsake: Callable[..., Result]
    ) -> None:
        configure(repo, "repository: file://.keepsake\nls: {limitt: 3}\nremote: {lab: s3://lab}\n")
        result = keepsake("ls")
        assert result.code == 0
        assert len(result.lines) == 6
        assert result.err.splitlines() == [
            'warning: keepsake.yaml line 2: unknown key "limitt" in "ls", did you mean "limit"?',
            'warning: keepsake.yaml line 3: unknown key "remote", did you mean "remotes"?',
        ]

    @pytest.mark.parametrize(
        ("text", "error"),
        [
            ("ls: {columns: lr}", 'error: keepsake.yaml line 2: ls.columns must be a list of names, not "lr"'),
            ("ls: 3", "error: keepsake.yaml line 2: ls must hold columns and limit, not 3"),
            ("capture: {", "error: keepsake.yaml line 3: not valid YAML: expected the node content, but found '<stream end>'"),
        ],
    )
    def test_what_cannot_be_is_one_error(self, repo: Repo, keepsake: Callable[..., Result], text: str, error: str) -> None:
        configure(repo, f"repository: file://.keepsake\n{text}\n")
        result = keepsake("ls")
        assert (result.code, result.out, result.err.splitlines()[0]) == (5, "", error)
        assert "Traceback" not in result.err

    def test_the_users_file_counts_too(self, repo: Repo, keepsake: Callable[..., Result]) -> None:
        user_file("[ls]\nlimit = true\n")
        assert keepsake("config").err == (
            "error: ~/.config/keepsake/config.toml line 2: ls.limit must be a number from 0 on, not True\n"
        )
        user_file("[ls\n")
        result = keepsake("ls")
        assert (result.code, result.out) == (5, "")
        assert result.err.startswith("error: ~/.config/keepsake/config.toml line 1: not valid TOML")

    def test_a_training_begins_with_unknown_keys_and_not_with_wrong_values(self, empty_repo: Repo) -> None:
        def train() -> subprocess.CompletedProcess[str]:
            code = "import keepsake\nwith keepsake.init() as e: e.checkpoint(metrics={'loss': 1})"
            return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)

        configure(empty_repo, "repository: file://.keepsake\ncapture: {gitt: true}\n")
        done = train()
        assert done.returncode == 0
        assert 'keepsake: warning: keepsake.yaml line 2: unknown key "gitt" in "capture", did you mean "git"?' in done.stderr
        configure(empty_repo, "repository: file://.keepsake\ncapture: {git: 1}\n")
        done = train()
        assert done.returncode == 1
        assert "ConfigInvalid: keepsake.yaml line 2: capture.git must be true or false, not 1" in done.stderr
        assert len(empty_repo.ids()) == 1


class TestRemotes:
    def test_names_stand_for_urls(self, repo: Repo, keepsake: Callable[..., Result]) -> None:
        configure(repo, "repository: file://.keepsake\nremotes:\n  lab: file://../lab\n  spare: file://spare\n")
        (repo.directory / "src").mkdir()
        pushed = keepsake("push", "lab", cwd=repo.directory / "src")
        assert (pushed.code, pushed.err) == (0, f"Copied 5 experiments to file://{repo.directory.parent}/lab.\n")
        assert (repo.directory.parent / "lab" / "metadata").is_dir()
        copied = keepsake("copy", "lab", "spare", "eb96def")
        assert (copied.code, copied.err) == (0, f"Copied 1 experiment to file://{repo.directory}/spare.\n")
        assert keepsake("rm", "eb96def", "-y").code == 0
        pulled = keepsake("pull", "spare")
        assert (pulled.code, pulled.err) == (0, "Copied 1 experiment to file://.keepsake.\n")
        assert len(repo.ids()) == 5

    def test_a_name_goes_before_a_directory_and_a_path_is_never_a_name(self, repo: Repo, here: Callable[..., Result]) -> None:
        configure(repo, "repository: file://.keepsake\nremotes: {lab: file://../lab}\n")
        (repo.directory / "lab").mkdir()
        (repo.directory / "other").mkdir()
        assert here("push", "lab", "eb96def").code == 0
        assert not list((repo.directory / "lab").iterdir())
        for path in ("./lab", "other", "file://lab"):
            assert here("push", path, "eb96def").code == 0
        assert list((repo.directory / "lab").iterdir())

    @pytest.mark.parametrize("command", [["push", "lba"], ["pull", "lba"], ["copy", "lba", "lab"], ["copy", "lab", "lba"]])
    def test_a_slip_makes_no_directory(self, repo: Repo, here: Callable[..., Result], command: list[str]) -> None:
        configure(repo, "repository: file://.keepsake\nremotes: {lab: file://../lab}\n")
        result = here(*command)
        assert result.code == 2
        assert result.err.splitlines()[0] == ('error: no remote "lba", did you mean "lab"? A directory of that name is ./lba')
        assert not (repo.directory / "lba").exists()

    def test_without_remotes_a_word_is_a_directory_as_before(self, repo: Repo, here: Callable[..., Result]) -> None:
        assert here("push", "backup").code == 0
        assert len(public.Project("file://backup").experiments.list()) == 5
