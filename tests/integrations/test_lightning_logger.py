"""The Lightning logger under the real Trainers of both namespaces; L and a number name a pitfall of the framework."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import textwrap
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from keepsake import Experiment, Project
from keepsake.integrations.lightning import KeepsakeCallback, KeepsakeLogger
from tests.conftest import Script
from tests.integrations.lightning_models import loader, loss_of, make_module

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "log_every_n_steps": 1,
}


@pytest.fixture(params=["lightning.pytorch", "pytorch_lightning"])
def pl(request: pytest.FixtureRequest) -> ModuleType:
    """Either namespace; their classes are unrelated."""
    return import_module(request.param)


@pytest.fixture
def lightning() -> ModuleType:
    return import_module("lightning.pytorch")


def saver(pl: ModuleType, **options: Any) -> Any:
    return pl.callbacks.ModelCheckpoint(**{"monitor": "val_loss", "mode": "min", **options})


def fit(pl: ModuleType, logger: Any, callbacks: Any = (), module: Any = None, **options: Any) -> Any:
    ckpt_path = options.pop("ckpt_path", None)
    trainer = pl.Trainer(**{**QUIET, "max_epochs": 2, "logger": logger, "callbacks": list(callbacks), **options})
    trainer.fit(module or make_module(pl), loader(), loader(), ckpt_path=ckpt_path)
    return trainer


def only(project: Project) -> Experiment:
    [experiment] = project.experiments.list()
    return experiment


def metric_of(experiment: Experiment) -> tuple[str, str]:
    metric = experiment.record.primary_metric
    assert metric is not None
    return metric.name, metric.goal


# --- metrics --------------------------------------------------------------------------------------------------------


def test_all_that_is_logged_becomes_the_history(project: Project, pl: ModuleType) -> None:
    module = make_module(pl)
    fit(pl, KeepsakeLogger(quiet=True), module=module, max_epochs=3)
    experiment = only(project)
    history = experiment.history()
    assert history.series("val_loss") == ([4, 8, 12], pytest.approx([truth["val_loss"] for truth in module.truth]))
    assert history.series("train_loss") == ([4, 8, 12], pytest.approx([truth["train_loss"] for truth in module.truth]))
    assert history.series("late")[1] == [100, 101, 102]
    assert experiment.params["lr"] == 0.05
    assert experiment.params["trainer"]["max_epochs"] == 3
    assert experiment.checkpoints == []
    assert experiment.outcome == "finished"


def test_l21_the_step_is_the_trainers_count_of_optimizer_steps(project: Project, lightning: ModuleType) -> None:
    class Module(type(make_module(lightning))):  # type: ignore[misc]
        def on_train_batch_end(self, *_: Any) -> None:
            self.log("batch", float(self.trainer.global_step))

    for options in ({}, {"accumulate_grad_batches": 2}):
        fit(lightning, KeepsakeLogger(quiet=True), module=Module(), max_epochs=1, **options)
        experiment = project.experiments.list()[-1]
        steps, values = experiment.history().series("batch")
        assert steps == [int(value) for value in values]


def test_l23_a_step_of_the_users_own_and_names_with_slashes(project: Project, lightning: ModuleType) -> None:
    class Module(type(make_module(lightning))):  # type: ignore[misc]
        def on_validation_epoch_end(self) -> None:
            self.log_dict({"step": 100.0 + self.current_epoch, "val/acc": 0.5})

    fit(lightning, KeepsakeLogger(quiet=True), module=Module())
    assert only(project).history().series("val/acc") == ([100, 101], [0.5, 0.5])


def test_a_prefix_is_put_before_each_name(project: Project, lightning: ModuleType) -> None:
    fit(lightning, KeepsakeLogger(prefix="a", log_model="all", quiet=True), [saver(lightning)], max_epochs=1)
    assert "a-val_loss" in only(project).history()
    assert "a-val_loss" in only(project).checkpoints[0].metrics


def test_l24_hyperparameters_are_those_that_the_constructors_were_given(project: Project, lightning: ModuleType) -> None:
    module = make_module(lightning)
    module.hparams.lr = 7.0
    fit(lightning, KeepsakeLogger({"note": "mine"}, quiet=True), module=module, max_epochs=1)
    assert (only(project).params["lr"], only(project).params["note"]) == (0.05, "mine")
    fit(lightning, KeepsakeLogger(quiet=True), enable_autolog_hparams=False, max_epochs=1)
    assert len(project.experiments.list()) == 2


# --- files ----------------------------------------------------------------------------------------------------------


def test_each_file_of_a_modelcheckpoint_is_recorded_with_the_metrics_of_its_epoch(project: Project, pl: ModuleType) -> None:
    module = make_module(pl)
    fit(pl, KeepsakeLogger(log_model="all", quiet=True), [saver(pl, save_top_k=1)], module=module, max_epochs=3)
    experiment = only(project)
    assert experiment.checkpoints.step == [4, 8, 12]
    for checkpoint, truth in zip(experiment.checkpoints, module.truth, strict=True):
        for name, value in truth.items():
            assert checkpoint.metrics[name] == pytest.approx(value, abs=1e-6), name
        # Rotated away meanwhile, and recorded all the same.
        assert checkpoint.path is not None
        saved = torch.load(checkpoint.open(checkpoint.path), weights_only=True)
        assert loss_of(saved["state_dict"]) == pytest.approx(checkpoint.metrics["val_loss"], abs=1e-5)
    assert experiment.primary_metric() == "val_loss"
    assert len(list(project.directory.rglob("*.ckpt"))) == 1


def test_only_the_best_and_the_last_at_the_end(project: Project, lightning: ModuleType) -> None:
    options = {"save_top_k": -1, "save_last": True}
    fit(lightning, KeepsakeLogger(log_model=True, quiet=True), [saver(lightning, mode="max", **options)], max_epochs=3)
    experiment = only(project)
    # The loss falls, so the first is the best of a maximum.
    assert experiment.checkpoints.step == [4, 12]
    assert metric_of(experiment) == ("val_loss", "maximize")
    assert all(checkpoint.metrics["val_loss"] > 0 for checkpoint in experiment.checkpoints)


def test_l2_metrics_of_an_earlier_epoch_are_left_out(project: Project, lightning: ModuleType) -> None:
    options = {"monitor": None, "save_top_k": -1, "save_on_train_epoch_end": True}
    fit(
        lightning,
        KeepsakeLogger(log_model="all", quiet=True),
        [saver(lightning, **options)],
        max_epochs=4,
        check_val_every_n_epoch=2,
    )
    losses = only(project).checkpoints.metrics["val_loss"]
    assert [value is None for value in losses] == [True, False, True, False]


@pytest.mark.parametrize("save_last", [True, "link"])
def test_l18_a_file_under_two_names_is_one_checkpoint(project: Project, lightning: ModuleType, save_last: Any) -> None:
    fit(lightning, KeepsakeLogger(log_model="all", quiet=True), [saver(lightning, save_last=save_last)])
    assert only(project).checkpoints.step == [4, 8]


def test_l19_what_is_saved_at_an_exception_is_recorded(project: Project, lightning: ModuleType) -> None:
    module = make_module(lightning, fail_at=6, error=RuntimeError("diverged"))
    callbacks = [saver(lightning, save_on_exception=True)]
    with pytest.raises(RuntimeError, match="diverged"):
        fit(lightning, KeepsakeLogger(log_model="all", quiet=True), callbacks, module=module)
    experiment = only(project)
    assert experiment.checkpoints.step == [4, 6]
    assert (experiment.outcome, experiment.error) == ("failed", "RuntimeError: diverged")


def test_l20_files_that_another_thread_writes_are_recorded_when_they_are_there(project: Project, lightning: ModuleType) -> None:
    plugin = lightning.plugins.io.AsyncCheckpointIO()
    fit(lightning, KeepsakeLogger(log_model="all", quiet=True), [saver(lightning, save_top_k=-1)], plugins=[plugin])
    assert only(project).checkpoints.step == [4, 8]
    assert all(checkpoint.path is not None for checkpoint in only(project).checkpoints)


# --- when there is an experiment --------------------------------------------------------------------------------------


def test_l3_l4_nothing_is_recorded_of_what_is_no_training(project: Project, lightning: ModuleType) -> None:
    logger = KeepsakeLogger(quiet=True)
    assert (logger.name, len(logger.version), logger.experiment) == ("keepsake", 7, None)
    module = make_module(lightning)
    lightning.Trainer(**QUIET, logger=logger, fast_dev_run=True).fit(module, loader(), loader())
    trainer = lightning.Trainer(**QUIET, logger=logger, max_epochs=1, default_root_dir=project.directory)
    lightning.tuner.Tuner(trainer).lr_find(module, loader(), loader(), num_training=5, attr_name="lr")
    trainer.validate(module, loader(), verbose=False)
    assert project.experiments.list() == []

    class Sanity(type(module)):  # type: ignore[misc]
        def validation_step(self, *_: Any) -> None:
            raise RuntimeError("in the sanity check")

    with pytest.raises(RuntimeError, match="sanity"):
        fit(lightning, KeepsakeLogger(quiet=True), module=Sanity())
    assert project.experiments.list() == []


def test_l16_directories_are_the_same_on_all_ranks_and_make_nothing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = KeepsakeLogger(save_dir="logs")
    assert logger.log_dir == str(Path("logs", "keepsake", logger.version))
    assert (logger.root_dir, logger.save_dir) == (str(Path("logs", "keepsake")), "logs")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert KeepsakeLogger().version == logger.version
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert KeepsakeLogger().version != logger.version
    assert sorted(path.name for path in project.directory.iterdir()) == ["keepsake.yaml"]


def test_l17_a_test_after_the_fit_is_of_the_same_experiment(project: Project, pl: ModuleType) -> None:
    class Module(type(make_module(pl))):  # type: ignore[misc]
        def test_step(self, batch: Any, batch_idx: int) -> None:
            self.log("test_loss", 0.25)

    logger = KeepsakeLogger(quiet=True)
    trainer = fit(pl, logger, module=Module(), max_epochs=1)
    experiment = only(project)
    assert not experiment.is_running()
    trainer.test(Module(), loader(), verbose=False)
    experiment.refresh()
    assert experiment.checkpoints[-1].metrics["test_loss"] == 0.25
    assert not experiment.is_running()
    trainer.fit_loop.max_epochs = 2
    trainer.fit(trainer.lightning_module, loader(), loader())
    experiment = only(project)
    assert experiment.history().series("val_loss")[0] == [4, 8]
    assert (experiment.outcome, len(experiment.record.resumed)) == ("finished", 1)


def test_a_second_trainer_makes_a_second_experiment(project: Project, lightning: ModuleType) -> None:
    logger = KeepsakeLogger(quiet=True)
    fit(lightning, logger, max_epochs=1)
    fit(lightning, logger, max_epochs=1)
    assert [experiment.history().series("val_loss")[0] for experiment in project.experiments.list()] == [[4], [4]]


def test_ctrl_c_is_an_interruption(project: Project, lightning: ModuleType) -> None:
    module = make_module(lightning, fail_at=5, error=KeyboardInterrupt())
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(lightning, KeepsakeLogger(quiet=True), module=module)
    assert only(project).outcome == "interrupted"


# --- with the callback ------------------------------------------------------------------------------------------------


def test_callback_and_logger_record_one_experiment_and_no_step_twice(project: Project, pl: ModuleType) -> None:
    callbacks = [KeepsakeCallback(params={"by": "callback"}, quiet=True), saver(pl, every_n_epochs=2, save_top_k=-1)]
    fit(pl, KeepsakeLogger({"of": "logger"}, log_model="all", quiet=True), callbacks, max_epochs=3)
    experiment = only(project)
    assert experiment.checkpoints.step == [4, 8, 12]
    assert [checkpoint.path for checkpoint in experiment.checkpoints] == ["model.ckpt", "epoch=1-step=8.ckpt", "model.ckpt"]
    assert (experiment.params["by"], experiment.params["of"]) == ("callback", "logger")
    assert experiment.history().series("val_loss")[0] == [4, 8, 12]
    assert experiment.outcome == "finished"


def test_l5_l11_a_training_that_goes_on_from_a_checkpoint_is_the_same_experiment(project: Project, pl: ModuleType) -> None:
    fit(pl, KeepsakeLogger(quiet=True), [KeepsakeCallback(quiet=True)], max_epochs=1)
    path = only(project).checkpoints[0]
    path.checkout("out", quiet=True)
    fit(pl, KeepsakeLogger(quiet=True), [KeepsakeCallback(quiet=True)], max_epochs=3, ckpt_path="out/model.ckpt")
    experiment = only(project)
    assert experiment.checkpoints.step == [4, 8, 12]
    assert experiment.history().series("val_loss")[0] == [4, 8, 12]
    fit(pl, False, [KeepsakeCallback(quiet=True)], max_epochs=4, ckpt_path="out/model.ckpt")
    # The steps that come out the same are there already.
    assert only(project).checkpoints.step == [4, 8, 12, 16]
    assert len(only(project).record.resumed) == 2


@pytest.mark.parametrize("by", ["callback", "logger", "both"])
def test_l13_a_checkpoint_of_a_training_without_us_makes_a_new_experiment(
    project: Project, lightning: ModuleType, capsys: pytest.CaptureFixture[str], by: str
) -> None:
    fit(lightning, False, [saver(lightning, dirpath="theirs", filename="one")], max_epochs=1)
    logger = KeepsakeLogger(log_model="all", quiet=True) if by != "callback" else False
    callbacks = [KeepsakeCallback(quiet=True)] if by != "logger" else [saver(lightning)]
    fit(lightning, logger, callbacks, max_epochs=2, ckpt_path="theirs/one.ckpt")
    assert only(project).checkpoints.step == [8]
    assert capsys.readouterr().err.count("names no experiment, so this is a new one") == 1


def test_resume_false_makes_a_new_experiment(project: Project, lightning: ModuleType) -> None:
    fit(lightning, False, [KeepsakeCallback(quiet=True)], max_epochs=1)
    only(project).checkpoints[0].checkout("out", quiet=True)
    fit(lightning, False, [KeepsakeCallback(quiet=True, resume=False)], max_epochs=2, ckpt_path="out/model.ckpt")
    assert [experiment.checkpoints.step for experiment in project.experiments.list()] == [[4], [8]]


def test_the_trainers_own_monitor_is_the_primary_metric(project: Project, lightning: ModuleType) -> None:
    fit(lightning, False, [KeepsakeCallback(quiet=True), saver(lightning, monitor="half", mode="max")], max_epochs=1)
    assert metric_of(only(project)) == ("half", "maximize")
    fit(lightning, False, [KeepsakeCallback(quiet=True, monitor="val_loss")], max_epochs=1)
    assert project.experiments.list()[-1].primary_metric() == "val_loss"


# --- processes ------------------------------------------------------------------------------------------------------


def test_copies_work(project: Project, lightning: ModuleType) -> None:
    logger = KeepsakeLogger(log_model="all", quiet=True)
    trainer = fit(lightning, logger, [saver(lightning)], max_epochs=1)
    for twin in (pickle.loads(pickle.dumps(logger)), copy.deepcopy(trainer).loggers[0]):
        fit(lightning, twin, [saver(lightning)], max_epochs=1)
    assert len(project.experiments.list()) == 3


DDP = """
    import sys
    import lightning.pytorch as pl
    import torch
    from keepsake.integrations.lightning import KeepsakeCallback, KeepsakeLogger
    from tests.integrations.lightning_models import loader

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def loss(self, batch):
            return torch.nn.functional.mse_loss(self.layer(batch[0]), batch[1])

        def training_step(self, batch, batch_idx):
            return self.loss(batch)

        def validation_step(self, batch, batch_idx):
            self.log("val_loss", self.loss(batch), sync_dist=True)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    if __name__ == "__main__":
        saver = pl.callbacks.ModelCheckpoint(monitor="val_loss", save_top_k=-1)
        callbacks = [saver] + ([KeepsakeCallback()] if {both} else [])
        trainer = pl.Trainer(
            accelerator="cpu", devices=2, strategy="{strategy}", max_epochs=2, log_every_n_steps=1,
            logger=KeepsakeLogger(log_model="all"), callbacks=callbacks, enable_progress_bar=False, enable_model_summary=False,
        )
        trainer.fit(Module(), loader(), loader())
