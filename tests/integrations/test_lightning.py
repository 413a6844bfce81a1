"""The Lightning callback under the real Trainers of both namespaces."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import keepsake
from keepsake import Experiment, Project
from keepsake.integrations.lightning import KeepsakeCallback
from tests.conftest import ROOT, Script
from tests.integrations.lightning_models import loader, make_module

QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
}


@pytest.fixture(params=["lightning.pytorch", "pytorch_lightning"])
def pl(request: pytest.FixtureRequest) -> ModuleType:
    """Either namespace; their classes are unrelated."""
    return import_module(request.param)


def fit(pl: ModuleType, callbacks: Any = None, module: Any = None, **options: Any) -> Any:
    """Train for two epochs with a callback, and return the Trainer and the module."""
    callbacks = [KeepsakeCallback()] if callbacks is None else callbacks
    module = module or make_module(pl)
    trainer = pl.Trainer(**{**QUIET, "max_epochs": 2, "callbacks": callbacks, **options})
    trainer.fit(module, loader(), loader())
    return trainer, module


def only(project: Project) -> Experiment:
    [experiment] = project.experiments.list()
    return experiment


# --- what is recorded -----------------------------------------------------------------------------------------------


def test_each_checkpoint_has_all_metrics_of_its_own_epoch(project: Project, pl: ModuleType) -> None:
    _, module = fit(pl, [KeepsakeCallback(primary_metric=("val_loss", "minimize"))], max_epochs=3)
    experiment = only(project)
    assert experiment.status.reason == "finished"
    assert experiment.checkpoints.step == [4, 8, 12]
    for checkpoint, truth in zip(experiment.checkpoints, module.truth, strict=True):
        assert checkpoint.path == "model.ckpt"
        for name, value in truth.items():
            assert checkpoint.metrics[name] == pytest.approx(value, abs=1e-6), name
        assert all(type(value) in (int, float) for value in checkpoint.metrics.values())
    best = experiment.best()
    assert best is not None
    assert best.metrics["val_loss"] == min(experiment.checkpoints.metrics["val_loss"])


def test_metrics_of_an_earlier_epoch_are_left_out(project: Project, pl: ModuleType) -> None:
    fit(pl, max_epochs=4, check_val_every_n_epoch=2)
    losses = only(project).checkpoints.metrics
    assert [value is None for value in losses["val_loss"]] == [True, False, True, False]
    assert None not in losses["train_loss"]
    assert losses["late"] == [100, 101, 102, 103]


def test_a_module_without_validation_is_recorded_too(project: Project, pl: ModuleType) -> None:
    module = make_module(pl, validates=False)
    trainer = pl.Trainer(**QUIET, max_epochs=2, callbacks=[KeepsakeCallback()])
    trainer.fit(module, loader())
    assert only(project).checkpoints.metrics["train_loss"] == pytest.approx([t["train_loss"] for t in module.truth])


def test_the_recorded_weights_give_the_recorded_metric(project: Project, pl: ModuleType, tmp_path: Path) -> None:
    _, module = fit(pl, [KeepsakeCallback(primary_metric=("val_loss", "minimize"))], max_epochs=3)
    best = only(project).best()
    assert best is not None
    best.checkout(tmp_path / "out", quiet=True)
    saved = torch.load(tmp_path / "out" / "model.ckpt", weights_only=True)
    module.load_state_dict(saved["state_dict"])
    with torch.no_grad():
        losses = [torch.nn.functional.mse_loss(module.layer(x), y).item() for x, y in loader()]
    assert sum(losses) / len(losses) == pytest.approx(best.metrics["val_loss"], abs=1e-6)


def test_params_come_from_the_callback_the_module_and_the_trainer(project: Project, pl: ModuleType) -> None:
    fit(pl, [KeepsakeCallback(params={"lr": 0.5, "note": "mine"})], gradient_clip_val=0.5)
    params = only(project).params
    assert params["lr"] == 0.5  # what the user says outweighs what the module has
    assert (params["units"], params["note"]) == (1, "mine")
    assert params["trainer"]["max_epochs"] == 2
    assert params["trainer"]["gradient_clip_val"] == 0.5


def test_steps_are_optimizer_steps(project: Project, pl: ModuleType) -> None:
    fit(pl, accumulate_grad_batches=2)
    assert only(project).checkpoints.step == [2, 4]
    assert only(project).checkpoints.metrics["epoch"] == [0, 1]


@pytest.mark.parametrize(
    ("options", "steps"),
    [({"period": 2}, [8, 16]), ({"every_n_train_steps": 3}, [3, 4, 6, 8, 9, 12, 15, 16]), ({"filepath": None}, [4, 8, 12, 16])],
)
def test_how_often_is_chosen(project: Project, pl: ModuleType, options: dict[str, Any], steps: list[int]) -> None:
    fit(pl, [KeepsakeCallback(**options)], max_epochs=4)
    assert only(project).checkpoints.step == steps
    assert {c.path for c in only(project).checkpoints} == {options.get("filepath", "model.ckpt")}


@pytest.mark.parametrize(
    ("filepath", "saved_as"), [("out/model.ckpt", "out/model.ckpt"), ("/nowhere/m.ckpt", "m.ckpt"), ("../m.ckpt", "m.ckpt")]
)
def test_the_file_is_recorded_under_its_name_and_written_nowhere_else(project: Project, filepath: str, saved_as: str) -> None:
    fit(import_module("lightning.pytorch"), [KeepsakeCallback(filepath)], max_epochs=1)
    [checkpoint] = only(project).checkpoints
    assert checkpoint.path == saved_as
    assert checkpoint.open(saved_as).read(2) == b"PK"
    assert sorted(path.name for path in project.directory.iterdir()) == [".keepsake", "keepsake.yaml"]
    assert not (project.directory / ".keepsake" / "staging").exists()


def test_weights_only_leaves_the_optimizer_out(project: Project, pl: ModuleType) -> None:
    fit(pl, [KeepsakeCallback(save_weights_only=True)], max_epochs=1)
    saved = torch.load(only(project).checkpoints[0].open("model.ckpt"), weights_only=True)
    assert "state_dict" in saved
    assert "optimizer_states" not in saved


def test_the_code_is_saved_without_lightnings_own_output(project: Project, pl: ModuleType) -> None:
    Path("train.py").write_text("pass\n", encoding="utf-8")
    for _ in range(2):
        fit(pl, max_epochs=1, logger=True, enable_checkpointing=True)
    experiment = project.experiments.list()[-1]
    names = [file.path for file in experiment.repository.list_archive(f"experiments/{experiment.id}.tar.gz")]
    assert Path("lightning_logs").exists()
    assert [name for name in names if not name.startswith("keepsake.yaml")] == ["train.py"]


def test_nan_is_recorded_and_never_best(project: Project, pl: ModuleType) -> None:
    class Odd(pl.Callback):  # type: ignore[name-defined]
        def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            pl_module.log("score", float("nan") if trainer.current_epoch == 1 else 1.0 + trainer.current_epoch)

    fit(pl, [Odd(), KeepsakeCallback(primary_metric=("score", "maximize"))], max_epochs=3)
    best = only(project).best()
    assert best is not None
    assert best.metrics["score"] == 3.0


# --- which trainings are experiments --------------------------------------------------------------------------------


def test_nothing_is_recorded_where_nothing_is_trained(project: Project, pl: ModuleType) -> None:
    callback = KeepsakeCallback()
    trainer = pl.Trainer(**QUIET, max_epochs=0, callbacks=[callback])
    module = make_module(pl)
    trainer.validate(module, loader(), verbose=False)
    trainer.fit(module, loader(), loader())
    fit(pl, fast_dev_run=True)
    assert project.experiments.list() == []
    assert callback.experiment is None


def test_a_failing_sanity_check_leaves_nothing(project: Project, pl: ModuleType) -> None:
    class Bad(pl.Callback):  # type: ignore[name-defined]
        def on_validation_batch_end(self, trainer: Any, *args: Any) -> None:
            if trainer.sanity_checking:
                raise RuntimeError("bad data")

    with pytest.raises(RuntimeError, match="bad data"):
        fit(pl, [Bad(), KeepsakeCallback()])
    assert project.experiments.list() == []


def test_the_learning_rate_finder_makes_no_experiment(project: Project, pl: ModuleType) -> None:
    callback = KeepsakeCallback()
    module = make_module(pl)
    trainer = pl.Trainer(**QUIET, max_epochs=2, callbacks=[callback])
    tuner = import_module(f"{pl.__name__}.tuner").Tuner(trainer)
    tuner.lr_find(module, loader(), loader(), num_training=5, update_attr=False)
    recorded = project.experiments.list()
    trainer.fit(module, loader(), loader())
    assert recorded == []
    assert only(project).checkpoints.step == [4, 8]


def test_a_second_fit_with_the_same_trainer_goes_on_with_the_same_experiment(project: Project, pl: ModuleType) -> None:
    callback = KeepsakeCallback()
    trainer, module = fit(pl, [callback])
    assert only(project).outcome == "finished"
    trainer.fit_loop.max_epochs = 4
    trainer.fit(module, loader(), loader())
    experiment = only(project)
    assert experiment.checkpoints.step == [4, 8, 12, 16]
    assert experiment.outcome == "finished"
    assert len(experiment.record.resumed) == 1
    assert len(trainer.callbacks) == len({id(one) for one in trainer.callbacks}) == 2


def test_a_new_trainer_with_the_same_callback_is_a_new_experiment(project: Project, pl: ModuleType) -> None:
    callback = KeepsakeCallback()
    fit(pl, [callback], max_epochs=1)
    fit(pl, [callback], max_epochs=1)
    first, second = project.experiments.list()
    assert first.checkpoints.step == second.checkpoints.step == [4]


def test_an_experiment_of_the_user_is_used_and_not_ended(project: Project, pl: ModuleType) -> None:
    with keepsake.init(params={"mine": 1}, quiet=True) as experiment:
        fit(pl, [KeepsakeCallback(experiment=experiment)])
        assert experiment.is_running()
        experiment.checkpoint(metrics={"test": 1})
    assert only(project).params == {"mine": 1}
    assert len(only(project).checkpoints) == 3


# --- how it ends ----------------------------------------------------------------------------------------------------


def test_an_exception_is_recorded_and_reaches_the_user(project: Project, pl: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="CUDA out of memory"):
        fit(pl, module=make_module(pl, fail_at=6, error=RuntimeError("CUDA out of memory")))
    experiment = only(project)
    assert (experiment.status.word, experiment.error) == ("failed", "RuntimeError: CUDA out of memory")
    assert experiment.checkpoints.step == [4]
    assert not experiment.is_running()


TRAIN = """
import sys
from importlib import import_module
pl = import_module(sys.argv[1] if len(sys.argv) > 1 else "lightning.pytorch")
from keepsake.integrations.lightning import KeepsakeCallback
from tests.integrations.lightning_models import loader, make_module

