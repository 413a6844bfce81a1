"""A notebook's kernel: no ``__main__`` file, cells that are run again, restarts and kills."""

from __future__ import annotations

import re
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
        return "".join(content.get("text", "") for content in self._messages(code))

    def shown(self, code: str) -> dict[str, str]:
        """Run a cell and return what its last line is shown as, by type."""
        [bundle] = [content["data"] for content in self._messages(code) if "data" in content]
        return bundle

    def _messages(self, code: str) -> list[dict[str, Any]]:
        heard: list[dict[str, Any]] = []
        reply = self.client.execute_interactive(
            code, timeout=TIMEOUT_S, output_hook=lambda message: heard.append(message["content"])
        )
        assert reply["content"]["status"] == "ok", reply["content"]
        return heard


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


def test_a_cell_that_is_run_again_ends_the_experiment_of_the_time_before(project: Project, notebook: Notebook) -> None:
    notebook.run(INIT)
    notebook.run(TRAIN)
    said = notebook.run(INIT)
    first, second = project.experiments.list()
    assert f"experiment {first.short_id()} ends here, because this notebook goes on with {second.short_id()}" in said
    assert f"{first.short_id()} finished after" in said
    assert (first.outcome, first.error, second.outcome) == ("finished", None, None)
    notebook.run(TRAIN)
    assert "finished" in notebook.run("experiment.stop()")
    first, second = project.experiments.list()
    assert len(first.checkpoints) == len(second.checkpoints) == 3
    assert second.outcome == "finished"
    assert "ends here" not in notebook.run(INIT)


def test_what_one_cell_begins_goes_on_side_by_side(project: Project, notebook: Notebook) -> None:
    said = notebook.run("import keepsake\nboth = [keepsake.init(params={'number': number}) for number in range(2)]")
    assert "ends here" not in said
    notebook.run("for one in both: one.log({'loss': 1})")
    assert [experiment.outcome for experiment in project.experiments.list()] == [None, None]
    assert notebook.run(INIT).count("ends here") == 2
    assert [experiment.outcome for experiment in project.experiments.list()] == ["finished", "finished", None]


def test_going_on_with_an_experiment_does_not_end_it(project: Project, notebook: Notebook) -> None:
    notebook.run(INIT)
    assert "ends here" not in notebook.run("again = keepsake.init(resume=experiment.id)")
    notebook.run(TRAIN)
    [experiment] = project.experiments.list()
    assert (experiment.outcome, len(experiment.checkpoints)) == (None, 3)


@pytest.mark.parametrize(
    ("code", "outcome", "error"),
    [
        pytest.param("experiment.log({'loss': 1}); 1 / 0", "failed", "ZeroDivisionError: division by zero", id="failed"),
        pytest.param(
            "experiment.log({'loss': 1}); raise KeyboardInterrupt", "interrupted", "KeyboardInterrupt", id="interrupted"
        ),
        pytest.param("print(experimnet.id)", "finished", None, id="another cell"),
    ],
)
@pytest.mark.parametrize("end", ["run again", "shut down"])
def test_a_training_that_failed_has_not_finished(
    project: Project, notebook: Notebook, code: str, outcome: str, error: str | None, end: str
) -> None:
    notebook.run(INIT)
    notebook.run("experiment.log({'loss': 2})")
    notebook.client.execute_interactive(code, stop_on_error=False, timeout=TIMEOUT_S, output_hook=lambda message: None)
    notebook.run("print('looking around')")
    if end == "run again":
        notebook.run(INIT)
    else:
        notebook.manager.shutdown_kernel()
    experiment = project.experiments.list()[0]
    assert (experiment.outcome, experiment.error) == (outcome, error)


def test_a_training_that_goes_on_after_it_failed_has_finished(project: Project, notebook: Notebook) -> None:
    notebook.run(INIT)
    code = "experiment.log({'loss': 2}); 1 / 0"
    notebook.client.execute_interactive(code, stop_on_error=False, timeout=TIMEOUT_S, output_hook=lambda message: None)
    notebook.run(TRAIN)
    notebook.run(INIT)
    assert project.experiments.list()[0].outcome == "finished"


def test_a_cell_that_fails_is_not_the_end(project: Project, notebook: Notebook) -> None:
    notebook.run(INIT)
    reply = notebook.client.execute_interactive("1 / 0", stop_on_error=False, timeout=TIMEOUT_S, output_hook=lambda message: None)
    assert reply["content"]["status"] == "error"
    notebook.run(TRAIN)
    notebook.manager.shutdown_kernel()
    [experiment] = project.experiments.list()
    assert experiment.outcome == "finished"
    assert len(experiment.checkpoints) == 3


def test_a_kernel_that_is_restarted_ends_the_experiment(project: Project, notebook: Notebook) -> None:
    notebook.run(INIT)
    notebook.run(TRAIN)
    notebook.manager.restart_kernel()
    [experiment] = project.experiments.list()
    assert (experiment.outcome, len(experiment.checkpoints)) == ("finished", 3)


def test_what_is_recorded_after_the_end_is_added(project: Project, notebook: Notebook) -> None:
    notebook.run(INIT)
    notebook.run("experiment.stop()")
    notebook.run(TRAIN)
    [experiment] = project.experiments.list()
    assert (experiment.outcome, len(experiment.checkpoints)) == ("finished", 3)


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


HOSTILE = "<script>alert(1)</script>|\x1b[31m$x$`"


@pytest.mark.parametrize(
    "shown",
    [
        "keepsake.experiments.list()",
        "keepsake.experiments.list()[0]",
        "keepsake.experiments.list()[0].checkpoints",
        "keepsake.experiments.list()[0].best()",
        "keepsake.experiments.list()[0].history()",
    ],
)
def test_what_a_cell_ends_with_is_shown_as_a_table(project: Project, notebook: Notebook, shown: str) -> None:
    with project.experiments.create(params={"lr": 0.1, HOSTILE: HOSTILE}, notes=HOSTILE, quiet=True) as experiment:
        for step in range(3):
            experiment.checkpoint(step=step, metrics={"loss": 3.0 - step, HOSTILE: HOSTILE}, primary_metric=("loss", "minimize"))
    bundle = notebook.shown(f"import keepsake\n{shown}")
    assert set(bundle) == {"text/plain", "text/markdown", "text/html"}
    assert "<table" in bundle["text/html"]
    for form in bundle.values():
        assert "1" in form
        assert "\x1b" not in form
    assert "<script" not in bundle["text/html"]
    # Where Markdown is read as HTML, it stands in code.
    assert "<script" not in re.sub(r"<code>.*?</code>", "", bundle["text/markdown"])