"""


@pytest.mark.parametrize(("strategy", "both"), [("ddp", True), ("ddp_spawn", False), ("ddp_fork", True)])
def test_l6_l7_with_two_processes_rank_zero_records(project: Project, script: Any, strategy: str, both: bool) -> None:
    run: Script = script(DDP.format(strategy=strategy, both=both))
    assert run.wait() == 0, run.stderr
    experiment = only(project)
    assert experiment.checkpoints.step == [2, 4]
    assert experiment.history().series("val_loss")[0] == [2, 4]
    assert experiment.outcome == "finished"
    # Of one directory, whichever process named it.
    assert len(list(Path("lightning_logs", "keepsake").iterdir())) == 1


SHARDED = """
    import sys
    import lightning.pytorch as pl
    import torch
    from lightning.pytorch.strategies import ModelParallelStrategy
    from torch.distributed.fsdp import fully_shard
    from keepsake.integrations.lightning import KeepsakeCallback
    from tests.integrations.lightning_models import loader

    class Module(pl.LightningModule):
        def configure_model(self):
            if not hasattr(self, "layer"):
                self.layer = torch.nn.Linear(4, 2)
                fully_shard(self.layer, mesh=self.device_mesh["data_parallel"])

        def training_step(self, batch, batch_idx):
            loss = self.layer(batch[0]).mean() ** 2
            self.log("loss", loss, on_epoch=True, sync_dist=True)
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    if __name__ == "__main__":
        epochs, path = int(sys.argv[1]), (sys.argv[2:] or [None])[0]
        trainer = pl.Trainer(
            accelerator="cpu", devices=2, strategy=ModelParallelStrategy(2, 1), max_epochs=epochs, logger=False,
            callbacks=[KeepsakeCallback()], enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )
        trainer.fit(Module(), loader(), ckpt_path=path)
"""


def test_l5_l8_a_sharded_checkpoint_is_a_directory_and_the_training_goes_on_from_it(project: Project) -> None:
    def run(*arguments: str) -> None:
        path = project.directory / "train.py"
        path.write_text(textwrap.dedent(SHARDED), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, str(path), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr[-3000:]

    run("1")
    experiment = only(project)
    listed = experiment.repository.archives.files(f"checkpoints/{experiment.checkpoints[0].id}.tar.gz")
    names = {file.path.partition("/")[2] for file in listed if file.kind == "file"}
    assert {".metadata", "meta.pt", "__0_0.distcp", "__1_0.distcp"} <= names
    experiment.checkpoints[0].checkout("out", quiet=True)
    run("2", "out/model.ckpt")
    assert only(project).checkpoints.step == [2, 4]
    assert len(only(project).record.resumed) == 1