class Tell(pl.Callback):
    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == 6:
            print("ready", flush=True)
            sys.stdin.readline()

options = dict(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)
trainer = pl.Trainer(max_epochs=3, callbacks=[KeepsakeCallback(quiet=True), Tell()], **options)
trainer.fit(make_module(pl), loader(), loader())
"""


@pytest.mark.parametrize(
    ("signum", "outcome"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "interrupted"), (signal.SIGKILL, None)]
)
def test_a_signal_ends_it_truthfully(
    project: Project, script: Callable[..., Script], signum: signal.Signals, outcome: str | None
) -> None:
    run = script(TRAIN)
    assert run.line() == "ready"
    run.process.send_signal(signum)
    run.wait()  # with a code of Lightning's choice
    experiment = only(project)
    assert experiment.outcome == outcome
    assert experiment.checkpoints.step == [4]
    assert experiment.status.word == ("running" if outcome is None else "stopped")  # the heartbeat is still young


# --- it never harms the training ------------------------------------------------------------------------------------


def test_a_repository_that_breaks_does_not_stop_the_training(
    project: Project, pl: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    class Break(pl.Callback):  # type: ignore[name-defined]
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 1:
                (project.directory / ".keepsake").rename("aside")
                (project.directory / ".keepsake").write_text("in the way")

    trainer, _ = fit(pl, [Break(), KeepsakeCallback()], max_epochs=3)
    assert trainer.current_epoch == 3
    assert capsys.readouterr().err.count("keepsake: error: checkpoint()") == 1


def test_no_repository_is_said_before_the_training(tmp_path: Path, pl: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(keepsake.exceptions.ConfigNotFound, match="no repository"):
        fit(pl)


@pytest.mark.parametrize(
    "options",
    [{"primary_metric": ("val_loss", "smallest")}, {"primary_metric": "loss"}, {"period": 0}, {"every_n_train_steps": 0}],
)
def test_useless_arguments_are_refused_by_the_constructor(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be|count from 1"):
        KeepsakeCallback(**options)


def test_the_users_own_checkpointing_is_left_alone(project: Project, pl: ModuleType, tmp_path: Path) -> None:
    checkpoint = import_module(f"{pl.__name__}.callbacks").ModelCheckpoint(dirpath=tmp_path / "own", monitor="val_loss")
    trainer, module = fit(pl, [KeepsakeCallback(), checkpoint], enable_checkpointing=True)
    assert trainer.checkpoint_callback is checkpoint
    assert len(list((tmp_path / "own").iterdir())) == 1
    trainer.validate(module, loader(), ckpt_path="best", verbose=False)
    assert len(only(project).checkpoints) == 2


def test_the_default_model_checkpoint_is_kept(project: Project, pl: ModuleType) -> None:
    trainer, _ = fit(pl, enable_checkpointing=True, max_epochs=1)
    assert type(trainer.checkpoint_callback).__name__ == "ModelCheckpoint"


def test_callbacks_and_trainers_are_copied_and_pickled_without_the_live_part(project: Project, pl: ModuleType) -> None:
    callback = KeepsakeCallback(primary_metric=("val_loss", "minimize"))
    trainer, _ = fit(pl, [callback], max_epochs=1)
    for copied in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        assert copied.experiment is None
        assert copied.filepath == "model.ckpt"
    for copied in (pickle.loads(pickle.dumps(trainer.callbacks)), copy.deepcopy(trainer.callbacks)):
        assert [type(one) for one in copied] == [type(one) for one in trainer.callbacks]
        assert copied[1].callback is copied[0]
    assert callback.experiment is not None


def test_two_callbacks_record_two_experiments(project: Project, pl: ModuleType) -> None:
    fit(pl, [KeepsakeCallback("a.ckpt"), KeepsakeCallback("b.ckpt", period=2)])
    assert sorted(len(e.checkpoints) for e in project.experiments.list()) == [1, 2]


def test_a_metric_that_is_no_number_does_no_harm(project: Project, pl: ModuleType) -> None:
    class Odd(pl.Callback):  # type: ignore[name-defined]
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            trainer.callback_metrics["odd/name"] = torch.tensor(2.0)

    fit(pl, [Odd(), KeepsakeCallback()], max_epochs=1)
    assert only(project).checkpoints[0].metrics["train_loss"] > 0


# --- several processes ----------------------------------------------------------------------------------------------

DISTRIBUTED = """
import sys
from importlib import import_module
pl = import_module("lightning.pytorch")
from keepsake.integrations.lightning import KeepsakeCallback
from tests.integrations.lightning_models import loader, make_module

