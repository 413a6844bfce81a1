"""keepsake 0.4.2 itself lists, shows and checks out what we write, and we still read what it has rewritten.

It runs in an environment of its own, whose interpreter the variable KEEPSAKE_ORIGINAL names (`tox run -e compat`).
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import textwrap
from datetime import timedelta
from pathlib import Path

import pytest

import keepsake
from keepsake import Experiment, Project
from keepsake.exceptions import ReadError
from keepsake.repository import layout

ORIGINAL = Path(os.environ["KEEPSAKE_ORIGINAL"])

PARAMS = {
    "learning_rate": 0.01,
    "epochs": 3,
    "resume": False,
    "nothing": None,
    "name": "ünï ☃",
    "optimizer": {"name": "adam", "betas": [0.9, 0.999], "deep": {"er": [1, {"x": None}]}},
    "nan": math.nan,
    "inf": -math.inf,
    "big": 2**60,
}

FILES = {
    "out/model.pth": bytes(range(256)) * 9000,
    "out/empty.txt": b"",
    "out/ünïcode ☃/naïve.txt": "snow ☃".encode(),
    "out/" + "long/" * 40 + "name" * 30: b"deep",
    "out/" + "ö" * 90: b"long and not ASCII",
    "out/back\\slash": b"\\",
    "out/with space": b" ",
    "out/run.sh": b"#!/bin/sh\n",
}


def environment() -> dict[str, str]:
    """Return our environment without the way to our own package, which would be imported in the original's place."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"KEEPSAKE_NO_ANALYTICS": "1"}


