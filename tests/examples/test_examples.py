"""The examples run as they stand, in real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

EXAMPLES = ROOT / "examples"


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, *command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["train_loop.py", "train_lightning.py", "train_keras.py"])
def test_an_example_records_its_training(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text((EXAMPLES / name).read_text(encoding="utf-8"), encoding="utf-8")
    run("-m", "keepsake", "init", "--yes", cwd=tmp_path)
    run(name, "--learning-rate", "0.02", cwd=tmp_path)

    [experiment] = json.loads(run("-m", "keepsake", "ls", "--json", cwd=tmp_path))
    assert experiment["params"]["learning_rate"] == 0.02
    assert experiment["status"] == "stopped"
    assert experiment["status_reason"] == "finished"
    assert experiment["num_checkpoints"] == 5
    assert experiment["best_checkpoint"]["metrics"]["val_loss"] < 0.5
    assert experiment["best_checkpoint"]["metrics"]["val_accuracy"] > 0.8

    run("-m", "keepsake", "checkout", experiment["id"][:7], "-o", "out", cwd=tmp_path)
    assert (tmp_path / "out" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_the_notebook_runs_from_its_first_cell_to_its_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    # The kernel's shell finds the command that belongs to this interpreter.
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    # As for a user the kernel shows what is drawn.
    monkeypatch.delenv("MPLBACKEND", raising=False)
    notebook = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    accuracy = notebook.cells[-1].outputs[0].data["text/plain"]
    assert float(accuracy) > 0.8
    shown = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in data for data in shown) >= 1
    assert any("train_accuracy" in data.get("text/html", "") for data in shown)
    experiments = json.loads(run("-m", "keepsake", "ls", "--json", cwd=tmp_path))
    assert [one["status_reason"] for one in experiments] == ["finished"] * 3
    assert sorted(one["params"]["alpha"] for one in experiments) == [1e-5, 1e-3, 1e-1]


def test_the_hugging_face_example_records_its_training(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text((EXAMPLES / "train_huggingface.py").read_text(encoding="utf-8"), encoding="utf-8")
    run("-m", "keepsake", "init", "--yes", cwd=tmp_path)
    run("train.py", "--epochs", "3", cwd=tmp_path)
    [experiment] = json.loads(run("-m", "keepsake", "ls", "--json", cwd=tmp_path))
    assert (experiment["status_reason"], experiment["num_checkpoints"]) == ("finished", 3)
    assert experiment["best_checkpoint"]["metrics"]["eval_accuracy"] > 0.9
    run("-m", "keepsake", "checkout", experiment["id"][:7], "-o", "out", cwd=tmp_path)
    assert list((tmp_path / "out").glob("checkpoint-*/model.safetensors"))
    # The Trainer's own directories are outputs and no code.
    assert len(list((tmp_path / "out").rglob("checkpoint-*"))) == 1


def test_the_example_of_the_logger_goes_on_where_it_stopped(tmp_path: Path) -> None:
    for name in ("train_lightning.py", "train_lightning_logger.py"):
        (tmp_path / name).write_text((EXAMPLES / name).read_text(encoding="utf-8"), encoding="utf-8")
    run("-m", "keepsake", "init", "--yes", cwd=tmp_path)
    run("train_lightning_logger.py", "--max-epochs", "2", cwd=tmp_path)
    [experiment] = json.loads(run("-m", "keepsake", "ls", "--json", cwd=tmp_path))
    run("train_lightning_logger.py", "--max-epochs", "4", "--resume", experiment["id"][:7], cwd=tmp_path)
    [experiment] = json.loads(run("-m", "keepsake", "ls", "--json", cwd=tmp_path))
    assert (experiment["status_reason"], experiment["num_checkpoints"]) == ("finished", 4)
    assert [experiment[which]["step"] for which in ("best_checkpoint", "latest_checkpoint")] == [88, 88]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("train_*.py")), ids=lambda path: path.name)
def test_an_example_fits_on_a_screen_or_two(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 80


def test_the_demo_does_the_whole_job(tmp_path: Path) -> None:
    printed = run(str(EXAMPLES / "demo.py"), cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []
    for command in ("ls", "show", "diff", "checkout"):
        assert f"$ keepsake {command}" in printed
    table = printed.partition("$ keepsake ls")[2].splitlines()[1:4]
    assert table[0].split()[:5] == ["EXPERIMENT", "STARTED", "STATUS", "LEARNING_RATE", "VAL_LOSS"]
    assert {line.split()[3] for line in table[1:]} == {"0.01", "0.0003"}
    assert "The checked-out weights are the ones that were recorded." in printed
