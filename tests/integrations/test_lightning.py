"""The Lightning callback under the real Trainers of both namespaces."""

from __future__ import annotations

import argparse
import copy
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

import keepsake
from keepsake import Experiment, Project
from keepsake.checkpoint import PrimaryMetric
from keepsake.integrations.lightning import KeepsakeCallback
from keepsake.integrations.lightning._trainer import params_of
from tests.conftest import ROOT, Script
from tests.integrations.lightning_models import loader, loss_of, make_module

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


def saved_code(project: Project) -> list[str]:
    """Return the names of the files that the last experiment saved of the project."""
    experiment = project.experiments.list()[-1]
    listed = experiment.repository.archives.files(f"experiments/{experiment.id}.tar.gz")
    return [file.path for file in listed if file.kind == "file"]


# --- what is recorded -----------------------------------------------------------------------------------------------


def test_l1_each_checkpoint_has_all_metrics_of_its_own_epoch(project: Project, pl: ModuleType) -> None:
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


def test_l2_metrics_of_an_earlier_epoch_are_left_out(project: Project, pl: ModuleType) -> None:
    fit(pl, max_epochs=4, check_val_every_n_epoch=2)
    losses = only(project).checkpoints.metrics
    assert [value is None for value in losses["val_loss"]] == [True, False, True, False]
    assert None not in losses["train_loss"]
    assert losses["late"] == [100, 101, 102, 103]


def test_a_module_without_validation_is_recorded_too(project: Project, pl: ModuleType) -> None:
    module = make_module(pl, validates=False)
    trainer = pl.Trainer(**QUIET, max_epochs=2, callbacks=[KeepsakeCallback(every_n_train_steps=2)])
    trainer.fit(module, loader())
    assert only(project).checkpoints.step == [2, 4, 6, 8]
    first, second = (truth["train_loss"] for truth in module.truth)
    assert only(project).checkpoints.metrics["train_loss"] == pytest.approx([None, first, None, second])


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


def test_l24_params_come_from_the_callback_the_module_and_the_trainer(project: Project, pl: ModuleType) -> None:
    fit(pl, [KeepsakeCallback(params={"lr": 0.5, "note": "mine"})], gradient_clip_val=0.5)
    params = only(project).params
    assert params["lr"] == 0.5  # what the user says outweighs what the module has
    assert (params["units"], params["note"]) == (1, "mine")
    assert params["trainer"]["max_epochs"] == 2
    assert params["trainer"]["gradient_clip_val"] == 0.5


def test_what_lightning_knows_is_recorded(project: Project, pl: ModuleType) -> None:
    module = make_module(pl)
    module.embedding = torch.nn.Embedding(3, 2).requires_grad_(False)
    fit(pl, [KeepsakeCallback()], module, max_epochs=1)
    params = only(project).params
    trainer = params["trainer"]
    assert (trainer["batch_size"], trainer["devices"], trainer["accelerator"], trainer["precision"]) == (8, 1, "cpu", "32-true")
    # The learning rate is said once: as the module's own hyperparameter.
    assert (params["optimizer"]["name"], params["lr"], "lr" in params["optimizer"]) == ("SGD", 0.05, False)
    assert params["model"] == {"name": "Regression", "num_layers": 2}
    assert (params["num_parameters"], params["num_trainable_parameters"]) == (11, 5)
    assert "lr_scheduler" not in params


def test_what_the_user_calls_the_same_is_the_users(project: Project, pl: ModuleType) -> None:
    module = make_module(pl)
    module.save_hyperparameters({"optimizer": "sgd", "num_parameters": "few"})
    fit(pl, [KeepsakeCallback(params={"model": "small"})], module, max_epochs=1)
    params = only(project).params
    assert (params["optimizer"], params["num_parameters"], params["model"]) == ("sgd", "few", "small")


def test_optimizers_and_schedulers_are_recorded_as_they_were_given(project: Project, pl: ModuleType) -> None:
    module = make_module(pl)
    weight, bias = module.layer.parameters()

    def configure_optimizers() -> Any:
        groups = [{"params": [weight], "lr": 0.1}, {"params": [bias], "weight_decay": 0.5}]
        optimizer = torch.optim.AdamW(groups, lr=0.2, weight_decay=0.1)
        return [optimizer], [torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[1, 3], gamma=0.5)]

    module.configure_optimizers = configure_optimizers
    fit(pl, [KeepsakeCallback()], module, max_epochs=2)
    params = only(project).params
    assert (params["optimizer"]["name"], params["optimizer"]["eps"]) == ("AdamW", 1e-8)
    assert params["optimizer"]["groups"] == [
        {"num_parameters": 4, "lr": 0.1, "weight_decay": 0.1},
        {"num_parameters": 1, "lr": 0.2, "weight_decay": 0.5},
    ]
    assert params["lr_scheduler"] == {"name": "MultiStepLR", "milestones": [1, 3], "gamma": 0.5}
    # The rate that the epoch was trained with, and not the one that the scheduler has prepared for the next.
    assert only(project).checkpoints.metrics["learning_rate"] == pytest.approx([0.1, 0.05])