def original(project: Path, *arguments: str) -> str:
    """Run the original's command line and return what it prints."""
    done = subprocess.run(
        [ORIGINAL.parent / "keepsake", *arguments],
        cwd=project,
        env=environment(),
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def original_python(project: Path, code: str) -> str:
    """Run a program that imports the original."""
    done = subprocess.run(
        [ORIGINAL, "-c", textwrap.dedent(code)], cwd=project, env=environment(), capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def experiment(project: Project) -> Experiment:
    """An experiment of ours with all that its files and values can hold.

    Each checkpoint has the metrics of the first: the original's own ``show`` fails where one is missing, in its own records too.
    """
    directory = project.directory
    for name, content in FILES.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    (directory / "out/run.sh").chmod(0o755)
    (directory / "out/link").symlink_to("model.pth")
    (directory / "out/vacant").mkdir()
    (directory / "train.py").write_text("print('train')\n", encoding="utf-8")
    (directory / "model.pth").write_bytes(b"weights" * 1000)
    with keepsake.init(path="train.py", params=PARAMS, quiet=True) as experiment:
        experiment.checkpoint(
            path="out", step=1, metrics={"loss": 0.5, "text": "x"}, primary_metric=("loss", "minimize"), quiet=True
        )
        experiment.checkpoint(path="model.pth", step=2, metrics={"loss": math.nan, "text": "y", "inf": math.inf}, quiet=True)
        experiment.checkpoint(step=3, metrics={"loss": 0.25, "text": "z"}, primary_metric=("loss", "minimize"), quiet=True)
    return project.experiments.get(experiment.id)


def test_it_is_the_original(project: Project) -> None:
    """Or all of this would compare us with ourselves."""
    assert original_python(project.directory, "import keepsake; print(keepsake.__version__)").strip() == "0.4.2"
    assert "0.4.2" in original(project.directory, "--version")


def test_it_lists_and_shows_our_experiments(project: Project, experiment: Experiment) -> None:
    [listed] = json.loads(original(project.directory, "ls", "--json", "--all"))
    assert listed["id"] == experiment.id
    assert listed["running"] is False
    shown = json.loads(original(project.directory, "show", "--json", experiment.id))
    assert shown["params"]["optimizer"] == PARAMS["optimizer"]
    assert shown["params"]["nan"] == "[NaN]"
    assert [checkpoint["step"] for checkpoint in shown["checkpoints"]] == [1, 2, 3]
    text = original(project.directory, "show", experiment.id)
    assert experiment.short_id() in text
    assert "ünï ☃" in text


def test_names_tags_and_aliases_are_in_nobodys_way(project: Project, experiment: Experiment) -> None:
    experiment.rename("warm-up")
    experiment.tag("prod")
    experiment.note("lower dropout")
    best = experiment.best()
    assert best is not None
    best.alias("team/production")
    [listed] = json.loads(original(project.directory, "ls", "--json", "--all"))
    assert listed["id"] == experiment.id
    assert experiment.short_id() in original(project.directory, "show", experiment.id)
    original_python(project.directory, "import keepsake; keepsake.experiments.list()[0].checkpoints[0].checkout('original-out')")
    assert (project.directory / "original-out" / "out" / "model.pth").exists()
    assert project.experiments.find("@team/production") == (experiment, best)
    assert project.experiments.get("warm-up").tags == ("prod",)


def test_its_python_reads_the_values_that_we_wrote(project: Project, experiment: Experiment) -> None:
    code = """
        import json, keepsake
        [experiment] = keepsake.experiments.list()
        checkpoints = [[c.id, c.step, c.path, c.metrics and dict(c.metrics)] for c in experiment.checkpoints]
        found = [experiment.id, dict(experiment.params), checkpoints, experiment.best().step, experiment.is_running()]
        print(json.dumps(found, default=dict))
    """
    id, params, checkpoints, best, running = json.loads(original_python(project.directory, code))
    assert same(params, PARAMS)
    assert same(checkpoints, [[c.id, c.step, c.path, c.metrics] for c in experiment.checkpoints])
    assert (id, best, running) == (experiment.id, 3, False)


def test_its_python_gets_one_experiment_and_its_best_and_opens_files(project: Project, experiment: Experiment) -> None:
    code = f"""
        import json, keepsake
        experiment = keepsake.experiments.get("{experiment.id[:9]}")
        second = experiment.checkpoints[1]
        file = second.open("model.pth")
        metrics = [repr(second.metrics["loss"]), repr(second.metrics["inf"]), second.metrics["text"]]
        print(json.dumps([experiment.id, experiment.best().id, experiment.latest().id, metrics, len(file.read())]))
    """
    found = json.loads(original_python(project.directory, code).splitlines()[-1])
    last = experiment.checkpoints[2].id
    assert found == [experiment.id, last, last, ["nan", "inf", "y"], 7000]


@pytest.fixture
def several(project: Project) -> Project:
    """A project with experiments that differ, one of them without a checkpoint."""
    (project.directory / "train.py").write_text("print('train')\n", encoding="utf-8")
    for number, (optimizer, accuracies) in enumerate([("adam", [0.7, 0.9]), ("sgd", [0.85]), ("adam", [0.5]), ("adam w", [])]):
        params = {
            "optimizer": optimizer,
            "lr": 0.1 * 10**-number,
            "seed": number,
            "amp": number > 1,
            "batch-size": 64,
            "layers": [number, 2],
        }
        if number == 1:
            params["dropout"] = 0.5
        with keepsake.init(path="train.py", params=params, quiet=True) as experiment:
            for step, accuracy in enumerate(accuracies):
                metrics = {"accuracy": accuracy, "val_loss": 1 - accuracy}
                experiment.checkpoint(step=(step + 1) * 40, metrics=metrics, primary_metric=("accuracy", "maximize"), quiet=True)
    return project


@pytest.mark.parametrize(
    "arguments",
    [
        # From its help and its README.
        ["--filter", "step <= 50"],
        ["--filter", "optimizer = adam", "--filter", "accuracy > 0.8"],
        ["--sort", "val_loss", "--filter", "status = stopped", "--filter", "step > 0"],
        ["--filter", "val_loss<0.2"],
        ["--filter", "lr = 0.01"],
        ["--sort=created-desc"],
        ["--sort", "started"],
        # And from what its parser takes.
        ["--filter", "status = running"],
        ["--filter", "status != stopped"],
        ["--filter", "step >= 41"],
        ["--filter", "step = 0"],
        ["--filter", "optimizer=adam w"],
        ["--filter", "optimizer != adam"],
        ["--filter", "optimizer > adam"],
        ["--filter", "seed >= 1", "--filter", "seed<3"],
        ["--filter", "lr < 1e-2"],
        ["--filter", "amp = true"],
        ["--filter", "amp = False"],
        ["--filter", "batch-size = 64"],
        ["--filter", "dropout = null"],
        ["--filter", "dropout = None"],
        ["--filter", "dropout != null"],
        ["--filter", "layers = [1, 2]"],
        ["--filter", "created > 2020-01-01"],
        ["--filter", "started < 2020-01-01"],
        ["--sort", "lr"],
        ["--sort", "seed-desc"],
    ],
)
def test_its_filters_and_sort_keys_find_the_same(several: Project, arguments: list[str]) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "keepsake", "ls", "-q", *arguments],
        cwd=several.directory,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout == original(several.directory, "ls", "-q", *arguments)


def same(one: object, other: object) -> bool:
    """Equality in which NaN equals NaN, and the order of keys is no matter."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def test_it_checks_out_our_files_byte_for_byte(project: Project, experiment: Experiment, tmp_path: Path) -> None:
    original(project.directory, "checkout", experiment.checkpoints[0].id, "-f", "-o", str(tmp_path / "theirs"))
    experiment.checkpoints[0].checkout(tmp_path / "ours", quiet=True)
    theirs, ours = contents(tmp_path / "theirs"), contents(tmp_path / "ours")
    assert theirs == {**ours, "train.py": b"print('train')\n"}
    assert {name: theirs[name] for name in FILES} == FILES
    assert theirs["out/link"] == FILES["out/model.pth"]
    assert (tmp_path / "theirs/out/link").readlink() == Path("model.pth")
    assert os.access(tmp_path / "theirs/out/run.sh", os.X_OK)
    assert (tmp_path / "theirs/out/vacant").is_dir()


def test_it_checks_out_one_file_and_one_directory(project: Project, experiment: Experiment, tmp_path: Path) -> None:
    file, directory = experiment.checkpoints[1].id, experiment.checkpoints[0].id
    original(project.directory, "checkout", file, "-f", "-o", str(tmp_path / "file"), "--path", "model.pth")
    assert contents(tmp_path / "file") == {"model.pth": b"weights" * 1000}
    original(project.directory, "checkout", directory, "-f", "-o", str(tmp_path / "directory"), "--path", "out/ünïcode ☃")
    assert contents(tmp_path / "directory") == {"out/ünïcode ☃/naïve.txt": "snow ☃".encode()}


def contents(directory: Path) -> dict[str, bytes]:
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_it_sees_that_ours_is_running(project: Project) -> None:
    with keepsake.init(params={"x": 1}, quiet=True) as experiment:
        assert json.loads(original(project.directory, "ls", "--json"))[0]["running"] is True
        assert experiment.short_id() in original(project.directory, "ps")
    assert json.loads(original(project.directory, "ls", "--json"))[0]["running"] is False


def test_it_compares_ours_with_its_own(project: Project, experiment: Experiment) -> None:
    theirs = record_with_the_original(project.directory)
    compared = original(project.directory, "diff", experiment.id, theirs)
    assert "learning_rate" in compared
    assert {one.id for one in project.experiments.list()} == {experiment.id, theirs}


def record_with_the_original(directory: Path) -> str:
    code = """
        import keepsake
        experiment = keepsake.init(path="train.py", params={"learning_rate": 0.5})
        experiment.checkpoint(path="model.pth", metrics={"loss": 1.5}, primary_metric=("loss", "minimize"))
        experiment.stop()
        print(experiment.id)
    """
    return original_python(directory, code).split()[-1]


def test_what_it_recorded_beside_ours_is_read(project: Project, experiment: Experiment, tmp_path: Path) -> None:
    theirs = project.experiments.get(record_with_the_original(project.directory))
    assert theirs.params == {"learning_rate": 0.5}
    best = theirs.best()
    assert best is not None
    best.checkout(tmp_path / "theirs", quiet=True)
    assert (tmp_path / "theirs/model.pth").read_bytes() == b"weights" * 1000
    assert experiment.id in {one.id for one in project.experiments.list()}


def test_we_read_a_record_of_ours_that_its_python_has_rewritten(project: Project, experiment: Experiment) -> None:
    code = f"""
        import keepsake
        experiment = keepsake.experiments.get("{experiment.id}")
        experiment.checkpoint(path="model.pth", step=9, metrics={{"loss": 0.125}}, primary_metric=("loss", "minimize"))
    """
    original_python(project.directory, code)
    read = project.experiments.get(experiment.id)
    assert [checkpoint.step for checkpoint in read.checkpoints] == [1, 2, 3, 9]
    assert same(read.params, PARAMS)
    best = read.best()
    assert best is not None
    assert best.step == 9
    with best.open("model.pth") as file:
        assert file.read() == b"weights" * 1000
    assert read.checkpoints[0].open("out/with space").read() == b" "


OURS_ALONE = {
    "git",
    "system",
    "pid",
    "ended",
    "outcome",
    "error",
    "heartbeat_interval_s",
    "resumed",
    "archive",
    "from_the_future",
}


def test_what_it_loses_is_what_the_format_says_and_no_more(project: Project, experiment: Experiment) -> None:
    """It keeps no key that it does not know; this is written in docs/format.md."""
    path = project.directory / ".keepsake" / layout.record_key(experiment.id)
    before = {**json.loads(path.read_text(encoding="utf-8")), "from_the_future": 1}
    path.write_text(json.dumps(before), encoding="utf-8")
    code = f"""
        import keepsake
        keepsake.experiments.get("{experiment.id}").checkpoint(metrics={{"loss": 9}})
    """
    original_python(project.directory, code)
    after = json.loads(path.read_text(encoding="utf-8"))
    assert set(before) - set(after) == OURS_ALONE
    kept = [key for key in after if key not in ("created", "checkpoints")]
    assert {key: after[key] for key in kept} == {key: before[key] for key in kept}
    for now, then in zip(after["checkpoints"], before["checkpoints"], strict=False):
        assert set(then) - set(now) <= {"archive"}
        kept = [key for key in now if key != "created"]
        assert {key: now[key] for key in kept} == {key: then[key] for key in kept}
    read = project.experiments.get(experiment.id)
    # Its Python keeps times as floating-point numbers.
    assert abs(read.created - experiment.created) <= timedelta(microseconds=1)
    assert (read.status.word, read.status.reason, read.outcome) == ("stopped", "unknown", None)


def test_its_rm_of_a_checkpoint_leaves_it_in_the_record_and_its_loss_is_named(project: Project, experiment: Experiment) -> None:
    original(project.directory, "rm", "--force", experiment.checkpoints[1].id)
    left = project.experiments.get(experiment.id).checkpoints
    assert [checkpoint.step for checkpoint in left] == [1, 2, 3]
    with pytest.raises(ReadError, match="are not in the repository"):
        left[1].checkout(project.directory / "elsewhere", quiet=True)


def test_we_read_the_rest_after_it_has_removed_a_checkpoint(project: Project, experiment: Experiment) -> None:
    original(project.directory, "rm", "--force", experiment.checkpoints[1].id)
    read = project.experiments.get(experiment.id)
    assert read.checkpoints[0].open("out/with space").read() == b" "
    original(project.directory, "rm", "--force", experiment.id)
    assert list(project.experiments.list()) == []


def test_it_reads_an_experiment_with_a_history_that_was_gone_on_with(project: Project, experiment: Experiment) -> None:
    again = project.experiments.create(quiet=True, resume=experiment.id)
    for step in range(4, 7):
        again.log({"loss": 1 / step, "nan": math.nan}, step=step)
    again.checkpoint(path="model.pth", step=7, metrics={"loss": 0.125, "text": "z"}, quiet=True)
    again.stop()
    [listed] = json.loads(original(project.directory, "ls", "--json", "--all"))
    assert (listed["id"], listed["num_checkpoints"]) == (experiment.id, 4)
    original(project.directory, "checkout", again.checkpoints[-1].id[:10], "-o", "back", "-f")
    assert (project.directory / "back/model.pth").read_bytes() == b"weights" * 1000
    # What it does not know stays where it is.
    original(project.directory, "rm", "-f", again.checkpoints[-1].id[:10])
    assert project.experiments.get(experiment.id).history().series("loss")[0] == [1, 2, 3, 4, 5, 6, 7]
