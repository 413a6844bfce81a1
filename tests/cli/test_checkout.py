"""``keepsake checkout`` brings back what was saved, and asks before anything is lost."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tarfile
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


UNSAVED = "  M train.py  your version is not in Git HEAD and not in Keepsake"
YEAR = r"20\d\d-\d\d-\d\dT\d\d-\d\d-\d\d"


def test_into_another_directory(repo: Repo, keepsake: Run) -> None:
    result = keepsake("checkout", "eb96def", "-o", "out/deep")
    assert (result.code, result.out) == (0, "")
    assert result.err.splitlines() == [
        "From experiment eb96def and its best checkpoint fe6a313 (step 100) into out/deep:",
        "  0 files identical, 4 new, 0 changed",
        "4 files written.",
    ]
    assert tree(repo.directory / "out/deep") == SAVED
    again = keepsake("checkout", "eb96def", "-o", "out/deep")
    assert again.err.splitlines()[1:] == ["  4 files identical, 0 new, 0 changed", "0 files written."]


def test_a_checkpoint_brings_its_own_weights(repo: Repo, here: Run) -> None:
    result = here("checkout", "0b77c4e", "-o", "out")
    assert result.err.startswith("From checkpoint 0b77c4e (step 200) and its experiment eb96def into ")
    assert tree(repo.directory / "out") == SAVED | {"model.pth": b"latest weights"}


def test_into_the_project_the_configuration_stays(repo: Repo, keepsake: Run) -> None:
    before = (repo.directory / "keepsake.yaml").read_bytes()
    result = keepsake("checkout", "eb96def")
    assert result.code == 0
    assert "  K keepsake.yaml  yours is kept (--with-config puts the saved one back)" in result.err.splitlines()
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
    assert any(line.split() == UNSAVED.split() for line in result.err.splitlines())
    assert (repo.directory / "train.py").read_bytes() == SAVED["train.py"]


def at_the_question(repo: Repo, terminal, *arguments: str):
    (repo.directory / "train.py").write_bytes(b"mine\n")
    asked = terminal("checkout", "eb96def", *arguments)
    asked.wait_for("[b/o/N] ")
    return asked


def test_a_person_is_asked_before_files_are_lost(repo: Repo, terminal) -> None:
    asked = at_the_question(repo, terminal)
    question = asked.seen
    asked.type("\n")
    result = asked.end()
    assert (result.code, (repo.directory / "train.py").read_bytes()) == (6, b"mine\n")
    assert "error: nothing was checked out: you said no" in result.out
    assert not (repo.directory / "model.pth").exists()
    head, *lines = re.sub(YEAR, "TIME", question).splitlines()
    assert head.startswith("From experiment eb96def and its best checkpoint fe6a313 (step 100) into ")
    assert lines == [
        "  0 files identical, 2 new, 1 changed:",
        "  M train.py       your version is not in Git HEAD and not in Keepsake",
        "  K keepsake.yaml  yours is kept (--with-config puts the saved one back)",
        "Your version of 1 file would be lost. Choose:",
        "  b  back it up to .keepsake/undo/TIME/ and continue",
        "  o  check out into another directory instead",
        "  n  stop (default)",
        "[b/o/N] ",
    ]


@pytest.mark.parametrize("answer", ["n", "no", "y", "yes", "what?"])
def test_what_is_no_choice_stops(repo: Repo, terminal, answer: str) -> None:
    asked = at_the_question(repo, terminal)
    asked.type(f"{answer}\n")
    assert asked.end().code == 6
    assert (repo.directory / "train.py").read_bytes() == b"mine\n"


def test_the_answer_backup(repo: Repo, terminal, here: Run) -> None:
    asked = at_the_question(repo, terminal)
    asked.type("b\n")
    result = asked.end()
    assert result.code == 0
    assert (repo.directory / "train.py").read_bytes() == SAVED["train.py"]
    [copy] = (repo.root / "undo").glob("*/files/train.py")
    assert copy.read_bytes() == b"mine\n"
    place = copy.parents[1].name
    assert result.out.splitlines()[-2:] == [
        "3 files written.",
        f"Your versions are in .keepsake/undo/{place}/; to bring them back: keepsake checkout --undo",
    ]
    assert here("checkout", "--undo").code == 0
    assert tree(repo.directory).get("train.py") == b"mine\n"


def test_the_answer_other_directory(repo: Repo, terminal) -> None:
    asked = at_the_question(repo, terminal)
    asked.type("o\n")
    asked.wait_for("Directory: ")
    asked.type("../elsewhere\n")
    assert asked.end().code == 0
    assert tree(repo.directory.parent / "elsewhere") == SAVED
    assert (repo.directory / "train.py").read_bytes() == b"mine\n"


def test_the_other_directory_is_asked_about_as_well(repo: Repo, terminal) -> None:
    elsewhere = repo.directory.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "train.py").write_bytes(b"theirs\n")
    asked = at_the_question(repo, terminal)
    asked.type("o\n../elsewhere\nn\n")
    result = asked.end()
    assert (result.code, result.out.count("[b/o/N]")) == (6, 2)
    assert tree(elsewhere) == {"train.py": b"theirs\n"}


def test_nothing_is_asked_where_nothing_is_lost(repo: Repo, terminal) -> None:
    (repo.directory / "train.py").write_bytes(SAVED["train.py"])
    (repo.directory / "notes.txt").write_text("mine", encoding="utf-8")
    result = terminal("checkout", "eb96def").end()
    assert result.code == 0
    assert "[b/o/N]" not in result.out
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
    assert "error: your version of 14 files would be lost" in result.err
    every = here("checkout", "fe6a313", "--dry-run")
    assert (every.code, every.err.count("  M f"), every.err.count("  A ")) == (0, 14, 2)


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


# --- what is saved, and what is not -----------------------------------------------------------------------------------


def git(directory: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=ana", "-c", "user.email=ana@example.com", *arguments]
    return subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True).stdout


def committed(directory: Path, *names: str) -> None:
    git(directory, "init", "--quiet")
    git(directory, "add", "--", *names)
    git(directory, "commit", "--quiet", "-m", "all")


def notes_of(result: Result) -> dict[str, str]:
    """What the plan says of each file."""
    found = [line.split(maxsplit=2) for line in result.err.splitlines() if re.match("  [MDK!] ", line)]
    return {words[1]: words[2] if len(words) > 2 else "" for words in found}


def test_what_is_in_git_is_saved(repo: Repo, here: Run) -> None:
    (repo.directory / "train.py").write_bytes(b"committed\n")
    (repo.directory / "lib").mkdir()
    (repo.directory / "lib/net.py").write_bytes(b"committed too\n")
    committed(repo.directory, "train.py", "lib/net.py")
    (repo.directory / "lib/net.py").write_bytes(b"and changed since\n")
    result = here("checkout", "eb96def")
    assert result.code == 6
    assert notes_of(result)["train.py"] == "your version is in Git HEAD"
    assert notes_of(result)["lib/net.py"] == "your version is not in Git HEAD and not in Keepsake"
    assert "error: your version of 1 file would be lost" in result.err
    committed(repo.directory, "lib/net.py")
    assert here("checkout", "eb96def").code == 0
    assert here("checkout", "--undo").code == 0
    assert (repo.directory / "train.py").read_bytes() == b"committed\n"
    assert (repo.directory / "lib/net.py").read_bytes() == b"and changed since\n"
    assert git(repo.directory, "status", "--porcelain").splitlines() == ["?? .keepsake/", "?? keepsake.yaml"]


def test_a_project_below_the_top_of_git(repo: Repo, here: Run) -> None:
    (repo.directory / "train.py").write_bytes(b"committed\n")
    committed(repo.directory.parent, "project/train.py")
    assert notes_of(here("checkout", "eb96def", "-n"))["train.py"] == "your version is in Git HEAD"


def test_what_git_only_has_converted_is_not_saved(repo: Repo, here: Run) -> None:
    """Bringing it back from there would not give the same bytes."""
    (repo.directory / ".gitattributes").write_text("*.py text eol=crlf\n", encoding="ascii")
    (repo.directory / "train.py").write_bytes(b"committed\r\n")
    committed(repo.directory, "train.py")
    assert "not in Git HEAD" in notes_of(here("checkout", "eb96def", "-n"))["train.py"]


def test_what_keepsake_has_is_saved(repo: Repo, here: Run) -> None:
    assert here("checkout", "0b77c4e").code == 0
    result = here("checkout", "eb96def")
    assert result.code == 0
    assert notes_of(result)["model.pth"] == "your version is in checkpoint 0b77c4e"
    assert here("checkout", "--undo").code == 0
    assert (repo.directory / "model.pth").read_bytes() == b"latest weights"
    assert not list((repo.root / "undo").glob("*/files"))


def test_code_of_a_recent_experiment_of_this_machine_is_saved(repo: Repo, here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from keepsake.repository import layout
    from tests.cli.conftest import full_id

    key = layout.experiment_archive_key(full_id("aaaaaaa"))
    repo.add("aaaaaaa", path=".", archive=repo.archive(key, {"train.py": b"of another run\n"}))
    (repo.directory / "train.py").write_bytes(b"of another run\n")
    assert "not in Keepsake" in notes_of(here("checkout", "eb96def", "-n"))["train.py"]
    monkeypatch.setenv("KEEPSAKE_HOST", "gpu-07")
    assert notes_of(here("checkout", "eb96def", "-n"))["train.py"] == "your version is in experiment aaaaaaa"


def test_a_file_of_the_same_content_under_another_name_is_not_saved(repo: Repo, here: Run) -> None:
    (repo.directory / "train.py").write_bytes(SAVED["lib/net.py"])
    assert here("checkout", "eb96def").code == 6


# --- backup and undo --------------------------------------------------------------------------------------------------


def test_undo_brings_everything_back(repo: Repo, keepsake: Run) -> None:
    (repo.directory / "train.py").write_bytes(b"mine\n")
    (repo.directory / "train.py").chmod(0o755)
    before = tree(repo.directory)
    assert keepsake("checkout", "eb96def", "--backup").code == 0
    dry = keepsake("checkout", "--undo", "--dry-run")
    assert tree(repo.directory)["train.py"] == SAVED["train.py"]
    result = keepsake("checkout", "--undo")
    head, *lines = result.err.splitlines()
    assert re.fullmatch(r"Undo the checkout of 20[\d: -]+ from experiment eb96def and its best .* into \S+:", head)
    assert lines == ["  M train.py", "  D lib/net.py", "  D model.pth", "1 file restored, 2 removed."]
    assert dry.err.splitlines() == [head, *lines[:-1], "1 file would be restored, 2 would be removed."]
    assert {name: content for name, content in tree(repo.directory).items() if "/undo/" not in name} == before
    assert os.access(repo.directory / "train.py", os.X_OK)
    assert not (repo.directory / "lib").exists()
    assert not list((repo.root / "undo").glob("2*"))
    again = keepsake("checkout", "--undo")
    assert (again.code, again.err.splitlines()[0]) == (3, "error: no checkout to undo")


def test_undo_leaves_what_was_changed_since(repo: Repo, here: Run) -> None:
    (repo.directory / "train.py").write_bytes(b"mine\n")
    assert here("checkout", "eb96def", "--backup").code == 0
    (repo.directory / "train.py").write_bytes(b"edited\n")
    (repo.directory / "model.pth").write_bytes(b"trained on")
    result = here("checkout", "--undo")
    assert result.code == 0
    assert notes_of(result)["train.py"] == notes_of(result)["model.pth"] == "was changed since, and stays as it is"
    assert "keepsake checkout --undo --force; the copies stay in .keepsake/undo/" in result.err
    assert (repo.directory / "train.py").read_bytes() == b"edited\n"
    assert (repo.directory / "model.pth").read_bytes() == b"trained on"
    assert here("checkout", "--undo", "--force").code == 0
    assert (repo.directory / "train.py").read_bytes() == b"mine\n"
    assert not (repo.directory / "model.pth").exists()


def test_undo_goes_back_one_checkout_after_another(repo: Repo, here: Run) -> None:
    for reference in ("0b77c4e", "eb96def"):
        assert here("checkout", reference, "--weights-only").code == 0
    assert here("checkout", "--undo").code == 0
    assert (repo.directory / "model.pth").read_bytes() == b"latest weights"
    assert here("checkout", "--undo").code == 0
    assert not (repo.directory / "model.pth").exists()


def test_undo_of_one_directory(repo: Repo, here: Run) -> None:
    assert here("checkout", "eb96def", "-o", "out").code == 0
    assert here("checkout", "eb96def").code == 0
    assert here("checkout", "--undo", "-o", "out").code == 0
    assert tree(repo.directory / "out") == {}
    assert (repo.directory / "train.py").exists()


def test_what_was_forced_away_cannot_be_restored(repo: Repo, here: Run) -> None:
    (repo.directory / "train.py").write_bytes(b"mine\n")
    assert here("checkout", "eb96def", "--force").code == 0
    result = here("checkout", "--undo")
    assert notes_of(result)["train.py"].startswith("cannot be restored")
    assert (repo.directory / "train.py").read_bytes() == SAVED["train.py"]
    assert not (repo.directory / "model.pth").exists()


def test_what_is_kept_is_in_no_archive_and_not_in_git(repo: Repo, here: Run) -> None:
    from keepsake.capture.files import project_files

    committed(repo.directory, "keepsake.yaml")
    (repo.directory / "train.py").write_bytes(b"mine\n")
    assert here("checkout", "eb96def", "--backup").code == 0
    assert not [entry for entry in project_files(repo.directory, ".") if "undo" in entry.name]
    assert not [line for line in git(repo.directory, "status", "--porcelain", "-uall").splitlines() if "undo" in line]
    assert here("fsck").code == 0


def test_without_a_backup_only_the_last_ones_are_kept(repo: Repo, here: Run) -> None:
    from keepsake.checkout.undo import KEPT

    for number in range(KEPT + 2):
        assert here("checkout", "eb96def", "-o", f"out{number}").code == 0
    assert len(list((repo.root / "undo").glob("2*"))) == KEPT
    assert here("checkout", "--undo", "-o", "out0").code == 3


# --- what is left out, put back and removed ---------------------------------------------------------------------------


def test_only_the_code_and_only_the_weights(repo: Repo, keepsake: Run) -> None:
    code = keepsake("checkout", "eb96def", "--code-only", "-o", "code")
    weights = keepsake("checkout", "eb96def", "--weights-only", "-o", "weights")
    assert code.err.splitlines()[0] == "From the code of experiment eb96def into code:"
    assert weights.err.splitlines()[0] == "From the best checkpoint fe6a313 (step 100) of experiment eb96def into weights:"
    assert tree(repo.directory / "code") == {name: SAVED[name] for name in SAVED if name != "model.pth"}
    assert tree(repo.directory / "weights") == {"model.pth": SAVED["model.pth"]}
    assert keepsake("checkout", "eb96def", "--weights-only", "--path", "train.py", "-o", "-").code == 3
    assert keepsake("checkout", "eb96def", "--code-only", "--path", "train.py", "-o", "-").out == "print('train')\n"


@pytest.mark.parametrize("arguments", [["eb96def", "--code-only", "--weights-only"], ["eb96def", "--undo"], []])
def test_what_makes_no_sense(repo: Repo, here: Run, arguments: list[str]) -> None:
    assert here("checkout", *arguments).code == 2


def test_the_configuration_comes_back_if_asked(repo: Repo, here: Run) -> None:
    assert here("checkout", "eb96def", "--with-config").code == 6
    assert here("checkout", "eb96def", "--with-config", "--backup").code == 0
    assert (repo.directory / "keepsake.yaml").read_bytes() == SAVED["keepsake.yaml"]


def test_a_dry_run_changes_nothing(repo: Repo, keepsake: Run) -> None:
    (repo.directory / "train.py").write_bytes(b"mine\n")
    before = tree(repo.directory)
    result = keepsake("checkout", "eb96def", "--dry-run", "--backup", "--delete")
    assert (result.code, result.out) == (0, "")
    assert result.err.splitlines()[1:] == [
        "  0 files identical, 2 new, 1 changed:",
        "  A lib/net.py",
        "  A model.pth",
        "  M train.py       your version is not in Git HEAD and not in Keepsake",
        "  K keepsake.yaml  yours is kept (--with-config puts the saved one back)",
        "Nothing was changed (dry run).",
    ]
    assert tree(repo.directory) == before


def test_delete_makes_the_directory_equal(repo: Repo, here: Run) -> None:
    for name, content in {
        ".keepsakeignore": b"data/\n",
        "data/big.bin": b"ignored",
        "old/deep/stale.py": b"stale",
        "train.py": SAVED["train.py"],
    }.items():
        (repo.directory / name).parent.mkdir(parents=True, exist_ok=True)
        (repo.directory / name).write_bytes(content)
    committed(repo.directory, "train.py")
    before = tree(repo.directory)
    refused = here("checkout", "eb96def", "--delete")
    assert (refused.code, notes_of(refused)["old/deep/stale.py"]) == (6, "your version is not in Git HEAD and not in Keepsake")
    result = here("checkout", "eb96def", "--delete", "--backup")
    assert result.code == 0
    assert "  1 file identical, 2 new, 0 changed, 2 to be removed:" in result.err.splitlines()
    assert result.err.splitlines()[-2] == "2 files written, 2 removed."
    left = {name for name in tree(repo.directory) if not name.startswith((".git/", ".keepsake/"))}
    assert left == {*SAVED, "data/big.bin"}
    assert not (repo.directory / "old").exists()
    assert here("checkout", "--undo").code == 0
    assert {name: content for name, content in tree(repo.directory).items() if "/undo/" not in name} == before


def test_without_delete_nothing_goes(repo: Repo, here: Run) -> None:
    (repo.directory / "notes.txt").write_text("mine", encoding="utf-8")
    assert here("checkout", "eb96def").code == 0
    assert (repo.directory / "notes.txt").exists()


def test_a_directory_full_of_files_where_a_file_is_to_come(repo: Repo, here: Run) -> None:
    (repo.directory / "model.pth").mkdir()
    (repo.directory / "model.pth/shard.bin").write_bytes(b"mine")
    before = tree(repo.directory)
    result = here("checkout", "eb96def", "--force")
    assert result.code == 6
    assert "model.pth is a directory, and a file in the version that is to come" in result.err
    assert tree(repo.directory) == before


def test_a_file_where_a_directory_is_to_come(repo: Repo, here: Run) -> None:
    (repo.directory / "lib").write_bytes(b"mine")
    assert notes_of(here("checkout", "eb96def"))["lib"] == "your version is not in Git HEAD and not in Keepsake"
    assert here("checkout", "eb96def", "--backup").code == 0
    assert (repo.directory / "lib/net.py").read_bytes() == SAVED["lib/net.py"]
    assert here("checkout", "--undo").code == 0
    assert (repo.directory / "lib").read_bytes() == b"mine"


def test_a_checkout_reads_no_other_record(repo: Repo, here: Run) -> None:
    from tests.cli.conftest import FINISHED, full_id

    (repo.root / f"metadata/experiments/{full_id('abcdef0')}.json").write_text("damaged", encoding="ascii")
    result = here("checkout", FINISHED, "-o", "out")
    assert (result.code, "damaged" in result.err) == (0, False)


def without_an_index(repo: Repo) -> None:
    """Let the files of the best checkpoint be as keepsake 0.4.2 stores them."""
    from keepsake.repository import layout
    from tests.cli.conftest import FINISHED, FINISHED_BEST

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        entry = tarfile.TarInfo(f"{FINISHED_BEST}/model.pth")
        entry.size, entry.mtime, entry.mode = len(SAVED["model.pth"]), 1_600_000_000, 0o644
        tar.addfile(entry, io.BytesIO(SAVED["model.pth"]))
    repo.repository.storage.write(layout.checkpoint_archive_key(FINISHED_BEST), packed.getvalue())
    record = repo.repository.load(FINISHED)
    record.checkpoints[0].archive = None
    record.checkpoints[0].raw = {}
    repo.repository.save(record)


def test_an_archive_without_an_index(repo: Repo, here: Run) -> None:
    without_an_index(repo)
    assert here("checkout", "fe6a313").code == 0
    assert here("checkout", "fe6a313").err.splitlines()[-1] == "0 files written."
    (repo.directory / "model.pth").write_bytes(b"edited weights")
    assert notes_of(here("checkout", "--undo"))["model.pth"] == "was changed since, and stays as it is"
    assert notes_of(here("checkout", "fe6a313"))["model.pth"] == "your version is not in Git HEAD and not in Keepsake"
    assert here("checkout", "fe6a313", "--backup").code == 0
    assert here("checkout", "--undo").code == 0
    assert (repo.directory / "model.pth").read_bytes() == b"edited weights"