def test_a_batch_size_is_asked_for_and_no_loader_is_run(project: Project, pl: ModuleType) -> None:
    class Counting(torch.utils.data.DataLoader):
        runs = 0

        def __iter__(self) -> Any:
            Counting.runs += 1
            return super().__iter__()

    fit_with = pl.Trainer(**{**QUIET, "max_epochs": 1, "callbacks": [KeepsakeCallback()], "num_sanity_val_steps": 0})
    data = loader().dataset
    sampler = torch.utils.data.BatchSampler(torch.utils.data.SequentialSampler(data), batch_size=16, drop_last=False)
    fit_with.fit(make_module(pl, validates=False), Counting(data, batch_sampler=sampler))
    assert only(project).params["trainer"]["batch_size"] == 16
    assert Counting.runs == 1


def test_what_cannot_be_asked_costs_only_what_it_would_have_said(pl: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    odd = SimpleNamespace(optimizers=[object()], lr_scheduler_configs=[])
    known, _, given = params_of(odd, make_module(pl))
    assert known == {"model": {"name": "Regression", "num_layers": 1}, "num_parameters": 5, "num_trainable_parameters": 5}
    assert given["lr"] == 0.05
    assert "the training goes on" in capsys.readouterr().err


def test_params_are_whatever_init_takes(project: Project, pl: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    fit(pl, [KeepsakeCallback(params=argparse.Namespace(lr=0.5, odd=object()))], max_epochs=1)
    assert only(project).params["lr"] == 0.5
    assert capsys.readouterr().err.count('param "odd" is an object, stored as text') == 1


def test_a_trainer_among_the_params_is_merged_with_lightnings(project: Project, pl: ModuleType) -> None:
    module = make_module(pl)
    module.save_hyperparameters({"trainer": {"name": "from the configuration", "devices": "all"}})
    fit(pl, [KeepsakeCallback(params={"trainer": {"devices": "mine"}})], module, max_epochs=1)
    trainer = only(project).params["trainer"]
    assert (trainer["name"], trainer["devices"], trainer["max_epochs"]) == ("from the configuration", "mine", 1)


def test_a_primary_metric_that_never_comes_is_said_once(
    project: Project, pl: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(pl, [KeepsakeCallback(primary_metric=("val_los", "minimize"))])
    said = capsys.readouterr().err
    assert said.count('primary metric "val_los" was never logged') == 1
    assert "epoch, half, late, learning_rate, train_loss, val_loss" in said
    assert only(project).best() is None


def test_a_primary_metric_that_comes_seldom_is_not_missed(
    project: Project, pl: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(pl, [KeepsakeCallback(primary_metric=PrimaryMetric("val_loss", "minimize"))], check_val_every_n_epoch=2)
    assert "primary metric" not in capsys.readouterr().err
    best = only(project).best()
    assert best is not None
    assert best.step == 8


def test_a_primary_metric_is_missed_in_the_training_that_lacks_it(
    project: Project, pl: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    callback = KeepsakeCallback(primary_metric=("val_loss", "minimize"))
    fit(pl, [callback], max_epochs=1)
    with pytest.raises(RuntimeError, match="before anything was logged"):
        fit(pl, [callback], make_module(pl, fail_at=0, error=RuntimeError("before anything was logged")))
    assert "never logged" not in capsys.readouterr().err
    fit(pl, [callback], make_module(pl, validates=False), max_epochs=1)
    assert capsys.readouterr().err.count('primary metric "val_loss" was never logged') == 1


def test_l21_steps_are_optimizer_steps(project: Project, pl: ModuleType) -> None:
    fit(pl, accumulate_grad_batches=2)
    assert only(project).checkpoints.step == [2, 4]
    assert only(project).checkpoints.metrics["epoch"] == [0, 1]


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"period": 2}, [8, 16]),
        ({"every_n_epochs": 2}, [8, 16]),
        ({"every_n_train_steps": 3}, [3, 4, 6, 8, 9, 12, 15, 16]),
        ({"filepath": None}, [4, 8, 12, 16]),
    ],
)
def test_how_often_is_chosen(project: Project, pl: ModuleType, options: dict[str, Any], steps: list[int]) -> None:
    fit(pl, [KeepsakeCallback(**options)], max_epochs=4)
    assert only(project).checkpoints.step == steps
    assert {c.path for c in only(project).checkpoints} == {options.get("filepath", "model.ckpt")}


def test_a_step_that_ends_an_epoch_has_the_metrics_of_the_epoch(project: Project, pl: ModuleType) -> None:
    _, module = fit(pl, [KeepsakeCallback(every_n_train_steps=2)])
    steps, metrics = only(project).checkpoints.step, only(project).checkpoints.metrics
    assert steps == [2, 4, 6, 8]
    for name in ("val_loss", "train_loss", "late"):
        assert metrics[name] == pytest.approx([None, module.truth[0][name], None, module.truth[1][name]], abs=1e-6)


@pytest.mark.parametrize("options", [{"every_n_train_steps": 2}, {}])
def test_the_last_step_of_an_epoch_is_saved_as_the_epoch_leaves_it(
    project: Project, pl: ModuleType, options: dict[str, Any]
) -> None:
    class Average(pl.Callback):  # type: ignore[name-defined]
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            torch.nn.init.constant_(pl_module.layer.bias, 7.0)

    fit(pl, [KeepsakeCallback(**options), Average()], val_check_interval=0.5, max_steps=6)
    saved = [torch.load(checkpoint.open("model.ckpt"), weights_only=True) for checkpoint in only(project).checkpoints]
    biases = {one["global_step"]: one["state_dict"]["layer.bias"].item() for one in saved}
    assert {step: bias == 7.0 for step, bias in biases.items()} == {2: False, 4: True, 6: True}


def test_each_validation_within_an_epoch_is_recorded_with_the_weights_that_it_measured(project: Project, pl: ModuleType) -> None:
    fit(pl, val_check_interval=0.5)
    checkpoints = only(project).checkpoints
    assert checkpoints.step == [2, 4, 6, 8]
    assert checkpoints.metrics["late"] == [None, 100, None, 101]
    for checkpoint in checkpoints:
        saved = torch.load(checkpoint.open("model.ckpt"), weights_only=True)
        assert saved["global_step"] == checkpoint.step
        assert loss_of(saved["state_dict"]) == pytest.approx(checkpoint.metrics["val_loss"], abs=1e-6)


@pytest.mark.parametrize(
    ("options", "trainer", "steps"),
    [
        ({"period": 2}, {"val_check_interval": 0.5}, [6, 8]),
        ({"every_n_train_steps": 3}, {"val_check_interval": 0.5}, [3, 4, 6, 8]),
        # The integer 1 is after each batch. Of two batches one optimizer step is made.
        ({}, {"val_check_interval": 1, "accumulate_grad_batches": 2}, [1, 2, 3, 4]),
        ({}, {"val_check_interval": 3, "check_val_every_n_epoch": None}, [3, 4, 6, 8]),
        # It stops in the middle of the second epoch.
        ({}, {"max_steps": 6}, [4, 6]),
    ],
)
def test_no_step_is_recorded_twice(
    project: Project, pl: ModuleType, options: dict[str, Any], trainer: dict[str, Any], steps: list[int]
) -> None:
    callback = KeepsakeCallback(**options)
    for _ in range(2):
        fit(pl, [callback], **trainer)
    assert [experiment.checkpoints.step for experiment in project.experiments.list()] == [steps, steps]


def test_what_was_validated_belongs_to_no_later_step(project: Project, pl: ModuleType) -> None:
    fit(pl, [KeepsakeCallback(every_n_train_steps=1)], val_check_interval=2)
    losses = only(project).checkpoints.metrics["val_loss"]
    assert [value is None for value in losses] == [True, False, True, False] * 2


def test_l21_with_several_optimizers_no_multiple_is_passed_over(project: Project, pl: ModuleType) -> None:
    fit(pl, [KeepsakeCallback(every_n_train_steps=3)], make_module(pl, optimizers=2), max_epochs=1)
    assert only(project).checkpoints.step == [4, 6, 8]  # two steps in each batch; 3 falls between


def test_what_was_saved_before_an_exception_is_recorded(project: Project, pl: ModuleType) -> None:
    class Fail(pl.Callback):  # type: ignore[name-defined]
        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            if trainer.global_step == 6:
                raise RuntimeError("bad disk")

    with pytest.raises(RuntimeError, match="bad disk"):
        fit(pl, [KeepsakeCallback(), Fail()], val_check_interval=0.5)
    assert only(project).outcome == "failed"
    assert only(project).checkpoints.step == [2, 4, 6]
    assert None not in only(project).checkpoints.metrics["val_loss"]


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


def test_a3_the_code_is_saved_without_lightnings_own_output(project: Project, pl: ModuleType) -> None:
    Path("train.py").write_text("pass\n", encoding="utf-8")
    for _ in range(2):
        fit(pl, max_epochs=1, logger=True, enable_checkpointing=True)
    assert Path("lightning_logs").exists()
    assert saved_code(project) == ["keepsake.yaml", "train.py"]


def test_a3_output_of_earlier_trainings_is_no_code(project: Project, pl: ModuleType) -> None:
    loggers = import_module(f"{pl.__name__}.loggers")
    for name in ("checkpoints/code.py", "wandb/run/log", "mlruns/0/meta.yaml", "other/train.py", "other/model.ckpt"):
        (project.directory / name).parent.mkdir(parents=True, exist_ok=True)
        (project.directory / name).touch()
    callback = KeepsakeCallback("other/model.ckpt")
    for _ in range(2):
        own = import_module(f"{pl.__name__}.callbacks").ModelCheckpoint(dirpath="saved")
        fit(pl, [callback, own], max_epochs=1, logger=loggers.CSVLogger("runs", name="mine"), enable_checkpointing=True)
    assert len(list(Path("runs/mine").glob("version_*"))) == len(list(Path("saved").glob("*.ckpt"))) == 2
    assert saved_code(project) == ["checkpoints/code.py", "keepsake.yaml", "other/train.py"]


def test_checkpoints_of_a_training_without_a_logger_are_no_code(project: Project, pl: ModuleType) -> None:
    fit(pl, max_epochs=1, enable_checkpointing=True)
    assert len(list(Path("checkpoints").glob("*.ckpt"))) == 1
    fit(pl, max_epochs=1)
    assert saved_code(project) == ["keepsake.yaml"]


def test_the_project_is_saved_even_where_it_is_lightnings_output_directory(project: Project, pl: ModuleType) -> None:
    checkpoint = import_module(f"{pl.__name__}.callbacks").ModelCheckpoint(dirpath=".")
    Path("metrics").mkdir()  # a name that also a repository has
    Path("metrics/train.py").touch()
    fit(pl, [KeepsakeCallback(), checkpoint], max_epochs=1, enable_checkpointing=True)
    assert saved_code(project) == ["keepsake.yaml", "metrics/train.py"]


def test_a4_nan_is_recorded_and_never_best(project: Project, pl: ModuleType) -> None:
    class Odd(pl.Callback):  # type: ignore[name-defined]
        def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            pl_module.log("score", float("nan") if trainer.current_epoch == 1 else 1.0 + trainer.current_epoch)

    fit(pl, [Odd(), KeepsakeCallback(primary_metric=("score", "maximize"))], max_epochs=3)
    best = only(project).best()
    assert best is not None
    assert best.metrics["score"] == 3.0


# --- which trainings are experiments --------------------------------------------------------------------------------


def test_l4_nothing_is_recorded_where_nothing_is_trained(project: Project, pl: ModuleType) -> None:
    callback = KeepsakeCallback()
    trainer = pl.Trainer(**QUIET, max_epochs=0, callbacks=[callback])
    module = make_module(pl)
    trainer.validate(module, loader(), verbose=False)
    trainer.fit(module, loader(), loader())
    fit(pl, fast_dev_run=True)
    assert project.experiments.list() == []
    assert callback.experiment is None


def test_l3_a_failing_sanity_check_leaves_nothing(project: Project, pl: ModuleType) -> None:
    class Bad(pl.Callback):  # type: ignore[name-defined]
        def on_validation_batch_end(self, trainer: Any, *args: Any) -> None:
            if trainer.sanity_checking:
                raise RuntimeError("bad data")

    with pytest.raises(RuntimeError, match="bad data"):
        fit(pl, [Bad(), KeepsakeCallback()])
    assert project.experiments.list() == []


def test_l4_the_learning_rate_finder_makes_no_experiment(project: Project, pl: ModuleType) -> None:
    callback = KeepsakeCallback()
    module = make_module(pl)
    trainer = pl.Trainer(**QUIET, max_epochs=2, callbacks=[callback])
    tuner = import_module(f"{pl.__name__}.tuner").Tuner(trainer)
    tuner.lr_find(module, loader(), loader(), num_training=5, update_attr=False)
    recorded = project.experiments.list()
    trainer.fit(module, loader(), loader())
    assert recorded == []
    assert only(project).checkpoints.step == [4, 8]


def test_a10_a_second_fit_with_the_same_trainer_goes_on_with_the_same_experiment(project: Project, pl: ModuleType) -> None:
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


def test_a10_a_new_trainer_with_the_same_callback_is_a_new_experiment(project: Project, pl: ModuleType) -> None:
    callback = KeepsakeCallback()
    fit(pl, [callback], max_epochs=1)
    fit(pl, [callback], max_epochs=1)
    first, second = project.experiments.list()
    assert first.checkpoints.step == second.checkpoints.step == [4]


def test_where_recording_is_disabled_nothing_is_saved(project: Project, pl: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    saves = []

    class Count(pl.Callback):  # type: ignore[name-defined]
        def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
            saves.append(trainer.global_step)

    monkeypatch.setenv("KEEPSAKE_MODE", "disabled")
    trainer, module = fit(pl, [Count(), KeepsakeCallback()])
    trainer.fit_loop.max_epochs = 4
    trainer.fit(module, loader(), loader())
    assert (trainer.current_epoch, saves) == (4, [])
    assert [path.name for path in project.directory.iterdir()] == ["keepsake.yaml"]


def test_a_checkpoint_says_which_experiment_it_is_of(project: Project, pl: ModuleType) -> None:
    first, second = KeepsakeCallback("a.ckpt"), KeepsakeCallback("b.ckpt")
    fit(pl, [first, second], max_epochs=1)
    assert first.experiment is not None
    assert second.experiment is not None
    saved = torch.load(project.experiments.get(first.experiment.id).checkpoints[0].open("a.ckpt"), weights_only=True)
    assert saved["callbacks"][first.state_key] == {"experiment_id": first.experiment.id}
    assert saved["callbacks"][second.state_key] == {"experiment_id": second.experiment.id}


@pytest.mark.parametrize("callbacks", [[], [KeepsakeCallback]])
def test_a_training_goes_on_from_a_recorded_checkpoint(
    project: Project, pl: ModuleType, tmp_path: Path, callbacks: list[Any]
) -> None:
    fit(pl, max_epochs=1)
    only(project).checkpoints[0].checkout(tmp_path / "out", quiet=True)
    trainer = pl.Trainer(**QUIET, max_epochs=2, callbacks=[callback() for callback in callbacks])
    trainer.fit(make_module(pl), loader(), loader(), ckpt_path=tmp_path / "out" / "model.ckpt")
    assert (trainer.current_epoch, trainer.global_step) == (2, 8)
    assert [experiment.checkpoints.step for experiment in project.experiments.list()] == [[4, 8] if callbacks else [4]]


def test_an_experiment_of_the_user_is_used_and_not_ended(project: Project, pl: ModuleType) -> None:
    with keepsake.init(params={"mine": 1}, quiet=True) as experiment:
        fit(pl, [KeepsakeCallback(experiment=experiment)])
        assert experiment.is_running()
        experiment.checkpoint(metrics={"test": 1})
    assert only(project).params == {"mine": 1}
    assert len(only(project).checkpoints) == 3


def test_a_deep_copy_records_into_the_same_experiment_of_the_user(project: Project, pl: ModuleType) -> None:
    with keepsake.init(quiet=True) as experiment:
        fit(pl, [copy.deepcopy(KeepsakeCallback(experiment=experiment))])
    assert only(project).checkpoints.step == [4, 8]


# --- how it ends ----------------------------------------------------------------------------------------------------


def test_l14_an_exception_is_recorded_and_reaches_the_user(project: Project, pl: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="CUDA out of memory"):
        fit(pl, module=make_module(pl, fail_at=6, error=RuntimeError("CUDA out of memory")))
    experiment = only(project)
    assert (experiment.status.word, experiment.error) == ("failed", "RuntimeError: CUDA out of memory")
    assert experiment.checkpoints.step == [4]
    assert not experiment.is_running()


def test_a8_a_training_whose_end_was_not_told_is_failed_when_the_next_one_starts(project: Project, pl: ModuleType) -> None:
    class InTheWay(pl.Callback):  # type: ignore[name-defined]
        def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
            raise ValueError("so that the callbacks after this one are not called")

    callback = KeepsakeCallback()
    with pytest.raises(ValueError, match="so that"):
        fit(pl, [InTheWay(), callback], make_module(pl, fail_at=6, error=RuntimeError("CUDA out of memory")))
    assert only(project).is_running()
    fit(pl, [callback])
    assert [experiment.outcome for experiment in project.experiments.list()] == ["failed", "finished"]


@pytest.mark.parametrize(("code", "outcome"), [(None, "finished"), (0, "finished"), (3, "failed")])
def test_an_exit_of_the_program_is_what_its_code_says(project: Project, code: int | None, outcome: str) -> None:
    lightning = import_module("lightning.pytorch")
    with pytest.raises(SystemExit):
        fit(lightning, module=make_module(lightning, fail_at=6, error=SystemExit(code)))
    assert only(project).outcome == outcome
    assert only(project).checkpoints.step == [4]


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
def test_l15_a_signal_ends_it_truthfully(
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


def test_a1_l14_a_repository_that_breaks_does_not_stop_the_training(
    project: Project, pl: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    class Break(pl.Callback):  # type: ignore[name-defined]
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 1:
                (project.directory / ".keepsake").rename("aside")
                (project.directory / ".keepsake").write_text("in the way")

    trainer, _ = fit(pl, [Break(), KeepsakeCallback()], max_epochs=8)
    assert trainer.current_epoch == 8
    # It is said, and not anew for each of the seven checkpoints.
    assert 0 < capsys.readouterr().err.count("keepsake: error: ") < 7


NO_ROOM = """
import resource
import lightning.pytorch as pl
from keepsake.integrations.lightning import KeepsakeCallback
from tests.integrations.lightning_models import loader, make_module

# One element of the weights is 4 bytes: a checkpoint does not fit, a record does.
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, resource.RLIM_INFINITY))
options = dict(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)
trainer = pl.Trainer(max_epochs=3, callbacks=[KeepsakeCallback(quiet=True)], **options)
trainer.fit(make_module(pl, hparams={"units": 100_000}), loader(), loader())
print(trainer.current_epoch)
"""


def test_without_room_for_the_file_the_metrics_are_recorded(project: Project, script: Callable[..., Script]) -> None:
    run = script(NO_ROOM)
    assert run.line() == "3"
    assert run.wait() == 0
    assert run.stderr.count("keepsake: warning: model.ckpt of step 4 could not be saved and the training goes on") == 1
    assert run.stderr.count("keepsake: ") == 1
    assert [(c.path, c.step) for c in only(project).checkpoints] == [(None, 4), (None, 8), (None, 12)]
    assert only(project).outcome == "finished"
    assert not (project.directory / ".keepsake" / "staging").exists()


def test_l20_files_that_are_saved_some_time_later_are_recorded(project: Project, pl: ModuleType, tmp_path: Path) -> None:
    kind = import_module(f"{pl.__name__}.plugins.io").AsyncCheckpointIO
    own = import_module(f"{pl.__name__}.callbacks").ModelCheckpoint(dirpath=tmp_path / "own")
    trainer, _ = fit(pl, [KeepsakeCallback(), own], enable_checkpointing=True, plugins=[kind()])
    assert isinstance(trainer.strategy.checkpoint_io, kind)
    assert len(list((tmp_path / "own").iterdir())) == 1
    for checkpoint in only(project).checkpoints:
        assert torch.load(checkpoint.open("model.ckpt"), weights_only=True)["global_step"] == checkpoint.step


def test_l8_a_checkpoint_that_is_a_directory_is_recorded_whole(
    project: Project, pl: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    class Directories(import_module(f"{pl.__name__}.plugins.io").TorchCheckpointIO):  # type: ignore[misc]
        def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
            super().save_checkpoint(checkpoint, Path(path) / "shards" / "0.pt")
            (Path(path) / "meta").write_text("1 shard")

    fit(pl, [KeepsakeCallback("out/model", quiet=True)], plugins=[Directories()])
    assert "keepsake:" not in capsys.readouterr().err
    for checkpoint in only(project).checkpoints:
        assert checkpoint.open("out/model/meta").read() == b"1 shard"
        assert torch.load(checkpoint.open("out/model/shards/0.pt"), weights_only=True)["global_step"] == checkpoint.step
    assert not (project.directory / ".keepsake" / "staging").exists()


def test_files_of_processes_that_died_long_ago_are_swept(project: Project, pl: ModuleType) -> None:
    staging = project.directory / ".keepsake" / "staging"
    for name in ("dead", "maybe alive"):
        (staging / name).mkdir(parents=True)
        (staging / name / "model.ckpt").write_text("half")
    long_ago = time.time() - 25 * 3600
    os.utime(staging / "dead", (long_ago, long_ago))
    fit(pl)
    assert [path.name for path in staging.iterdir()] == ["maybe alive"]


def test_a_directory_that_another_process_has_swept_is_made_anew(project: Project, pl: ModuleType) -> None:
    class Sweep(pl.Callback):  # type: ignore[name-defined]
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            for path in (project.directory / ".keepsake" / "staging").glob("*"):
                path.rmdir()

    class Plain(import_module(f"{pl.__name__}.plugins.io").TorchCheckpointIO):  # type: ignore[misc]
        def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
            torch.save(checkpoint, path)  # unlike the original it makes no directories

    fit(pl, [Sweep(), KeepsakeCallback()], plugins=[Plain()])
    assert [checkpoint.path for checkpoint in only(project).checkpoints] == ["model.ckpt", "model.ckpt"]


def test_where_the_project_is_not_writable_the_file_is_recorded_all_the_same(
    project: Project, pl: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEEPSAKE_REPOSITORY", f"file://{tmp_path / 'repository'}")
    (project.directory / ".keepsake").write_text("in the way")
    fit(pl)
    assert [checkpoint.open("model.ckpt").read(2) for checkpoint in only(Project()).checkpoints] == [b"PK", b"PK"]


def test_no_repository_is_said_before_the_training(tmp_path: Path, pl: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(keepsake.exceptions.ConfigNotFound, match="no repository"):
        fit(pl)


@pytest.mark.parametrize(
    "options",
    [
        {"primary_metric": ("val_loss", "smallest")},
        {"primary_metric": "loss"},
        {"primary_metric": 1},
        {"primary_metric": ("val_loss", 1)},
        {"primary_metric": ("val_loss", "train_loss", "minimize")},
        {"primary_metric": {"val_loss": 1, "minimize": 2}},
        {"period": 0},
        {"every_n_epochs": 0},
        {"every_n_train_steps": 0},
        {"filepath": ""},
        {"filepath": ".."},
    ],
)
def test_useless_arguments_are_refused_by_the_constructor(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be|count from 1"):
        KeepsakeCallback(**options)


def test_l9_the_users_own_checkpointing_is_left_alone(project: Project, pl: ModuleType, tmp_path: Path) -> None:
    checkpoint = import_module(f"{pl.__name__}.callbacks").ModelCheckpoint(dirpath=tmp_path / "own", monitor="val_loss")
    trainer, module = fit(pl, [KeepsakeCallback(), checkpoint], enable_checkpointing=True)
    assert trainer.checkpoint_callback is checkpoint
    assert len(list((tmp_path / "own").iterdir())) == 1
    trainer.validate(module, loader(), ckpt_path="best", verbose=False)
    assert len(only(project).checkpoints) == 2


def test_l9_the_default_model_checkpoint_is_kept(project: Project, pl: ModuleType) -> None:
    trainer, _ = fit(pl, enable_checkpointing=True, max_epochs=1)
    assert type(trainer.checkpoint_callback).__name__ == "ModelCheckpoint"


def test_a15_callbacks_and_trainers_are_copied_and_pickled_without_the_live_part(project: Project, pl: ModuleType) -> None:
    callback = KeepsakeCallback(params={"cannot be pickled": lambda: 0}, primary_metric=PrimaryMetric("val_loss", "minimize"))
    trainer, _ = fit(pl, [callback], max_epochs=1)
    for copied in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        assert copied.experiment is None
        assert copied.filepath == "model.ckpt"
    for copied in (pickle.loads(pickle.dumps(trainer.callbacks)), copy.deepcopy(trainer.callbacks)):
        assert [type(one) for one in copied] == [type(one) for one in trainer.callbacks]
        assert copied[1].callback is copied[0]
    assert callback.experiment is not None


def test_a15_a_copy_made_during_a_training_has_no_part_in_it(project: Project, pl: ModuleType) -> None:
    class Copy(pl.Callback):  # type: ignore[name-defined]
        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            # A checkpoint is saved now and not recorded yet.
            self.copied = pickle.loads(pickle.dumps(callback))

    callback, copier = KeepsakeCallback(), Copy()
    fit(pl, [callback, copier], val_check_interval=0.25, max_epochs=1)
    fit(pl, [copier.copied], max_epochs=1)
    assert [experiment.checkpoints.step for experiment in project.experiments.list()] == [[1, 2, 3, 4], [4]]


def test_l12_two_callbacks_record_two_experiments(project: Project, pl: ModuleType) -> None:
    fit(pl, [KeepsakeCallback("a.ckpt"), KeepsakeCallback("b.ckpt", period=2)])
    assert sorted(len(e.checkpoints) for e in project.experiments.list()) == [1, 2]


def test_l22_a_callback_that_the_module_brings_takes_the_place_of_the_trainers(project: Project, pl: ModuleType) -> None:
    class Module(type(make_module(pl))):  # type: ignore[misc]
        def configure_callbacks(self) -> Any:
            return [KeepsakeCallback("modules.ckpt")]

    fit(pl, [KeepsakeCallback("trainers.ckpt")], module=Module(), max_epochs=1)
    assert [checkpoint.path for checkpoint in only(project).checkpoints] == ["modules.ckpt"]


def test_a9_the_workers_of_a_data_loader_neither_beat_nor_end_the_experiment(
    project: Project, pl: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keepsake.recording.heartbeat.INTERVAL_S", 0.05)
    running = []

    class Looks(pl.Callback):  # type: ignore[name-defined]
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            # In the second epoch the workers of the first one have ended.
            running.append(only(project).is_running())

    data = torch.utils.data.DataLoader(loader().dataset, batch_size=8, num_workers=2)
    trainer = pl.Trainer(**QUIET, max_epochs=2, callbacks=[KeepsakeCallback(), Looks()])
    trainer.fit(make_module(pl), data, data)
    assert running == [True, True]
    experiment = only(project)
    assert (experiment.outcome, experiment.record.resumed, experiment.pid) == ("finished", [], os.getpid())


def test_a5_a_metric_that_is_no_number_does_no_harm(project: Project, pl: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    class Odd(pl.Callback):  # type: ignore[name-defined]
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            trainer.callback_metrics["odd/name"] = torch.tensor(2.0)
            trainer.callback_metrics["several"] = torch.tensor([1.0, 2.0])

    fit(pl, [Odd(), KeepsakeCallback(primary_metric=("several", "maximize"))], max_epochs=1)
    [checkpoint] = only(project).checkpoints
    assert checkpoint.metrics["odd/name"] == 2
    assert "several" not in checkpoint.metrics
    assert only(project).best() is None
    assert capsys.readouterr().err.count('"several"') == 2  # that it is no number, and that there is no best


# --- several processes ----------------------------------------------------------------------------------------------

DISTRIBUTED = """
import sys
import keepsake
import lightning.pytorch as pl
from keepsake.integrations.lightning import KeepsakeCallback
from tests.integrations.lightning_models import loader, make_module

def fit(strategy, **options):
    trainer = pl.Trainer(
        max_epochs=2, callbacks=[KeepsakeCallback(quiet=True, **options)], strategy=strategy, devices=2, use_distributed_sampler=False,
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False
    )
    # A module on its way into another process must be importable.
    trainer.fit(MODULE, loader(), loader())

MODULE = make_module(pl, sync_dist=True)
globals()["Regression"] = type(MODULE)
type(MODULE).__qualname__ = "Regression"
type(MODULE).__module__ = __name__

if __name__ == "__main__":
    if sys.argv[2:] == ["own"]:
        with keepsake.init(quiet=True) as experiment:
            fit(sys.argv[1], experiment=experiment)
    else:
        fit(sys.argv[1], every_n_train_steps=3)
"""


def train_distributed(project: Project, *arguments: str) -> str:
    """Train in two processes, and return what they said on standard error."""
    (project.directory / "train.py").write_text(textwrap.dedent(DISTRIBUTED), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "train.py", *arguments],
        cwd=project.directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn", "ddp_fork"])
def test_l6_l7_a_distributed_training_is_one_experiment_of_rank_zero(project: Project, strategy: str) -> None:
    said = train_distributed(project, strategy)
    assert "keepsake:" not in said
    experiment = only(project)
    assert experiment.outcome == "finished"
    assert experiment.checkpoints.step == [3, 4, 6, 8]
    assert experiment.checkpoints.metrics["late"] == [None, 100, None, 101]
    assert experiment.params["trainer"]["devices"] == 2
    assert all(checkpoint.open("model.ckpt").read(2) == b"PK" for checkpoint in experiment.checkpoints)
    assert not (project.directory / ".keepsake" / "staging").exists()


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork"])
def test_an_experiment_of_another_process_is_left_to_it_and_nothing_is_lost(project: Project, strategy: str) -> None:
    said = train_distributed(project, strategy, "own")
    assert said.count("keepsake: warning: only the process that made experiment= can record into it") == 1
    users, callbacks = project.experiments.list()
    assert (users.outcome, users.checkpoints.step) == ("finished", [])
    assert (callbacks.outcome, callbacks.checkpoints.step) == ("finished", [4, 8])


# --- installed or not -----------------------------------------------------------------------------------------------


def test_the_old_import_path_gives_the_same_class() -> None:
    from keepsake.pl_callback import KeepsakeCallback as Old

    assert Old is KeepsakeCallback


@pytest.mark.parametrize("present", ["lightning", "pytorch_lightning"])
def test_l10_one_namespace_is_enough(project: Project, present: str) -> None:
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


def test_a14_without_lightning_the_install_line_is_named() -> None:
    code = """
    import sys
    sys.modules["lightning"] = sys.modules["pytorch_lightning"] = None
    import keepsake.integrations.lightning
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert 'pip install "keepsake[lightning]"' in done.stderr
    assert "MissingDependency" in done.stderr
