"""Where the repository is said, and what is said about mistakes there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from keepsake import config
from keepsake.config import Config, Said, Settings, find_directory, load
from keepsake.exceptions import ConfigInvalid, ConfigNotFound
from keepsake.settings import known_keys
from tests.conftest import bound_by_permissions


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, in the home directory."""
    directory = tmp_path / "home" / "hotdog"
    directory.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(directory.parent))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.chdir(directory)
    return directory


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


class TestPrecedence:
    def test_argument_variable_yaml_pyproject(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(directory / "pyproject.toml", '[tool.keepsake]\nrepository = "s3://toml"\n')
        assert load() == Config("s3://toml", "s3://toml", directory, str(directory / "pyproject.toml"))
        write(directory / "replicate.yaml", "repository: s3://old\n")
        assert load().repository == "s3://old"
        write(directory / "keepsake.yml", "repository: s3://yml\n")
        assert load().repository == "s3://yml"
        write(directory / "keepsake.yaml", "repository: s3://yaml\n")
        assert load() == Config("s3://yaml", "s3://yaml", directory, str(directory / "keepsake.yaml"))
        monkeypatch.setenv("KEEPSAKE_REPOSITORY", "s3://variable")
        assert load() == Config("s3://variable", "s3://variable", directory, "KEEPSAKE_REPOSITORY")
        assert load("s3://argument") == Config("s3://argument", "s3://argument", directory, "argument")

    def test_an_empty_variable_says_nothing(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KEEPSAKE_REPOSITORY", "")
        monkeypatch.setenv("KEEPSAKE_DIRECTORY", "")
        write(directory / "keepsake.yaml", "repository: s3://yaml\n")
        assert load().repository == "s3://yaml"

    def test_the_nearest_parent_counts(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(directory.parent / "keepsake.yaml", "repository: s3://far\n")
        write(directory / "keepsake.yaml", "repository: s3://near\n")
        below = directory / "src" / "deep"
        below.mkdir(parents=True)
        monkeypatch.chdir(below)
        assert load() == Config("s3://near", "s3://near", directory, str(directory / "keepsake.yaml"))
        assert find_directory() == directory

    def test_yaml_without_repository_falls_through_to_pyproject_beside_it(self, directory: Path) -> None:
        write(directory / "keepsake.yaml", "ls: {limit: 50}\n")
        write(directory / "pyproject.toml", '[tool.keepsake]\nrepository = "s3://toml"\n')
        assert load().source == str(directory / "pyproject.toml")

    def test_a_pyproject_counts_only_with_our_table(self, directory: Path) -> None:
        write(directory / "pyproject.toml", "[tool.ruff]\nline-length = 100\n")
        write(directory.parent / "pyproject.toml", '[tool.keepsake]\nrepository = "s3://toml"\n')
        assert load().directory == directory.parent
        assert find_directory() == directory.parent


class TestDirectory:
    def test_it_is_the_working_directory_where_nothing_is_configured(self, directory: Path) -> None:
        assert find_directory() == directory
        assert load("s3://bucket").directory == directory

    def test_one_that_is_named_is_taken_as_it_is(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(directory / "keepsake.yaml", "repository: file://runs\n")
        (directory / "sub").mkdir()
        found = load(directory="sub")
        assert (found.directory, found.url) == (directory / "sub", f"file://{directory}/runs")
        monkeypatch.chdir("/")
        monkeypatch.setenv("KEEPSAKE_DIRECTORY", "~/hotdog/sub")
        assert load() == found
        assert find_directory() == directory / "sub"
        assert find_directory(directory) == directory

    def test_one_that_does_not_exist_is_an_error(self) -> None:
        for call in (find_directory, lambda name: load("s3://x", name), lambda name: load(directory=name)):
            with pytest.raises(ConfigNotFound, match='no such directory: "nowhere"'):
                call("nowhere")

    def test_a_working_directory_that_has_gone_is_said(self, directory: Path) -> None:
        (directory / "gone").mkdir()
        os.chdir("gone")
        (directory / "gone").rmdir()
        with pytest.raises(ConfigNotFound, match="the working directory does not exist any more"):
            load()


class TestURLs:
    @pytest.mark.parametrize(
        ("written", "url"),
        [
            ("s3://bucket/root", "s3://bucket/root"),
            ("gs://bucket", "gs://bucket"),
            ("file://.keepsake", "file://{home}/hotdog/.keepsake"),
            ("file://runs/all", "file://{home}/hotdog/runs/all"),
            ("file://../runs", "file://{home}/runs"),
            ("file:///data/runs", "file:///data/runs"),
            ("file://~/runs", "file://{home}/runs"),
            (".keepsake", "file://{home}/hotdog/.keepsake"),
            ("/data/runs", "file:///data/runs"),
            ("  s3://bucket  ", "s3://bucket"),
        ],
    )
    def test_a_local_one_is_relative_to_the_file_that_says_so(self, directory: Path, written: str, url: str) -> None:
        write(directory / "keepsake.yaml", f'repository: "{written}"\n')
        (directory / "sub").mkdir()
        os.chdir("sub")
        found = load()
        assert found.url == url.format(home=directory.parent)
        assert found.repository == written.strip()

    def test_an_argument_and_a_variable_are_relative_to_the_working_directory(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(directory / "keepsake.yaml", "repository: s3://yaml\n")
        (directory / "sub").mkdir()
        monkeypatch.chdir("sub")
        assert load("file://runs").url == f"file://{directory}/sub/runs"
        monkeypatch.setenv("KEEPSAKE_REPOSITORY", "runs")
        assert load().url == f"file://{directory}/sub/runs"

    @pytest.mark.parametrize("written", ["", " ", "file://"])
    def test_an_argument_that_names_nothing_is_an_error(self, written: str) -> None:
        with pytest.raises(ConfigInvalid, match="names no directory"):
            load(written)


class TestMistakes:
    def test_nothing_found(self, directory: Path) -> None:
        (directory / "sub").mkdir()
        os.chdir("sub")
        with pytest.raises(ConfigNotFound) as caught:
            load()
        assert caught.value.message == "no repository: found no keepsake.yaml in ~/hotdog/sub or above"
        assert caught.value.hint == "keepsake init   or   keepsake ls -R s3://bucket/path"
        os.chdir(directory.parent)
        with pytest.raises(ConfigNotFound, match="found no keepsake.yaml in ~ or above"):
            load()

    @pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "---\n", "{}", "ls: {limit: 5}\n", "repository:\n"])
    def test_a_file_without_repository(self, directory: Path, text: str) -> None:
        write(directory / "keepsake.yaml", text)
        with pytest.raises(ConfigInvalid) as caught:
            load()
        assert caught.value.message == "keepsake.yaml names no repository"
        assert "keepsake init" in (caught.value.hint or "")

    def test_a_table_without_repository(self, directory: Path) -> None:
        write(directory / "pyproject.toml", "[tool.keepsake]\nls = {limit = 5}\n")
        with pytest.raises(ConfigInvalid, match=r"^pyproject.toml \[tool.keepsake\] names no repository"):
            load()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("- a\n- b\n", "keepsake.yaml line 1: expected lines such as"),
            ("\njust text\n", "keepsake.yaml line 2: expected lines such as"),
            ("repository: [s3://a]\n", "keepsake.yaml line 1: repository must be a URL as text, not a list"),
            ("\nrepository: 5\n", "keepsake.yaml line 2: repository must be a URL as text, not 5"),
            ('repository: "  "\n', 'keepsake.yaml line 1: repository must be a URL as text, not "  "'),
            ("repository: file://\n", 'keepsake.yaml: "file://" names no directory'),
            ("repository: s3://a\n  bad: [\n", "keepsake.yaml line 2: not valid YAML: "),
            ("a: 1\nrepository: !!python/object/apply:os.system [ls]\n", "keepsake.yaml line 2: not valid YAML: "),
            ("repository: s3://a\nrun: 2001-99-99\n", "keepsake.yaml: not valid YAML: month must be in 1..12"),
            ("repository: \x00\n", "keepsake.yaml: not valid YAML: "),
            ("[" * 5000, "keepsake.yaml: not valid YAML: "),
        ],
    )
    def test_what_cannot_be_understood_is_named_with_its_line(self, directory: Path, text: str, message: str) -> None:
        write(directory / "keepsake.yaml", text)
        with pytest.raises(ConfigInvalid) as caught:
            load()
        assert caught.value.message.startswith(message)
        assert "\n" not in caught.value.message

    def test_a_file_in_another_encoding(self, directory: Path) -> None:
        (directory / "keepsake.yaml").write_bytes(b"repository: s3://caf\xe9\n")
        with pytest.raises(ConfigInvalid, match="keepsake.yaml: not a text file in UTF-8"):
            load()
        (directory / "keepsake.yaml").write_bytes(b"\xef\xbb\xbfrepository: s3://bucket\r\n")
        assert load().repository == "s3://bucket"

    def test_the_file_is_named_from_where_the_person_is(self, directory: Path) -> None:
        write(directory / "keepsake.yaml", "[")
        (directory / "sub").mkdir()
        os.chdir("sub")
        with pytest.raises(ConfigInvalid, match="~/hotdog/keepsake.yaml line 1"):
            load()
        # The directory is known all the same.
        assert find_directory() == directory

    def test_broken_toml_matters_only_with_our_table(self, directory: Path) -> None:
        write(directory / "pyproject.toml", "[tool.keepsake]\nrepository = \n")
        with pytest.raises(ConfigInvalid, match="pyproject.toml line 2: not valid TOML"):
            load()
        write(directory / "pyproject.toml", '[project]\nname = "keepsake-user\n')
        with pytest.raises(ConfigNotFound):
            load()
        write(directory / "pyproject.toml", "[tool]\nkeepsake = 5\n")
        with pytest.raises(ConfigInvalid, match="tool.keepsake must be a table"):
            load()

    def test_unknown_keys_are_warned_of_once_with_the_nearest_name(
        self, directory: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write(directory / "keepsake.yaml", "repository: s3://a\nkapture: {git: false}\nxyz: 2\n")
        for _ in range(2):
            assert load().repository == "s3://a"
        assert capsys.readouterr().err.splitlines() == [
            'keepsake: warning: keepsake.yaml line 2: unknown key "kapture", did you mean "capture"?',
            'keepsake: warning: keepsake.yaml line 3: unknown key "xyz"',
        ]

    def test_a_misspelt_repository_is_an_error(self, directory: Path) -> None:
        write(directory / "keepsake.yaml", "# where\nrepositry: s3://a\n")
        with pytest.raises(ConfigInvalid) as caught:
            load()
        assert caught.value.message == 'keepsake.yaml line 2: unknown key "repositry", did you mean "repository"?'

    def test_every_known_key_is_quiet(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        keys = "".join(f"{key}: {{}}\n" for key in known_keys() or () if key not in ("repository", "storage"))
        write(directory / "keepsake.yaml", f"repository: s3://a\n{keys}")
        assert load().repository == "s3://a"
        assert capsys.readouterr().err == ""

    def test_old_names_work_and_are_warned_of(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write(directory / "replicate.yaml", "storage: s3://old\n")
        assert load().repository == "s3://old"
        assert capsys.readouterr().err.splitlines() == [
            "keepsake: warning: replicate.yaml is an old name, please rename the file to keepsake.yaml",
            'keepsake: warning: replicate.yaml line 1: "storage" is the old name of "repository", please rename it',
        ]
        write(directory / "keepsake.yaml", "storage: s3://old\nrepository: s3://new\n")
        assert load().repository == "s3://new"

    def test_files_that_may_not_be_read(self, directory: Path) -> None:
        """A directory that may not be searched is passed over, a configuration that may not be read is an error."""
        file = write(directory / "keepsake.yaml", "repository: s3://a\n")
        assert load().repository == "s3://a"
        file.chmod(0)
        with (
            bound_by_permissions(directory.parent),
            pytest.raises(ConfigInvalid, match="cannot read keepsake.yaml: Permission denied"),
        ):
            load()
        directory.chmod(0)
        with bound_by_permissions(directory.parent), pytest.raises(ConfigNotFound):
            load()
        directory.chmod(0o755)

    def test_a_directory_of_that_name_is_no_configuration(self, directory: Path) -> None:
        (directory / "keepsake.yaml").mkdir()
        (directory / "pyproject.toml").mkdir()
        with pytest.raises(ConfigNotFound):
            load()


@pytest.mark.parametrize("repository", ["s3:bucket/runs", "gs:/bucket", "file:/data/runs"])
def test_an_address_without_its_slashes_is_no_directory(repository: str) -> None:
    assert load(repository=repository).url == repository  # which the storage refuses, with the slashes in its hint


def test_the_home_of_nobody_is_a_clear_error() -> None:
    with pytest.raises(ConfigInvalid, match="no-such-person"):
        load(repository="file://~no-such-person/runs")


class TestSettings:
    def test_variable_yaml_pyproject_user_default(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def said() -> list[Said]:
            return [Settings(directory).get(name) for name in ("ls.columns", "ls.limit")]

        assert said() == [Said((), "default"), Said(50, "default")]
        user = "~/.config/keepsake/config.toml"
        write(directory.parent / ".config/keepsake/config.toml", '[ls]\ncolumns = ["user"]\nlimit = 1\n')
        assert said() == [Said(("user",), user, 2), Said(1, user, 3)]
        write(directory / "pyproject.toml", '[tool.keepsake.ls]\ncolumns = ["toml"]\nlimit = 2\n')
        assert said() == [Said(("toml",), "pyproject.toml", 2), Said(2, "pyproject.toml", 3)]
        write(directory / "keepsake.yaml", "repository: s3://yaml\nls: {columns: [lr, +user],\n  limit: 0}\n")
        assert said() == [Said(("lr", "+user"), "keepsake.yaml", 2), Said(0, "keepsake.yaml", 3)]
        monkeypatch.setenv("KEEPSAKE_COLUMNS", "val_loss, -lr")
        assert said()[0] == Said(("val_loss", "-lr"), "KEEPSAKE_COLUMNS")

    def test_each_setting_may_stand_in_another_file(self, directory: Path) -> None:
        write(directory / "keepsake.yaml", "repository: s3://yaml\nls: {limit: 3}\n")
        write(directory / "pyproject.toml", '[tool.keepsake]\nls = {columns = ["lr"], limit = 4}\n')
        below = directory / "src"
        below.mkdir()
        assert Settings(below).get("ls.columns") == Said(("lr",), "pyproject.toml", 2)
        assert Settings(below).get("ls.limit") == Said(3, "keepsake.yaml", 2)

    def test_a_file_of_other_settings_does_not_hide_the_users_repository(self, directory: Path) -> None:
        file = write(directory.parent / ".config/keepsake/config.toml", 'repository = "s3://user"\n')
        for name, text in (("keepsake.yaml", "ls: {limit: 3}\n"), ("pyproject.toml", "[tool.keepsake.ls]\nlimit = 3\n")):
            path = write(directory / name, text)
            (directory / "src").mkdir(exist_ok=True)
            os.chdir(directory / "src")
            assert load() == Config("s3://user", "s3://user", directory, str(file))
            assert Settings(directory).get("repository").value == "s3://user"
            path.unlink()

    def test_a_misspelt_repository_is_not_replaced_by_the_users(self, directory: Path) -> None:
        write(directory.parent / ".config/keepsake/config.toml", 'repository = "s3://user"\n')
        write(directory / "keepsake.yaml", "repositry: s3://mine\n")
        with pytest.raises(ConfigInvalid, match='unknown key "repositry", did you mean "repository"'):
            load()

    def test_the_users_file_may_name_the_repository_and_lie_elsewhere(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = write(directory.parent / "xdg/keepsake/config.toml", 'repository = "s3://user"\n')
        with pytest.raises(ConfigNotFound):
            load()
        monkeypatch.setenv("XDG_CONFIG_HOME", str(directory.parent / "xdg"))
        assert load() == Config("s3://user", "s3://user", directory, str(file))
        write(directory / "keepsake.yaml", "repository: s3://yaml\n")
        assert load().repository == "s3://yaml"

    @pytest.mark.parametrize(
        ("text", "name", "message"),
        [
            ("ls: 3", "ls.limit", "line 2: ls must hold columns and limit, not 3"),
            ("ls: {columns: lr}", "ls.columns", 'line 2: ls.columns must be a list of names, not "lr"'),
            ("ls: {columns: [1]}", "ls.columns", "line 2: ls.columns must be a list of names, not a list"),
            ("ls: {limit: -1}", "ls.limit", "line 2: ls.limit must be a number from 0 on, not -1"),
            ("ls: {limit: true}", "ls.limit", "line 2: ls.limit must be a number from 0 on, not True"),
            ("capture:\n  git: 1", "capture.git", "line 3: capture.git must be true or false, not 1"),
            ("capture: {packages: all}", "capture.packages", 'line 2: capture.packages must be "imported" or "none", not "all"'),
            (
                "primary_metric: val_loss",
                "primary_metric",
                "line 2: primary_metric must be a name and a goal, minimize or maximize, such as",
            ),
            ("primary_metric: {name: a, goal: less}", "primary_metric", "line 2: primary_metric must be a name and a goal"),
            ("remotes: {lab: 3}", "remotes", "line 2: remotes must be names with URLs"),
            ("redact: {keys: x}", "redact.keys", "line 2: redact.keys must be a list of names"),
        ],
    )
    def test_what_cannot_be_is_named_with_its_line(self, directory: Path, text: str, name: str, message: str) -> None:
        write(directory / "keepsake.yaml", f"repository: s3://yaml\n{text}\n")
        with pytest.raises(ConfigInvalid) as caught:
            Settings(directory).get(name)
        assert caught.value.message.startswith(f"keepsake.yaml {message}")

    @pytest.mark.parametrize("repository", ["[s3://ana:hunter2@a]", "{url: s3://ana:hunter2@a}"])
    def test_a_message_shows_no_secret(self, directory: Path, repository: str) -> None:
        write(directory / "keepsake.yaml", f"repository: {repository}\n")
        for call in (load, lambda: Settings(directory).get("repository")):
            with pytest.raises(ConfigInvalid) as caught:
                call()
            assert "hunter2" not in str(caught.value)

    def test_remotes_of_all_files_come_together_and_are_absolute(self, directory: Path) -> None:
        write(directory.parent / ".config/keepsake/config.toml", 'remotes = {lab = "s3://user", home = "~/runs"}\n')
        write(directory / "keepsake.yaml", "remotes:\n  lab: file://../lab\n")
        assert Settings(directory).remotes() == {
            "lab": Said(f"file://{directory.parent}/lab", "keepsake.yaml", 2),
            "home": Said(f"file://{directory.parent}/runs", "~/.config/keepsake/config.toml", 1),
        }

    def test_unknown_keys_below_others_are_warned_of(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write(directory / "keepsake.yaml", "repository: s3://a\nls:\n  colums: [lr]\nlimit: 3\n")
        write(
            directory / "pyproject.toml",
            '[build]\nlimit = 5\n\n[tool.keepsake]\ncapture.gti = false\n[tool.keepsake.primary_metric]\nmode = "min"\n',
        )
        write(directory.parent / ".config/keepsake/config.toml", "[redact]\n\nallows = []\n[remotes]\nanything = 's3://a'\n")
        with pytest.raises(ConfigInvalid):
            Settings(directory).get("primary_metric")
        assert capsys.readouterr().err.splitlines() == [
            'keepsake: warning: keepsake.yaml line 3: unknown key "colums" in "ls", did you mean "columns"?',
            'keepsake: warning: keepsake.yaml line 4: unknown key "limit", did you mean "ls.limit"?',
            'keepsake: warning: pyproject.toml line 5: unknown key "gti" in "capture", did you mean "git"?',
            'keepsake: warning: pyproject.toml line 7: unknown key "mode" in "primary_metric"',
            'keepsake: warning: ~/.config/keepsake/config.toml line 3: unknown key "allows" in "redact", did you mean "allow"?',
        ]

    def test_a_mapping_that_holds_itself(self, directory: Path) -> None:
        write(directory / "keepsake.yaml", "repository: s3://a\nremotes: &it\n  lab: *it\n")
        with pytest.raises(ConfigInvalid, match="line 2: remotes must be"):
            Settings(directory).remotes()

    def test_a_file_that_cannot_be_understood_is_an_error(self, directory: Path) -> None:
        """Nobody wants their secrets recorded because of a slip in the file that says which they are."""
        write(directory / "keepsake.yaml", "repository: s3://a\nredact: {\n")
        with pytest.raises(ConfigInvalid, match="not valid YAML"):
            Settings(directory).get("redact.keys")

    def test_a_line_that_cannot_be_told_is_left_out(self, directory: Path) -> None:
        write(
            directory / "pyproject.toml",
            '[tool.other]\ntext = """\n[tool.keepsake.ls]\nlimit = 7\n"""\n[tool.keepsake.ls]\nlimit = 8\ncolumns = ["lr"]\n',
        )
        assert Settings(directory).get("ls.limit") == Said(8, "pyproject.toml")
        assert Settings(directory).get("ls.columns") == Said(("lr",), "pyproject.toml", 8)


_LINES = st.sampled_from(["", "  ", "# a: b", " # c", "repository: ", "repository:", " repository: ", "other: 1", "---", "..."])
_VALUES = st.text("ab1.:/~@+-_'\"# \\\t\x85é,[]{}&*!|>%", max_size=12) | st.sampled_from(
    ["s3://a-b/c", '"file://.keepsake"', "'x'  # y"]
)


@given(lines=st.lists(st.tuples(_LINES, _VALUES | st.just("")).map("".join), max_size=4))
def test_a_usual_file_says_the_same_without_the_yaml_parser(lines: list[str]) -> None:
    text = "\n".join(lines)
    usual = config._USUAL_YAML.fullmatch(text)
    if usual is not None:
        assert {"repository": usual["quoted"] or usual["bare"]} == yaml.safe_load(text)


@pytest.mark.parametrize(
    "text", ['repository: "file://.keepsake"\n', "# mine\n\nrepository: s3://a-b/c  # there\n# end", "repository: 'x'"]
)
def test_the_usual_file_is_recognized(text: str) -> None:
    usual = config._USUAL_YAML.fullmatch(text)
    assert usual is not None
    assert {"repository": usual["quoted"] or usual["bare"]} == yaml.safe_load(text)
