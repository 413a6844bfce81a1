"""A small training with the Trainer of transformers, the same each time, for the contract of all integrations."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

from keepsake.integrations.huggingface import KeepsakeCallback
from tests.integrations.ports import torchrun_environment

# The ranks have directories of their own in that test, so rank zero must not wait for the files of the other.
DISTRIBUTED: dict[str, Any] = {"ddp_backend": "gloo", "save_only_model": True}
METRIC = ("eval_loss", "minimize")


class Words(Dataset):
    """Random words, and whether the first one is of the first half of the vocabulary."""

    def __init__(self, size: int = 16) -> None:
        self.words = torch.randint(0, 20, (size, 6), generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, index: int) -> dict[str, Any]:
        words = self.words[index]
        return {"input_ids": words, "attention_mask": torch.ones_like(words), "labels": int(words[0] < 10)}


def make_callback(**options: Any) -> KeepsakeCallback:
    return KeepsakeCallback(**{"primary_metric": METRIC, "quiet": True, **options})


def make_model() -> Any:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=8,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return BertForSequenceClassification(config)


def arguments(directory: Path | str, **options: Any) -> TrainingArguments:
    given = {
        "output_dir": str(directory),
        "num_train_epochs": 3,
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 16,
        "learning_rate": 0.01,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "logging_strategy": "epoch",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        **options,
    }
    known = inspect.signature(TrainingArguments).parameters
    return TrainingArguments(**{name: value for name, value in given.items() if name in known})


class AtEpoch(TrainerCallback):
    def __init__(self, call: Callable[[int], None]) -> None:
        self._call = call

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._call(round(state.epoch))


def make_trainer(callbacks: list[Any], directory: Path | str = "out", **options: Any) -> Trainer:
    from transformers import PrinterCallback

    kind = options.pop("trainer", Trainer)
    more = {name: options.pop(name) for name in ("compute_metrics", "model_init") if name in options}
    evaluated = options.pop("eval_dataset", Words())
    model = None if "model_init" in more else options.pop("model", None) or make_model()
    made = kind(
        model, arguments(directory, **options), train_dataset=Words(), eval_dataset=evaluated, callbacks=callbacks, **more
    )
    made.remove_callback(PrinterCallback)
    return made


def train(
    callbacks: list[Any],
    *,
    epochs: int = 3,
    at_epoch: Callable[[int], None] | None = None,
    resume_from: Path | None = None,
    directory: Path | None = None,
    **options: Any,
) -> Any:
    further = [AtEpoch(at_epoch)] if at_epoch is not None else []
    trainer = make_trainer(
        [*callbacks, *further], directory or "out", num_train_epochs=epochs, lr_scheduler_type="constant", **options
    )
    trainer.train(resume_from_checkpoint=str(resume_from) if resume_from is not None else None)
    return trainer


def evaluate(path: Path) -> float:
    model = BertForSequenceClassification.from_pretrained(path)
    return float(make_trainer([], "elsewhere", model=model).evaluate()["eval_loss"])


def picklable(trainer: Any) -> Any:
    return trainer.callback_handler.callbacks


def rank_environment(rank: int, ports: list[int]) -> dict[str, str]:
    return torchrun_environment(rank, ports[0])
