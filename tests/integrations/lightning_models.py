"""Small Lightning modules for either namespace. Each keeps what it logged, as the truth to compare records with."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset


def loader(samples: int = 32, batch_size: int = 8) -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, 4, generator=generator)
    return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=batch_size)


def make_module(pl: ModuleType, **options: Any) -> Any:
    """Return a regression module of a namespace.

    Options: fail_at (a global step to raise at), error (what to raise), validates (whether it has a validation step), optimizers
    (how many there are; with more than one, each steps in each batch), sync_dist (whether what is logged is averaged over the ranks),
    hparams (what its constructor is given).
    """

    optimizers = options.get("optimizers", 1)
    sync_dist = options.get("sync_dist", False)

    class Regression(pl.LightningModule):
        def __init__(self, lr: float = 0.05, units: int = 1) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.automatic_optimization = optimizers == 1
            self.layer = torch.nn.Linear(4, units)
            self.train_losses: list[float] = []
            self.val_losses: list[float] = []
            self.truth: list[dict[str, float]] = []  # one entry for each epoch

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if self.global_step == options.get("fail_at", -1):
                raise options["error"]
            x, y = batch
            loss = torch.nn.functional.mse_loss(self.layer(x), y)
            self.train_losses.append(loss.item())
            self.log("train_loss", loss, on_step=False, on_epoch=True, sync_dist=sync_dist)
            if not self.automatic_optimization:
                self.manual_backward(loss)
                for optimizer in self.optimizers():
                    optimizer.step()
            return loss

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            x, y = batch
            loss = torch.nn.functional.mse_loss(self.layer(x), y)
            if not self.trainer.sanity_checking:
                self.val_losses.append(loss.item())
            self.log("val_loss", loss, sync_dist=sync_dist)
            self.log("half", loss.to(torch.bfloat16))

        def on_train_epoch_end(self) -> None:
            # The last thing that an epoch logs, after all plain callbacks have run.
            late = 100.0 + self.current_epoch
            self.log("late", late, sync_dist=sync_dist)
            truth = {"epoch": self.current_epoch, "late": late, "train_loss": mean(self.train_losses)}
            if self.val_losses:
                truth["val_loss"] = mean(self.val_losses)
            self.truth.append(truth)
            self.train_losses, self.val_losses = [], []

        def configure_optimizers(self) -> Any:
            made = [torch.optim.SGD(self.parameters(), lr=self.hparams.lr) for _ in range(optimizers)]
            return made[0] if optimizers == 1 else made

    if not options.get("validates", True):
        del Regression.validation_step
    return Regression(**options.get("hparams", {}))


def loss_of(state_dict: dict[str, torch.Tensor]) -> float:
    """Return the validation loss of saved weights."""
    x, y = loader().dataset[:]
    return float(torch.nn.functional.mse_loss(x @ state_dict["layer.weight"].T + state_dict["layer.bias"], y))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)
