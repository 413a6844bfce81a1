"""Lightning on scikit-learn's digits, recorded with one callback.

keepsake init -y
python train_lightning.py --learning-rate 0.01
keepsake ls
"""

import argparse
import logging
import warnings

import lightning
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from keepsake.integrations.lightning import KeepsakeCallback


class Digits(lightning.LightningModule):
    def __init__(self, learning_rate: float = 0.01, hidden_dim: int = 32) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layers = nn.Sequential(nn.Linear(64, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, 10))

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        x, y = batch
        loss = nn.functional.cross_entropy(self.layers(x), y)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        x, y = batch
        logits = self.layers(x)
        self.log("val_loss", nn.functional.cross_entropy(logits, y))
        self.log("val_accuracy", (logits.argmax(1) == y).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.hparams.learning_rate)


def loaders(seed: int = 0) -> tuple[DataLoader, DataLoader]:
    digits = load_digits()
    parts = train_test_split(digits.data / 16, digits.target, test_size=0.25, random_state=seed)
    train_x, val_x, train_y, val_y = (torch.tensor(part, dtype=torch.long if part.ndim == 1 else torch.float32) for part in parts)
    val = DataLoader(TensorDataset(val_x, val_y), batch_size=len(val_x))
    return DataLoader(TensorDataset(train_x, train_y), batch_size=64, shuffle=True), val


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--max-epochs", type=int, default=5)
    args = parser.parse_args()

    warnings.filterwarnings("ignore", module=r"lightning\..*")  # about worker counts, and of its own making
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    lightning.seed_everything(0, verbose=False)
    trainer = lightning.Trainer(
        max_epochs=args.max_epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[KeepsakeCallback(primary_metric=("val_loss", "minimize"))],
    )
    trainer.fit(Digits(learning_rate=args.learning_rate), *loaders())


if __name__ == "__main__":
    main()
