"""Which files of a path are taken."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepsake.capture.files import FileEntry, checkpoint_files, project_files
from tests.conftest import bound_by_permissions


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A project directory."""
    directory = tmp_path / "project"
    directory.mkdir()
    return directory


def write(directory: Path, *names: str, text: str = "x") -> None:
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def ignore(directory: Path, *lines: str) -> None:
    write(directory, ".keepsakeignore", text="\n".join(lines) + "\n")


def names(entries: list[FileEntry]) -> list[str]:
    return [entry.name for entry in entries if entry.name != ".keepsakeignore"]


class TestPaths:
    def test_a_directory_gives_its_files_sorted_with_slashes_and_absolute_sources(self, directory: Path) -> None:
        write(directory, "b.py", "a/z.py", "a/b/c.py", "a.py")
        entries = project_files(directory, ".")
        assert names(entries) == ["a.py", "a/b/c.py", "a/z.py", "b.py"]
        assert all(entry.source == directory / entry.name and entry.kind == "file" for entry in entries)

    @pytest.mark.parametrize("path", ["a.py", "./a.py", "sub/../a.py", Path("a.py")])
    def test_a_file_is_named_relative_to_the_project(self, directory: Path, path: str | Path) -> None:
        write(directory, "a.py", "sub/b.py")
        assert names(project_files(directory, path)) == ["a.py"]
        assert checkpoint_files(directory, path)[0] == "a.py"
        assert checkpoint_files(directory, directory / path)[0] == "a.py"

    def test_a_directory_below_keeps_its_name(self, directory: Path) -> None:
        write(directory, "out/step/model.pth", "other.py")
        assert checkpoint_files(directory, "out/step/") == (
            "out/step",
            [FileEntry("out/step/model.pth", directory / "out/step/model.pth", "file")],
        )

    def test_the_working_directory_does_not_matter(
        self, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(directory, "a.py")
        monkeypatch.chdir(tmp_path)
        assert names(project_files(directory, ".")) == ["a.py"]

    @pytest.mark.parametrize("path", ["..", "../other", "sub/../../other/x", "/"])
    def test_code_is_saved_from_the_project_only(self, directory: Path, path: str) -> None:
        write(directory.parent / "other", "x")
        write(directory, "sub/a")
        with pytest.raises(ValueError, match="outside the project directory"):
            project_files(directory, path)

    def test_code_is_not_saved_through_a_link_out_of_the_project(self, directory: Path) -> None:
        write(directory.parent / "other", "x")
        (directory / "link").symlink_to(directory.parent / "other")
        for path in ("link", "link/x"):
            with pytest.raises(ValueError, match="outside the project directory"):
                project_files(directory, path)

    def test_a_checkpoint_may_lie_outside_and_is_recorded_by_its_base_name(self, directory: Path, tmp_path: Path) -> None:
        write(tmp_path / "scratch", "run/model.pth", "run/deep/opt.pth")
        assert checkpoint_files(directory, tmp_path / "scratch/run/model.pth")[0] == "model.pth"
        name, entries = checkpoint_files(directory, "../scratch/run")
        assert (name, names(entries)) == ("run", ["run/deep/opt.pth", "run/model.pth"])

    def test_a_project_that_is_reached_through_a_link_is_still_the_project(self, directory: Path, tmp_path: Path) -> None:
        write(directory, "a.py", "sub/b.py")
        link = tmp_path / "link"
        link.symlink_to(directory)
        assert checkpoint_files(directory, link / "sub/b.py")[0] == "sub/b.py"
        assert checkpoint_files(link, directory / "sub")[0] == "sub"
        assert names(project_files(link, directory)) == ["a.py", "sub/b.py"]

    def test_a_named_link_is_what_it_points_to(self, directory: Path, tmp_path: Path) -> None:
        write(directory, "epoch5/model.pth")
        write(tmp_path, "data.csv")
        (directory / "latest").symlink_to("epoch5")
        (directory / "last.pth").symlink_to("epoch5/model.pth")
        (directory / "data.csv").symlink_to(tmp_path / "data.csv")
        assert names(checkpoint_files(directory, "latest")[1]) == ["latest/model.pth"]
        [entry] = checkpoint_files(directory, "last.pth")[1]
        assert (entry.name, entry.kind, entry.source) == ("last.pth", "file", directory / "epoch5/model.pth")
        [entry] = project_files(directory, "data.csv")
        assert (entry.name, entry.kind, entry.source) == ("data.csv", "file", tmp_path / "data.csv")

    def test_a_missing_file_names_the_directory_and_what_is_close(
        self, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(directory, "model.pth", "train.py")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(FileNotFoundError) as caught:
            checkpoint_files(directory, "modell.pth")
        assert str(caught.value) == f"no such file (looked in {directory}), did you mean model.pth?"
        with pytest.raises(FileNotFoundError) as caught:
            project_files(directory, "no/thing")
        assert str(caught.value) == f"no such file (looked in {directory})"
        write(tmp_path, "weights.bin")
        with pytest.raises(FileNotFoundError, match=f"it is in {tmp_path}, but path is relative to the project directory"):
            checkpoint_files(directory, "weights.bin")

    def test_a_broken_or_circular_named_link_is_missing(self, directory: Path) -> None:
        (directory / "broken").symlink_to("nothing")
        (directory / "loop").symlink_to("loop")
        for path in ("broken", "loop"):
            with pytest.raises(FileNotFoundError, match="no such file"):
                checkpoint_files(directory, path)

    def test_no_path_is_not_the_whole_project(self, directory: Path) -> None:
        with pytest.raises(ValueError, match="path is empty"):
            checkpoint_files(directory, "")

    def test_the_root_directory_has_no_name(self, directory: Path) -> None:
        with pytest.raises(ValueError, match="no name to save it under"):
            checkpoint_files(directory, "/")

    def test_a_named_pipe_is_refused(self, directory: Path) -> None:
        os.mkfifo(directory / "pipe")
        with pytest.raises(ValueError, match="neither a file nor a directory"):
            checkpoint_files(directory, "pipe")


class TestBuiltInRules:
    def test_what_tools_leave_behind_is_not_taken(self, directory: Path) -> None:
        write(directory, "train.py", "pkg/__init__.py", "sub/.git", ".gitignore")
        for name in (".keepsake", ".git", ".hg", ".mypy_cache", "pkg/__pycache__", "web/node_modules", ".ipynb_checkpoints"):
            write(directory, f"{name}/file")
        for marker in ("env/pyvenv.cfg", "conda/conda-meta/history", ".some_cache/CACHEDIR.TAG"):
            write(directory, marker, f"{Path(marker).parts[0]}/lib/big.so")
        assert names(project_files(directory, ".")) == [".gitignore", "pkg/__init__.py", "sub", "train.py", "web"]

    def test_secrets_are_not_taken(self, directory: Path) -> None:
        key = "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----\n"
        write(directory, "server.pem", "deploy.key", text=f"# mine\n{key}")
        write(directory, "gcp-credentials.json", text='{"type": "service_account", "private_key": "abc"}')
        write(directory, ".env", "sub/.env", ".env.local", "ssh/id_rsa", "ssh/id_ed25519", "store.p12", ".netrc")
        write(directory, "public.pem", "model.key", "keys.json", ".env.example", "ssh/id_rsa.pub", "environment.py")
        assert names(project_files(directory, ".")) == [
            ".env.example",
            "environment.py",
            "keys.json",
            "model.key",
            "public.pem",
            "ssh/id_rsa.pub",
            "sub",
        ]

    def test_what_is_named_is_taken_all_the_same(self, directory: Path) -> None:
        write(directory, ".env", "env/pyvenv.cfg", "env/a.py", "__pycache__/b.pyc")
        assert names(checkpoint_files(directory, ".env")[1]) == [".env"]
        assert names(checkpoint_files(directory, "env")[1]) == ["env/a.py", "env/pyvenv.cfg"]
        assert names(checkpoint_files(directory, "__pycache__")[1]) == ["__pycache__/b.pyc"]

    def test_empty_directories_are_kept(self, directory: Path) -> None:
        (directory / "a/b/c").mkdir(parents=True)
        (directory / "d").mkdir()
        write(directory, "d/only.log", "e/f.py")
        ignore(directory, "*.log")
        assert [(e.name, e.kind) for e in project_files(directory, ".") if e.name != ".keepsakeignore"] == [
            ("a/b/c", "directory"),
            ("d", "directory"),
            ("e/f.py", "file"),
        ]
        (directory / "out").mkdir()
        assert checkpoint_files(directory, "out")[1] == [FileEntry("out", directory / "out", "directory")]

    def test_devices_pipes_and_sockets_are_left_out(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(directory, "a.py")
        os.mkfifo(directory / "pipe")
        monkeypatch.chdir(directory)  # a socket's path must be short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket")
            assert names(project_files(directory, ".")) == ["a.py"]

    def test_what_cannot_be_read_is_left_out_with_one_warning(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write(directory, "a.py", "closed.py", "locked/b.py")
        (directory / "closed.py").chmod(0)
        (directory / "locked").chmod(0)
        with bound_by_permissions(directory):
            entries = project_files(directory, ".")
        (directory / "locked").chmod(0o700)
        assert names(entries) == ["a.py"]
        assert capsys.readouterr().err == "keepsake: warning: not saved, because they cannot be read: closed.py, locked\n"

    def test_names_that_are_not_text_are_taken(self, directory: Path) -> None:
        path = os.fsdecode(os.fsencode(directory) + b"/caf\xe9.txt")
        Path(path).write_text("x", encoding="utf-8")
        assert [entry.source for entry in project_files(directory, ".")] == [Path(path)]

    def test_very_deep_trees_are_walked(self, directory: Path) -> None:
        # The path is longer than one system call takes, so it is made step by step.
        here = os.open(directory, os.O_RDONLY)
        try:
            for _ in range(1100):
                os.mkdir("d", dir_fd=here)
                inner = os.open("d", os.O_RDONLY, dir_fd=here)
                os.close(here)
                here = inner
        finally:
            os.close(here)
        [entry] = project_files(directory, ".")
        assert entry.kind == "directory"
        assert entry.name == "/".join(["d"] * 1100)
        # pytest cannot remove such a tree.
        subprocess.run(["rm", "-r", "d"], cwd=directory, check=True)


class TestRepository:
    @pytest.mark.parametrize("place", ["repo", "data/runs", ".keepsake"])
    def test_the_repository_is_never_taken_wherever_it_lies(self, directory: Path, place: str) -> None:
        write(directory, "train.py", f"{place}/repository.json", f"{place}/metadata/x.json", "data/train.csv")
        entries = project_files(directory, ".", exclude=[directory / place])
        assert names(entries) == ["data/train.csv", "train.py"]
        _, entries = checkpoint_files(directory, "data", exclude=[directory / place])
        assert names(entries) == ["data/train.csv"]

    def test_it_is_known_under_every_spelling(self, directory: Path, tmp_path: Path) -> None:
        write(directory, "train.py", "repo/repository.json")
        (tmp_path / "alias").symlink_to(directory / "repo")
        for spelling in (tmp_path / "alias", directory / "sub/../repo", directory.parent / "project/repo"):
            (directory / "sub").mkdir(exist_ok=True)
            assert names(project_files(directory, ".", exclude=[spelling])) == ["sub", "train.py"]

    def test_one_that_does_not_exist_is_no_matter(self, directory: Path) -> None:
        write(directory, "train.py")
        assert names(project_files(directory, ".", exclude=[directory / "later"])) == ["train.py"]

    @pytest.mark.parametrize("place", [".", ".."])
    def test_a_project_inside_its_repositorys_directory_is_taken(self, directory: Path, place: str) -> None:
        root = directory / place
        write(root, "repository.json", "metadata/experiments/x.json", "experiments/x.tar.gz", "checkpoints/y.tar.gz")
        write(directory, "train.py", "src/checkpoints/keep.txt")
        entries = project_files(directory, ".", exclude=[Path(os.path.normpath(root))])
        assert names(entries) == ["src/checkpoints/keep.txt", "train.py"]

    def test_naming_the_repository_is_refused(self, directory: Path) -> None:
        write(directory, "repo/metadata/x.json")
        for path in ("repo", "repo/metadata"):
            with pytest.raises(ValueError, match="never saved"):
                checkpoint_files(directory, path, exclude=[directory / "repo"])


class TestIgnoreFile:
    def test_rules_are_gits(self, directory: Path) -> None:
        write(directory, "a.log", "keep.log", "data/big.bin", "data/keep/x.bin", "build/x", "src/build/y", "doc/notes.txt")
        ignore(directory, "# comment", "", "*.log", "!keep.log", "/build", "data/*", "!data/keep/", "doc/**/*.txt")
        assert names(project_files(directory, ".")) == ["data/keep/x.bin", "doc", "keep.log", "src/build/y"]

    def test_nothing_inside_an_ignored_directory_comes_back(self, directory: Path) -> None:
        write(directory, "data/keep.csv", "data/big.csv")
        ignore(directory, "data/", "!data/keep.csv")
        assert names(project_files(directory, ".")) == []

    @pytest.mark.parametrize("rule", ["checkpoints/", "checkpoints", "checkpoints/*", "/checkpoints/**", "*", "out*"])
    def test_a_rule_against_all_of_what_is_named_does_not_count(self, directory: Path, rule: str) -> None:
        write(directory, "checkpoints/model.pth", "checkpoints/logs/a.log", "outcome.pth")
        ignore(directory, rule, "*.log")
        assert names(checkpoint_files(directory, "checkpoints")[1]) == ["checkpoints/logs", "checkpoints/model.pth"]
        assert names(checkpoint_files(directory, "outcome.pth")[1]) == ["outcome.pth"]
        assert names(project_files(directory, "checkpoints")) == ["checkpoints/logs", "checkpoints/model.pth"]

    def test_rules_are_relative_to_the_project_when_a_directory_below_is_named(self, directory: Path) -> None:
        write(directory, "out/a/skip.bin", "out/skip.bin", "out/b.bin")
        ignore(directory, "/out/skip.bin", "/skip.bin")
        assert names(checkpoint_files(directory, "out")[1]) == ["out/a/skip.bin", "out/b.bin"]

    def test_rules_do_not_reach_outside(self, directory: Path, tmp_path: Path) -> None:
        write(tmp_path / "scratch", "model.pth")
        ignore(directory, "*.pth", "scratch")
        assert names(checkpoint_files(directory, tmp_path / "scratch")[1]) == ["scratch/model.pth"]

    def test_the_ignore_file_itself_is_taken(self, directory: Path) -> None:
        ignore(directory, "*.log")
        assert [entry.name for entry in project_files(directory, ".")] == [".keepsakeignore"]

    def test_windows_line_ends_a_byte_order_mark_and_other_encodings_are_read(self, directory: Path) -> None:
        write(directory, "a.log", "a.txt", "a.py")
        (directory / ".keepsakeignore").write_bytes(b"\xef\xbb\xbf*.log\r\n# \xe9t\xe9\r\n*.txt\r\n")
        assert names(project_files(directory, ".")) == ["a.py"]

    def test_a_line_that_is_no_pattern_is_said_and_skipped(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write(directory, "a.log", "a.py")
        ignore(directory, "[z-a]", "!", "[", "[[]]", "*.log")
        assert names(project_files(directory, ".")) == ["a.py"]
        assert capsys.readouterr().err == 'keepsake: warning: .keepsakeignore: "[z-a]" is not a pattern\n'


class TestLinks:
    def test_a_link_inside_the_tree_stays_a_link(self, directory: Path) -> None:
        write(directory, "a/model.pth")
        (directory / "a/best.pth").symlink_to("model.pth")
        (directory / "latest").symlink_to("a")
        (directory / "a/up").symlink_to("../a/model.pth")
        (directory / "absolute").symlink_to(directory / "a/model.pth")
        entries = {entry.name: (entry.kind, entry.link_target) for entry in project_files(directory, ".")}
        assert entries == {
            "a/model.pth": ("file", None),
            "a/best.pth": ("link", "model.pth"),
            "latest": ("link", "a"),
            "a/up": ("link", "../a/model.pth"),
            "absolute": ("link", "a/model.pth"),
        }

    def test_a_target_that_leaves_the_tree_and_comes_back_is_rewritten(self, directory: Path) -> None:
        write(directory, "out/model.pth", "out/sub/x")
        (directory / "out/sub/link").symlink_to("../../out/model.pth")
        _, entries = checkpoint_files(directory, "out")
        assert [e.link_target for e in entries if e.kind == "link"] == ["../model.pth"]

    def test_a_link_to_a_file_outside_becomes_that_file(self, directory: Path, tmp_path: Path) -> None:
        write(tmp_path, "shared.csv")
        write(directory, "weights.pth", "out/a")
        (directory / "data.csv").symlink_to(tmp_path / "shared.csv")
        (directory / "out/w.pth").symlink_to("../weights.pth")
        entries = {entry.name: entry for entry in project_files(directory, ".")}
        assert entries["data.csv"] == FileEntry("data.csv", tmp_path / "shared.csv", "file")
        assert entries["out/w.pth"].kind == "link"
        # Of "out" alone the target is no part.
        assert checkpoint_files(directory, "out")[1][1] == FileEntry("out/w.pth", directory / "weights.pth", "file")

    def test_a_link_to_a_directory_outside_is_left_out_and_said_once(
        self, directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write(tmp_path / "imagenet", "1.jpg")
        write(directory, "a.py")
        (directory / "data").symlink_to(tmp_path / "imagenet")
        for _ in range(2):
            assert names(project_files(directory, ".")) == ["a.py"]
        assert capsys.readouterr().err == "keepsake: warning: data is a link to a directory elsewhere, which is not saved\n"

    def test_links_to_secrets_to_the_repository_and_to_nothing_are_left_out(self, directory: Path, tmp_path: Path) -> None:
        write(tmp_path, "home/.ssh/id_rsa", "repo/repository.json", "home/.env")
        write(directory, "a.py")
        (directory / "settings").symlink_to(tmp_path / "home/.env")
        (directory / "key").symlink_to(tmp_path / "home/.ssh/id_rsa")
        (directory / "spec").symlink_to(tmp_path / "repo/repository.json")
        (directory / "gone").symlink_to(tmp_path / "gone")
        assert names(project_files(directory, ".", exclude=[tmp_path / "repo"])) == ["a.py"]

    def test_circles_end(self, directory: Path) -> None:
        write(directory, "a/b.py")
        (directory / "a/loop").symlink_to("..")
        (directory / "self").symlink_to("self")
        assert [(e.name, e.link_target) for e in project_files(directory, ".")] == [
            ("a/b.py", None),
            ("a/loop", ".."),
            ("self", "self"),
        ]

    def test_rules_apply_to_links(self, directory: Path) -> None:
        write(directory, "a.py")
        (directory / "b.log").symlink_to("a.py")
        ignore(directory, "*.log")
        assert names(project_files(directory, ".")) == ["a.py"]


SEGMENTS = st.sampled_from(["a", "b", "ab", "a.log", "b.txt", "foo", "c d", ".x", "A", "[a]", "#x", "!b"])
PATHS = st.lists(SEGMENTS, min_size=1, max_size=4).map("/".join)
GLOBS = st.one_of(
    SEGMENTS, st.sampled_from(["*", "?", "**", "*.log", "a*", "[ab]", "[!a]", "[a-c]*", "f?o", r"\#x", r"\!b", r"\[a]"])
)
RULES = st.builds(
    lambda negation, start, segments, end: negation + start + "/".join(segments) + end,
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "", "/", "**/"]),
    st.lists(GLOBS, min_size=1, max_size=3),
    st.sampled_from(["", "", "/", "/*", "/**", "  "]),
)


@pytest.fixture(scope="module")
def git_directory() -> Iterator[Path]:
    """A Git repository that examples write their trees and rules into."""
    with tempfile.TemporaryDirectory() as name:
        subprocess.run(["git", "init", "--quiet", name], check=True)
        yield Path(name).resolve()


def test_a_match_of_a_directory_does_not_undo_an_earlier_rule_below_it(directory: Path) -> None:
    """The case that libraries get wrong: Git matches each name by itself."""
    write(directory, "results/checkpoints/model.pth", "results/a.txt")
    ignore(directory, "checkpoints/", "!results")
    assert names(project_files(directory, ".")) == ["results/a.txt"]


@settings(max_examples=150)
@given(paths=st.sets(PATHS, min_size=1, max_size=12), rules=st.lists(RULES, max_size=6))
def test_rules_do_what_git_does(git_directory: Path, paths: set[str], rules: list[str]) -> None:
    for left in git_directory.iterdir():
        if left.name != ".git":
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    for path in sorted(paths):
        if not any(other.startswith(f"{path}/") for other in paths):
            write(git_directory, path)
    write(git_directory, ".git/info/exclude", ".keepsakeignore", text="\n".join(rules) + "\n")
    listed = subprocess.run(
        ["git", "-c", "core.quotePath=false", "ls-files", "--others", "--exclude-standard", "-z"],
        cwd=git_directory,
        capture_output=True,
        check=True,
    )
    expected = {os.fsdecode(name) for name in listed.stdout.split(b"\0") if name}
    taken = {entry.name for entry in project_files(git_directory, ".") if entry.kind == "file"}
    assert taken - {".keepsakeignore"} == expected - {".keepsakeignore"}
