"""Record the golden repositories again: ``KEEPSAKE_ORIGINAL=/path/to/python python tests/compat/record_golden.py``.

The variable names the interpreter of an environment with keepsake 0.4.2 (``tox run -e compat`` makes one). Each repository is
recorded by running a small training with it. What 0.4.2 itself says of the repository, and what its own checkout gives back, is
written beside it as ``expected.json``, so that the tests compare us with the original and not with ourselves.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import textwrap
from pathlib import Path

GOLDEN = Path(__file__).parent / "golden"

TRAININGS = {
    # The ordinary case: code, one file a checkpoint, nested params, the primary metric given each time.
    "files": """
        experiment = keepsake.init(
            path="train.py",
            params={
                "learning_rate": 0.01, "epochs": 3, "resume": False, "name": "ünï ☃", "none": None,
                "optimizer": {"name": "adam", "betas": [0.9, 0.999], "deep": {"er": [1, {"x": None}]}},
            },
        )
        for epoch in range(3):
            write("model.pth", bytes([epoch]) * 5000)
            experiment.checkpoint(
                path="model.pth", step=epoch, metrics={"loss": 0.5 / (epoch + 1), "accuracy": epoch / 4, "epoch": epoch},
                primary_metric=("loss", "minimize"),
            )
        experiment.stop()
    """,
    # A directory with odd names, numbers that JSON lacks, checkpoints without files or without metrics.
    "directories": """
        experiment = keepsake.init(path=".", params={"nan": float("nan"), "inf": float("inf"), "minus": -float("inf"), "whole": 1.0})
        write("out/weights/layer one.bin", bytes(range(256)) * 20)
        write("out/weights/ünïcode ☃.txt", "snow".encode())
        write("out/" + "long/" * 30 + "name" * 30, b"deep")
        write("out/empty", b"")
        for step, loss in enumerate([0.5, float("nan"), 0.25, float("inf")]):
            experiment.checkpoint(path="out", step=10 * step, metrics={"loss": loss, "text": "a [NaN] b", "list": [1, 2.5, "x"]},
                primary_metric=("loss", "minimize"))
        experiment.checkpoint(metrics={"loss": -1.5})
        experiment.checkpoint(path="out/empty")
        experiment.checkpoint()
        experiment.stop()
    """,
    # Two experiments; neither has params or files, and one has no checkpoints at all.
    "bare": """
        keepsake.init().stop()
        experiment = keepsake.init(params={}, path=None)
        experiment.checkpoint(step=7, metrics={"accuracy": 1}, primary_metric=("accuracy", "maximize"))
        experiment.stop()
    """,
    # Killed in the middle: its heartbeat stays behind.
    "killed": """
        experiment = keepsake.init(path="train.py", params={"seed": 1})
        write("model.pth", b"weights")
        experiment.checkpoint(path="model.pth", metrics={"loss": 3})
        wait_for_files()
        for process in (experiment._project._daemon().process.pid, os.getpid()):
            os.kill(process, signal.SIGKILL)
    """,
}

PRELUDE = """
import os, pathlib, signal, time
import keepsake

def write(name, content):
    path = pathlib.Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)

def wait_for_files():
    waited_for = ("experiments", "checkpoints", "metadata/experiments", "metadata/heartbeats")
    while not all(any(pathlib.Path("repository", name).glob("*")) for name in waited_for):
        time.sleep(0.1)
"""

DESCRIBE = """
import json, sys
import keepsake

def described(record, names):
    found = {name: getattr(record, name) for name in names}
    return {**found, "created": record.created.isoformat()}

experiments = []
for experiment in keepsake.experiments.list():
    one = described(experiment, ["id", "params", "user", "command", "path", "python_version", "python_packages", "keepsake_version"])
    one["checkpoints"] = [
        described(checkpoint, ["id", "step", "path", "metrics", "primary_metric"]) for checkpoint in experiment.checkpoints
    ]
    try:
        best = experiment.best()
        one["best"] = best.id if best is not None else None
    except Exception:
        one["best"] = None
    experiments.append(one)
json.dump(experiments, sys.stdout, default=dict)
"""


def run(original: Path, project: Path, code: str) -> str:
    (project / "train.py").write_text(code, encoding="utf-8")
    environment = {**os.environ, "KEEPSAKE_NO_ANALYTICS": "1", "PYTHONPATH": ""}
    done = subprocess.run(
        [original, "train.py"], cwd=project, env=environment, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    return done.stdout


def checked_out(original: Path, project: Path, id: str) -> dict[str, str]:
    """Return what the original's own checkout gives back: digests by name. It puts the checkpoint's files over the experiment's."""
    with tempfile.TemporaryDirectory() as directory:
        command = [original.parent / "keepsake", "checkout", id, "-f", "-o", directory]
        subprocess.run(command, cwd=project, env={**os.environ, "KEEPSAKE_NO_ANALYTICS": "1"}, capture_output=True, check=True)
        files = [path for path in sorted(Path(directory).rglob("*")) if path.is_file()]
        return {path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def record(original: Path, name: str, training: str) -> None:
    project = Path(tempfile.gettempdir()) / "hotdog"
    shutil.rmtree(project, ignore_errors=True)
    project.mkdir()
    (project / "keepsake.yaml").write_text('repository: "file://repository"\n', encoding="utf-8")
    (project / ".keepsakeignore").write_text("repository\n", encoding="utf-8")
    run(original, project, PRELUDE + textwrap.dedent(training))
    experiments = json.loads(run(original, project, DESCRIBE))
    for experiment in experiments:
        for checkpoint in experiment["checkpoints"]:
            checkpoint["checkout"] = checked_out(original, project, checkpoint["id"]) if checkpoint["path"] else None
    shutil.rmtree(GOLDEN / name, ignore_errors=True)
    shutil.copytree(project / "repository", GOLDEN / name / "repository")
    expected = json.dumps(experiments, indent=1, ensure_ascii=False)
    (GOLDEN / name / "expected.json").write_text(expected + "\n", encoding="utf-8")
    shutil.rmtree(project)


if __name__ == "__main__":
    for name, training in TRAININGS.items():
        record(Path(os.environ["KEEPSAKE_ORIGINAL"]), name, training)
