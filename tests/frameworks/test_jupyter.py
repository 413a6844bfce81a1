"""A notebook's kernel: no ``__main__`` file, cells that are run again, restarts and kills."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from jupyter_client.manager import KernelManager, start_new_kernel

from keepsake import Project

TIMEOUT_S = 60

INIT = """
import keepsake, random
experiment = keepsake.init(params={"lr": 0.1})
"""

TRAIN = """
for step in range(3):
    open("weights", "wb").write(random.Random(step).randbytes(50_000))
    experiment.checkpoint("weights", metrics={"loss": step})
"""


class Notebook:
    """A real kernel and what it says."""

    def __init__(self) -> None:
        manager, client = start_new_kernel(startup_timeout=TIMEOUT_S)
        self.manager: KernelManager = manager
        self.client: Any = client

    def run(self, code: str) -> str:
        """Run a cell and return what it printed; a cell that fails is a failure of the test."""
        said: list[str] = []

        def hear(message: dict[str, Any]) -> None:
            said.append(message["content"].get("text", ""))

        reply = self.client.execute_interactive(code, timeout=TIMEOUT_S, output_hook=hear)
        assert reply["content"]["status"] == "ok", reply["content"]
        return "".join(said)


@pytest.fixture
def notebook(project: Project) -> Iterator[Notebook]:
    one = Notebook()
    yield one
    one.client.stop_channels()
    if one.manager.is_alive():
        one.manager.shutdown_kernel(now=True)


def test_a_kernel_that_is_shut_down_has_finished(project: Project, notebook: Notebook) -> None:
    assert "started" in notebook.run(INIT)
    notebook.run(TRAIN)
    notebook.manager.shutdown_kernel()
    [experiment] = project.experiments.list()
    assert experiment.outcome == "finished"
    assert [checkpoint.metrics["loss"] for checkpoint in experiment.checkpoints] == [0, 1, 2]
    assert "ipykernel" not in experiment.command


def test_a_cell_that_is_run_again_starts_another_experiment(project: Project, notebook: Notebook) -> None:
    for _ in range(2):
        notebook.run(INIT)
        notebook.run(TRAIN)
    first, second = project.experiments.list()
    assert len(first.checkpoints) == len(second.checkpoints) == 3
    notebook.run("experiment.stop()")
    assert project.experiments.get(second.id).outcome == "finished"


def test_a_cell_that_fails_is_not_the_end(project: Project, notebook: Notebook) -> None:
    notebook.run(INIT)
    reply = notebook.client.execute_interactive("1 / 0", stop_on_error=False, timeout=TIMEOUT_S, output_hook=lambda message: None)
    assert reply["content"]["status"] == "error"
    notebook.run(TRAIN)
    notebook.manager.shutdown_kernel()
    [experiment] = project.experiments.list()
    assert experiment.outcome == "finished"
    assert len(experiment.checkpoints) == 3


@pytest.mark.parametrize("end", ["restart", "kill"])
def test_what_a_kernel_accepted_outlives_it(project: Project, notebook: Notebook, end: str) -> None:
    notebook.run(INIT)
    notebook.run(TRAIN)
    if end == "restart":
        notebook.manager.restart_kernel(now=True)
        notebook.client.wait_for_ready(timeout=TIMEOUT_S)
        # The next cell finds the experiment of the kernel before.
        notebook.run("import keepsake; assert len(keepsake.experiments.list()[0].checkpoints) == 3")
    else:
        notebook.manager.shutdown_kernel(now=True)
    listed = subprocess.run([sys.executable, "-m", "keepsake", "ls", "-q"], capture_output=True, text=True, check=True)
    [experiment] = project.experiments.list()
    assert listed.stdout == f"{experiment.id}\n"
    assert [checkpoint.metrics["loss"] for checkpoint in experiment.checkpoints] == [0, 1, 2]
    assert all(len(checkpoint.open("weights").read()) == 50_000 for checkpoint in experiment.checkpoints)


def test_an_interrupted_cell_leaves_the_experiment_running(project: Project, notebook: Notebook) -> None:
    notebook.run(INIT)
    endless = "print('training')\nwhile True:\n    experiment.checkpoint(metrics={'loss': 1}); experiment.flush()"
    # Else the kernel refuses for a moment what comes after an error.
    notebook.client.execute(endless, stop_on_error=False)
    while notebook.client.get_iopub_msg(timeout=TIMEOUT_S)["content"].get("text") != "training\n":
        pass
    notebook.manager.interrupt_kernel()
    reply = notebook.client.get_shell_msg(timeout=TIMEOUT_S)
    assert reply["content"]["status"] == "error"
    before = len(project.experiments.list()[0].checkpoints)
    notebook.run(TRAIN)
    [experiment] = project.experiments.list()
    assert experiment.outcome is None
    assert len(experiment.checkpoints) >= before + 3
