"""The callback under the real Trainer of transformers, 4 and 5; H and a number name a pitfall of the framework."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import BertForSequenceClassification, Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainerCallback

from keepsake import Experiment, Project
from keepsake.integrations.huggingface import KeepsakeCallback, register
from keepsake.recording import exits
from tests.conftest import Script
from tests.integrations.training_huggingface import AtEpoch, Words, arguments, make_model, make_trainer, train

Start = Callable[..., Script]


def only(project: Project) -> Experiment:
    [experiment] = project.experiments.list()
    return experiment


def files_of(experiment: Experiment, index: int) -> list[str]:
    checkpoint = experiment.checkpoints[index]
    listed = experiment.repository.archives.files(f"checkpoints/{checkpoint.id}.tar.gz")
    return [file.path.partition("/")[2] for file in listed if file.kind == "file"]


# --- what is recorded -----------------------------------------------------------------------------------------------


def test_each_checkpoint_has_the_evaluation_of_its_step_and_all_files(project: Project) -> None:
    trainer = train([KeepsakeCallback(quiet=True)])
    experiment = only(project)
    assert experiment.checkpoints.step == [4, 8, 12]
    evaluated = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    assert experiment.checkpoints.metrics["eval_loss"] == [entry["eval_loss"] for entry in evaluated]
    assert experiment.checkpoints.metrics["epoch"] == [1, 2, 3]
    assert [checkpoint.path for checkpoint in experiment.checkpoints] == ["checkpoint-4", "checkpoint-8", "checkpoint-12"]
    assert {"model.safetensors", "optimizer.pt", "trainer_state.json", "config.json"} <= set(files_of(experiment, 0))
    history = experiment.history()
    assert history.series("loss")[0] == [4, 8, 12]
    assert not any(name.endswith(("_runtime", "_per_second")) or name == "train_loss" for name in history)
    assert experiment.primary_metric() == "eval_loss"


def test_params_are_the_arguments_and_the_model_without_names_of_people(project: Project) -> None:
    train([KeepsakeCallback({"note": "mine"}, quiet=True)], epochs=1, hub_token="hf_secret", hub_model_id="me/mine", seed=7)
    params = only(project).params
    assert params["args"]["learning_rate"] == 0.01
    assert params["args"]["seed"] == 7
    assert params["model"]["hidden_size"] == 8
    assert params["num_parameters"] == sum(parameter.numel() for parameter in make_model().parameters())
    assert params["note"] == "mine"
    assert (params["model"]["name"], params["model"]["model_type"]) == ("BertForSequenceClassification", "bert")
    assert params["num_trainable_parameters"] == params["num_parameters"]
    # What is as it would be by itself is left out.
    assert "layer_norm_eps" not in params["model"]
    assert len(params["args"]) < 25
    text = json.dumps(params)
    assert not any(word in text for word in ("hf_secret", "me/mine", "output_dir"))


def test_params_are_also_what_the_trainer_makes_of_its_arguments(project: Project) -> None:
    train([KeepsakeCallback(quiet=True)], epochs=1, gradient_accumulation_steps=2)
    params = only(project).params
    expected = {"max_steps": 2, "batch_size": 4, "total_batch_size": 8, "accelerator": "cpu", "devices": 1}
    assert params["trainer"] == expected
    # Its groups agree on another value than the optimizer was given.
    assert (params["optimizer"]["name"], params["optimizer"]["lr"], params["optimizer"]["weight_decay"]) == ("AdamW", 0.01, 0.0)


@pytest.mark.parametrize(
    ("options", "metric"),
    [
        ({}, ("eval_loss", "minimize")),
        ({"metric_for_best_model": "accuracy", "greater_is_better": True}, ("eval_accuracy", "maximize")),
        ({"metric_for_best_model": "eval_accuracy"}, ("eval_accuracy", "maximize")),
    ],
)
def test_h7_the_best_is_what_the_trainer_calls_so_and_never_the_training_loss(
    project: Project, options: dict[str, Any], metric: tuple[str, str]
) -> None:
    train([KeepsakeCallback(quiet=True)], epochs=1, compute_metrics=lambda _: {"accuracy": 0.5}, **options)
    found = only(project).record.primary_metric
    assert found is not None
    assert (found.name, found.goal) == metric


def test_only_the_weights(project: Project, tmp_path: Path) -> None:
    train([KeepsakeCallback(save="weights", quiet=True)], epochs=1)
    names = files_of(only(project), 0)
    assert "model.safetensors" in names
    assert not any(name.startswith(("optimizer", "scheduler", "rng_state")) for name in names)
    only(project).checkpoints[0].checkout(tmp_path / "out", quiet=True)
    BertForSequenceClassification.from_pretrained(tmp_path / "out" / "checkpoint-4")


def test_h11_only_the_best_is_recorded_at_the_end(project: Project) -> None:
    values = iter([0.1, 0.9, 0.5])
    options = {"metric_for_best_model": "score", "greater_is_better": True, "load_best_model_at_end": True}
    train([KeepsakeCallback(save="best", quiet=True)], compute_metrics=lambda _: {"score": next(values)}, **options)
    experiment = only(project)
    assert experiment.checkpoints.step == [8]
    assert experiment.checkpoints.metrics["eval_score"] == [0.9]


@pytest.mark.parametrize("options", [{"save_strategy": "no"}, {"save_strategy": "epoch", "save": None}])
def test_h11_without_files_each_evaluation_is_a_checkpoint_of_metrics(project: Project, options: dict[str, Any]) -> None:
    save = options.pop("save", "all")
    train([KeepsakeCallback(save=save, quiet=True)], **options)
    experiment = only(project)
    assert experiment.checkpoints.step == [4, 8, 12]
    assert all(checkpoint.path is None for checkpoint in experiment.checkpoints)
    assert None not in experiment.checkpoints.metrics["eval_loss"]


def test_a12_files_that_are_rotated_away_are_recorded_and_the_users_own_stay(project: Project) -> None:
    Path("out").mkdir()
    Path("out/notes.txt").write_text("mine", encoding="utf-8")
    train([KeepsakeCallback(quiet=True)], save_total_limit=1)
    assert len(list(Path("out").glob("checkpoint-*"))) == 1
    assert Path("out/notes.txt").read_text(encoding="utf-8") == "mine"
    experiment = only(project)
    assert all("model.safetensors" in files_of(experiment, index) for index in range(3))


def test_a3_the_trainers_output_is_no_code(project: Project) -> None:
    Path("train.py").write_text("print()", encoding="utf-8")
    train([KeepsakeCallback(quiet=True)], epochs=1)
    train([KeepsakeCallback(quiet=True)], epochs=1)
    for experiment in project.experiments.list():
        listed = experiment.repository.archives.files(f"experiments/{experiment.id}.tar.gz")
        assert sorted(file.path for file in listed if file.kind == "file") == ["keepsake.yaml", "train.py"]


def test_seq2seq_trainer(project: Project) -> None:
    model = transformers.BartForConditionalGeneration(
        transformers.BartConfig(
            vocab_size=20,
            d_model=8,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=1,
            decoder_attention_heads=1,
            encoder_ffn_dim=8,
            decoder_ffn_dim=8,
            max_position_embeddings=16,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
            forced_eos_token_id=2,
        )
    )

    class Pairs(Words):
        def __getitem__(self, index: int) -> dict[str, Any]:
            return {"input_ids": self.words[index], "labels": self.words[index]}

    given = {
        name: value for name, value in arguments("out", num_train_epochs=1).to_dict().items() if name in ("output_dir", "use_cpu")
    }
    more = {"eval_strategy": "epoch", "save_strategy": "epoch", "report_to": "none", "disable_tqdm": True}
    made = Seq2SeqTrainer(
        model,
        Seq2SeqTrainingArguments(**given, **more, num_train_epochs=1, predict_with_generate=True, generation_max_length=4),
        train_dataset=Pairs(),
        eval_dataset=Pairs(),
        callbacks=[KeepsakeCallback(quiet=True)],
    )
    made.train()
    assert len(only(project).checkpoints) == 1
    assert "eval_loss" in only(project).checkpoints[0].metrics


# --- pitfalls -------------------------------------------------------------------------------------------------------


def test_h1_a_checkpoint_of_a_training_without_us_can_be_gone_on_from(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    train([], epochs=1)
    train([KeepsakeCallback(quiet=True)], epochs=2, resume_from=Path("out/checkpoint-4"))
    assert only(project).checkpoints.step == [8]
    assert capsys.readouterr().err.count("names no experiment") == 1


@pytest.mark.parametrize("restores", [True, False])
def test_h2_a_training_that_goes_on_is_the_same_experiment(project: Project, restores: bool) -> None:
    train([KeepsakeCallback(quiet=True)], epochs=1)
    callback = KeepsakeCallback(quiet=True)
    options = {"restore_callback_states_from_checkpoint": restores}
    train([callback], epochs=2, resume_from=Path("out/checkpoint-4"), **options)
    experiment = only(project)
    assert experiment.checkpoints.step == [4, 8]
    assert experiment.history().series("eval_loss")[0] == [4, 8]
    assert callback.experiment == experiment
    # There is nothing left to do: the same again is recorded once.
    train([KeepsakeCallback(quiet=True)], epochs=2, resume_from=Path("out/checkpoint-4"), **options)
    assert only(project).checkpoints.step == [4, 8]
    assert len(only(project).record.resumed) == 2


def test_going_on_with_the_same_trainer_is_the_same_experiment(project: Project) -> None:
    trainer = make_trainer([KeepsakeCallback(quiet=True)], num_train_epochs=1)
    trainer.train()
    trainer.args.num_train_epochs = 2
    trainer.train(resume_from_checkpoint=True)
    assert only(project).checkpoints.step == [4, 8]
    trainer.train()
    assert len(project.experiments.list()) == 2


def test_h3_each_trial_of_a_search_is_an_experiment(project: Project) -> None:
    trainer = make_trainer([KeepsakeCallback(quiet=True)], num_train_epochs=1, model_init=lambda trial: make_model())
    best = trainer.hyperparameter_search(
        lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 0.001, 0.1)}, n_trials=2, direction="minimize"
    )
    assert best is not None
    experiments = project.experiments.list()
    assert [experiment.checkpoints.step for experiment in experiments] == [[4], [4]]
    assert len({experiment.params["trial"]["learning_rate"] for experiment in experiments}) == 2
    assert all(
        experiment.params["args"]["learning_rate"] == experiment.params["trial"]["learning_rate"] for experiment in experiments
    )
    assert all("model.safetensors" in files_of(experiment, 0) for experiment in experiments)
    assert [experiment.outcome for experiment in experiments] == ["finished"] * 2


class Dies(TrainerCallback):
    def __init__(self, error: BaseException) -> None:
        self._error = error

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 6:
            raise self._error


@pytest.mark.parametrize("error", [RuntimeError("diverged"), KeyboardInterrupt(), SystemExit(2)])
def test_h4_a_training_that_is_left_does_not_go_on_running(
    project: Project, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr("keepsake.recording.heartbeat.INTERVAL_S", 0.05)
    with pytest.raises(type(error)):
        train([KeepsakeCallback(quiet=True), Dies(error)])
    # The next one, of another callback, neither joins it nor keeps it alive.
    train([KeepsakeCallback(quiet=True)], epochs=1)
    while exits.live():
        pass
    for thread in threading.enumerate():
        if thread.name.startswith("keepsake"):
            thread.join()
    first, second = project.experiments.list()
    assert (first.outcome, first.checkpoints.step) == ("failed", [4])
    assert (second.outcome, second.checkpoints.step) == ("finished", [4])


def test_h5_a_search_for_a_batch_size_is_one_training(project: Project) -> None:
    class NoRoom(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.train_batch_size == 4:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    train([KeepsakeCallback(quiet=True), NoRoom()], epochs=1, auto_find_batch_size=True)
    experiment = only(project)
    assert len(experiment.checkpoints) == 1
    assert experiment.outcome == "finished"


def test_h8_what_is_no_number_is_left_out(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    class Odd(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
            metrics.update(
                eval_text="good", eval_none=None, eval_many=torch.ones(3), eval_half=torch.tensor(0.5, dtype=torch.bfloat16)
            )

    train([Odd(), KeepsakeCallback(quiet=True)], epochs=2)
    metrics = only(project).checkpoints[1].metrics
    assert metrics["eval_half"] == 0.5
    assert not {"eval_text", "eval_none", "eval_many"} & metrics.keys()
    assert capsys.readouterr().err.count('"eval_text" is no single number') == 1


def test_h9_evaluations_outside_of_a_training_are_none(project: Project) -> None:
    trainer = make_trainer([KeepsakeCallback(quiet=True)], num_train_epochs=1)
    trainer.evaluate()
    trainer.predict(Words())
    assert project.experiments.list() == []
    trainer.train()
    trainer.evaluate()
    trainer.predict(Words())
    assert only(project).checkpoints.step == [4]
    assert not only(project).is_running()


def test_h10_metrics_of_another_step_are_left_out(project: Project) -> None:
    options = {"logging_strategy": "steps", "logging_steps": 2, "eval_strategy": "steps", "eval_steps": 4}
    train([KeepsakeCallback(quiet=True)], epochs=3, save_strategy="steps", save_steps=3, **options)
    experiment = only(project)
    metrics = experiment.checkpoints.metrics
    assert experiment.checkpoints.step == [3, 6, 9, 12]
    assert [value is None for value in metrics["eval_loss"]] == [True, True, True, False]
    assert [value is None for value in metrics["loss"]] == [True, False, True, False]
    assert experiment.history().series("eval_loss")[0] == [4, 8, 12]


def test_h12_a_plain_module(project: Project) -> None:
    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(6, 2)

        def forward(self, input_ids: Any, labels: Any = None, **_: Any) -> dict[str, Any]:
            logits = self.layer(input_ids.float())
            return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}

    train([KeepsakeCallback(quiet=True)], epochs=1, model=Plain())
    assert only(project).params["num_parameters"] == 14
    assert len(only(project).checkpoints) == 1


def test_h13_as_a_class_and_by_its_name(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    train([KeepsakeCallback], epochs=1)
    register()
    train([], epochs=1, report_to="keepsake")
    assert [len(experiment.checkpoints) for experiment in project.experiments.list()] == [1, 1]


def test_h14_a_directory_is_taken_whatever_it_holds(project: Project) -> None:
    class Adds(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            adapter = Path(args.output_dir, f"checkpoint-{state.global_step}", "adapter")
            adapter.mkdir()
            (adapter / "adapter_model.safetensors").write_bytes(b"adapter")

    train([Adds(), KeepsakeCallback(quiet=True)], epochs=1, save_only_model=True)
    names = set(files_of(only(project), 0))
    assert {"model.safetensors", "adapter/adapter_model.safetensors"} <= names
    assert "optimizer.pt" not in names


def test_a9_the_workers_of_a_data_loader_neither_beat_nor_end_the_experiment(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keepsake.recording.heartbeat.INTERVAL_S", 0.05)
    running = []
    # In the second epoch the workers of the first one have ended.
    look = AtEpoch(lambda epoch: running.append(only(project).is_running()))
    train([KeepsakeCallback(quiet=True), look], epochs=2, dataloader_num_workers=2)
    assert running == [True, True]
    assert (only(project).outcome, only(project).record.resumed) == ("finished", [])


def test_several_evaluation_sets(project: Project) -> None:
    train([KeepsakeCallback(quiet=True)], epochs=1, eval_dataset={"a": Words(), "b": Words(8)}, metric_for_best_model="a_loss")
    metrics = only(project).checkpoints[0].metrics
    assert {"eval_a_loss", "eval_b_loss"} <= metrics.keys()
    assert only(project).primary_metric() == "eval_a_loss"


def test_a15_copies_work_also_in_the_middle(project: Project) -> None:
    copies = []
    callback = KeepsakeCallback(quiet=True)
    train([callback, AtEpoch(lambda epoch: copies.append(pickle.loads(pickle.dumps(callback))))], epochs=2)
    assert [copy.experiment for copy in copies] == [None, None]
    train([copies[1]], epochs=1)
    assert [len(experiment.checkpoints) for experiment in project.experiments.list()] == [2, 1]


@pytest.mark.parametrize("options", [{"save": "some"}, {"primary_metric": "loss"}, {"resume": "latest"}])
def test_nonsense_is_refused_before_the_training(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must (be|name)"):
        KeepsakeCallback(**options)


def test_without_transformers_the_install_line_is_named() -> None:
    code = "import sys; sys.modules['transformers'] = None; import keepsake.integrations.huggingface"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'pip install "keepsake[huggingface]"' in done.stderr


# --- processes ------------------------------------------------------------------------------------------------------

SLOW = """
    import os, time
    import torch
    from keepsake.integrations.huggingface import KeepsakeCallback
    from tests.integrations.training_huggingface import train

    if os.environ["RANK"] == "1":
        save = torch.save

        def slowly(content, path, *args, **kwargs):
            if "rng_state" in str(path):
                # Long enough for rank zero to be there first.
                time.sleep(1.0)
            save(content, path, *args, **kwargs)

        torch.save = slowly
    train([KeepsakeCallback(quiet=True)], epochs=2, ddp_backend="gloo")
    # Else its threads may abort the process at its end.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