if __name__ == "__main__":
    options = dict(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)
    trainer = pl.Trainer(
        max_epochs=2, callbacks=[KeepsakeCallback(quiet=True)], strategy="ddp", devices=2, use_distributed_sampler=False, **options
    )
    trainer.fit(make_module(pl), loader(), loader())
"""


def test_a_distributed_training_is_one_experiment_of_rank_zero(project: Project) -> None:
    (project.directory / "train.py").write_text(textwrap.dedent(DISTRIBUTED), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "train.py"],
        cwd=project.directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    experiment = only(project)
    assert experiment.outcome == "finished"
    assert experiment.checkpoints.step == [4, 8]
    assert experiment.params["trainer"]["devices"] == 2
    assert experiment.checkpoints[1].open("model.ckpt").read(2) == b"PK"


# --- installed or not -----------------------------------------------------------------------------------------------


def test_the_old_import_path_gives_the_same_class() -> None:
    from keepsake.pl_callback import KeepsakeCallback as Old

    assert Old is KeepsakeCallback


@pytest.mark.parametrize("present", ["lightning", "pytorch_lightning"])
def test_one_namespace_is_enough(project: Project, present: str) -> None:
    absent = {"lightning": "pytorch_lightning", "pytorch_lightning": "lightning"}[present]
    name = "lightning.pytorch" if present == "lightning" else "pytorch_lightning"
    code = f"""
    import sys
    sys.modules[{absent!r}] = None  # import raises ModuleNotFoundError, as if it were not installed
    import {name} as pl
    from keepsake.integrations.lightning import KeepsakeCallback
    assert issubclass(KeepsakeCallback, pl.Callback)
    from tests.integrations.lightning_models import loader, make_module
    trainer = pl.Trainer(max_epochs=1, callbacks=[KeepsakeCallback()], accelerator="cpu", logger=False,
                         enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)
    trainer.fit(make_module(pl), loader(), loader())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=project.directory, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert only(project).checkpoints.step == [4]


def test_without_lightning_the_install_line_is_named() -> None:
    code = """
    import sys
    sys.modules["lightning"] = sys.modules["pytorch_lightning"] = None
    import keepsake.integrations.lightning
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert 'pip install "keepsake[lightning]"' in done.stderr
    assert "MissingDependency" in done.stderr
