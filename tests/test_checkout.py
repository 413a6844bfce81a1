"""What was saved comes back, and nothing of the person's is lost on the way."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from keepsake import Experiment, Project
from keepsake.checkout import plan_checkout
from keepsake.exceptions import DoesNotExist, ReadError, UnsavedFiles
from keepsake.repository import layout
from tests.conftest import bound_by_permissions


@pytest.fixture
def experiment(project: Project) -> Experiment:
    """Code of three files, and two checkpoints of which the first is the best."""
    write("train.py", "v1")
    write("lib/model.py", "model v1")
    experiment = project.experiments.create(path=".", quiet=True)
    for loss in (0.1, 0.9):
        write("weights/model.pth", f"loss {loss}")
        experiment.checkpoint("weights", metrics={"loss": loss}, primary_metric=("loss", "minimize"))
    experiment.stop()
    return project.experiments.get(experiment.id)


def write(name: str, content: str) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(content, encoding="utf-8")


def tree(directory: Path) -> dict[str, str]:
    return {
        path.relative_to(directory).as_posix(): path.read_text(encoding="utf-8")
        for path in directory.rglob("*")
        if path.is_file() and ".keepsake/" not in path.as_posix()
    }


CODE = {"train.py": "v1", "lib/model.py": "model v1", "keepsake.yaml": "repository: file://.keepsake\n"}


def test_an_experiment_gives_its_code_and_best_weights(experiment: Experiment, tmp_path: Path) -> None:
    experiment.checkout(tmp_path / "new" / "out", quiet=True)
    assert tree(tmp_path / "new" / "out") == CODE | {"weights/model.pth": "loss 0.1"}


def test_a_checkpoint_gives_its_own_files_only(experiment: Experiment, tmp_path: Path) -> None:
    experiment.checkpoints[1].checkout(tmp_path / "out", quiet=True)
    assert tree(tmp_path / "out") == {"weights/model.pth": "loss 0.9"}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("lib", {"lib/model.py": "model v1"}),
        ("lib/model.py", {"lib/model.py": "model v1"}),
        ("weights", {"weights/model.pth": "loss 0.1"}),
        ("train.py", {"train.py": "v1"}),
    ],
)
def test_a_path_gives_one_file_or_directory(experiment: Experiment, tmp_path: Path, path: str, expected: dict[str, str]) -> None:
    experiment.checkout(tmp_path / "out", path=path, quiet=True)
    assert tree(tmp_path / "out") == expected


def test_a_path_that_was_not_saved_is_an_error_and_writes_nothing(experiment: Experiment, tmp_path: Path) -> None:
    with pytest.raises(DoesNotExist, match=r"trein\.py"):
        experiment.checkout(tmp_path / "out", path="trein.py", quiet=True)
    assert not (tmp_path / "out").exists()
    assert list(tmp_path.glob(".keepsake-checkout-*")) == []


def test_an_experiment_without_files_says_so(project: Project, tmp_path: Path) -> None:
    experiment = project.experiments.create(quiet=True)
    experiment.checkpoint(metrics={"loss": 1})
    experiment.stop()
    with pytest.raises(DoesNotExist, match="has no saved files"):
        experiment.checkout(tmp_path / "out")


def test_the_plan_tells_new_changed_identical_and_kept(experiment: Experiment) -> None:
    write("train.py", "v2, unsaved")
    Path("lib/model.py").unlink()
    write("keepsake.yaml", "repository: file://elsewhere\n")
    write("mine.txt", "not in the checkpoint")
    target = Path.cwd()
    with plan_checkout(experiment, experiment.best(), target) as plan:
        assert plan.new == ["lib/model.py"]
        assert plan.changed == ["train.py", "weights/model.pth"]
        assert plan.identical == []
        assert plan.kept == ["keepsake.yaml"]
        assert Path("train.py").read_text(encoding="utf-8") == "v2, unsaved"  # a plan changes nothing
        plan.apply()
    assert tree(target) == CODE | {
        "keepsake.yaml": "repository: file://elsewhere\n",
        "mine.txt": "not in the checkpoint",
        "weights/model.pth": "loss 0.1",
    }
    assert list(target.glob(".keepsake-checkout-*")) == []
    with plan_checkout(experiment, experiment.best(), target) as plan:
        assert (plan.new, plan.changed) == ([], [])


def test_nothing_is_written_through_a_link(experiment: Experiment, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    target = tmp_path / "out"
    target.mkdir()
    (target / "lib").symlink_to(outside)
    with pytest.raises(UnsavedFiles, match="is a link"):
        experiment.checkout(target, quiet=True)
    assert list(outside.iterdir()) == []


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(experiment: Experiment, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine", encoding="utf-8")
    target = tmp_path / "out"
    target.mkdir()
    (target / "train.py").symlink_to(precious)
    experiment.checkout(target, quiet=True)
    assert precious.read_text(encoding="utf-8") == "mine"
    assert (target / "train.py").read_text(encoding="utf-8") == "v1"


def test_executable_bits_links_and_empty_directories_come_back(project: Project, tmp_path: Path) -> None:
    write("run.sh", "#!/bin/sh\n")
    Path("run.sh").chmod(0o755)
    Path("latest").symlink_to("run.sh")
    Path("empty").mkdir()
    experiment = project.experiments.create(path=".", quiet=True)
    experiment.stop()
    experiment.checkout(tmp_path / "out", quiet=True)
    out = tmp_path / "out"
    assert os.access(out / "run.sh", os.X_OK)
    assert (out / "latest").readlink() == Path("run.sh")
    assert (out / "empty").is_dir()


def test_an_archive_that_was_altered_is_refused(experiment: Experiment, tmp_path: Path) -> None:
    repository = experiment.project.directory / ".keepsake"
    best, other = experiment.checkpoints
    (repository / layout.checkpoint_archive_key(best.id)).write_bytes(
        (repository / layout.checkpoint_archive_key(other.id)).read_bytes()
    )
    with pytest.raises(ReadError):
        best.checkout(tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()


def test_an_archive_that_is_gone_is_named(experiment: Experiment, tmp_path: Path) -> None:
    repository = experiment.project.directory / ".keepsake"
    (repository / layout.checkpoint_archive_key(experiment.checkpoints[0].id)).unlink()
    with pytest.raises(ReadError, match="are not in the repository"):
        experiment.checkout(tmp_path / "out", quiet=True)
    with pytest.raises(ReadError, match="are not in the repository"):
        experiment.checkpoints[0].open("weights/model.pth")


def test_open_reads_one_file_and_names_close_ones(experiment: Experiment) -> None:
    with experiment.checkpoints[1].open("weights/model.pth") as file:
        assert file.read() == b"loss 0.9"
        file.seek(5)
        assert file.read() == b"0.9"
    with pytest.raises(DoesNotExist):
        experiment.checkpoints[1].open("weights/model")


def test_what_lies_outside_of_the_project_is_saved_under_its_base_name(project: Project, tmp_path: Path) -> None:
    outside = tmp_path / "scratch" / "model.ckpt"
    outside.parent.mkdir()
    outside.write_bytes(b"w")
    experiment = project.experiments.create(quiet=True)
    checkpoint = experiment.checkpoint(outside)
    experiment.stop()
    assert checkpoint.path == "model.ckpt"
    assert checkpoint.open("model.ckpt").read() == b"w"


def test_only_the_code_or_only_the_weights(experiment: Experiment, tmp_path: Path) -> None:
    experiment.checkout(tmp_path / "code", code_only=True, quiet=True)
    experiment.checkout(tmp_path / "weights", weights_only=True, quiet=True)
    assert tree(tmp_path / "code") == CODE
    assert tree(tmp_path / "weights") == {"weights/model.pth": "loss 0.1"}
    with pytest.raises(ValueError, match="nothing to copy"):
        experiment.checkout(tmp_path / "none", code_only=True, weights_only=True)


def test_from_python_nothing_is_kept_for_an_undo(experiment: Experiment) -> None:
    write("train.py", "v2")
    experiment.checkout(quiet=True)
    assert not Path(".keepsake/undo").exists()


def test_what_is_there_already_is_not_fetched(experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from keepsake.repository.stored_archives import StoredArchives

    experiment.checkout(tmp_path / "out", quiet=True)
    (tmp_path / "out/train.py").write_text("v2", encoding="utf-8")
    wanted: list[set[str]] = []
    extract = StoredArchives.extract

    def extracting(self: StoredArchives, *arguments: object, among: set[str], **keywords: object) -> list[str]:
        wanted.append(among)
        return extract(self, *arguments, among=among, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(StoredArchives, "extract", extracting)
    experiment.checkout(tmp_path / "out", quiet=True)
    assert wanted == [{"train.py"}]
    assert tree(tmp_path / "out")["train.py"] == "v1"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_never_opened(experiment: Experiment, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out/train.py")
    with pytest.raises(UnsavedFiles, match="neither a file nor a directory"):
        experiment.checkout(tmp_path / "out", quiet=True)


def test_a_file_that_cannot_be_read_is_named(experiment: Experiment, tmp_path: Path) -> None:
    experiment.checkout(tmp_path / "out", quiet=True)
    (tmp_path / "out/train.py").chmod(0)
    with (
        bound_by_permissions(tmp_path / "out", experiment.project.directory),
        pytest.raises(ReadError, match=r"cannot read .*train\.py"),
    ):
        experiment.checkout(tmp_path / "out", quiet=True)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="only Linux has a second file system at a known place")
def test_a_place_on_another_file_system(tmp_path: Path) -> None:
    from keepsake.checkout import places

    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        target = Path(directory) / "model.pth"
        for content in ("old", "new"):
            (tmp_path / "model.pth").write_text(content, encoding="ascii")
            places.put(tmp_path / "model.pth", target)
            assert target.read_text(encoding="ascii") == content
        assert [path.name for path in Path(directory).iterdir()] == ["model.pth"]