"""


def test_h6_with_two_processes_rank_zero_records_what_both_have_written(project: Project, tmp_path: Path) -> None:
    path = project.directory / "train.py"
    path.write_text("\n".join(line[4:] for line in SLOW.splitlines()), encoding="utf-8")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0", "--standalone", str(path)]
    done = subprocess.run(launcher, capture_output=True, text=True, check=False, timeout=200, cwd=project.directory)
    assert done.returncode == 0, done.stderr[-3000:]
    experiment = only(project)
    assert experiment.checkpoints.step == [2, 4]
    assert all({"rng_state_0.pth", "rng_state_1.pth"} <= set(files_of(experiment, index)) for index in range(2))
    assert experiment.outcome == "finished"


JIT = """
    import os, signal
    from transformers import TrainerCallback
    from keepsake.integrations.huggingface import KeepsakeCallback
    from tests.integrations.training_huggingface import train
    import time

    class Preempted(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            if state.global_step >= 2:
                time.sleep(0.6)

    train([KeepsakeCallback(quiet=True), Preempted()], epochs=4, save_strategy="steps", save_steps=1000, enable_jit_checkpoint=True)
"""


if int(transformers.__version__.partition(".")[0]) >= 5:
    # Transformers 4 makes no such checkpoints.
    def test_h15_a_checkpoint_that_no_hook_tells_of_is_recorded_at_the_end(project: Project, script: Start) -> None:
        run = script(JIT)
        run.wait()
        saved = [int(path.name.removeprefix("checkpoint-")) for path in (project.directory / "out").glob("checkpoint-*")]
        assert len(saved) == 1, run.stderr
        assert only(project).checkpoints.step == saved
