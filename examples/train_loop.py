"""A plain PyTorch loop on scikit-learn's digits, recorded with two calls.

keepsake init -y
python train_loop.py --learning-rate 0.01
keepsake ls
"""

import argparse

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import keepsake


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    train_x, val_x, train_y, val_y = load_data(args.seed)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=args.learning_rate)

    with keepsake.init(path=".", params=args) as experiment:
        for epoch in range(args.epochs):
            train_loss = train_epoch(model, optimizer, train_x, train_y)
            val_loss, val_accuracy = evaluate(model, val_x, val_y)
            torch.save(model.state_dict(), "model.pth")
            experiment.checkpoint(
                path="model.pth",
                step=epoch,
                metrics={"train_loss": train_loss, "val_loss": val_loss, "val_accuracy": val_accuracy},
                primary_metric=("val_loss", "minimize"),
            )
            print(f"epoch {epoch}: train_loss {train_loss:.4f}, val_loss {val_loss:.4f}, val_accuracy {val_accuracy:.4f}")


def load_data(seed: int) -> list[torch.Tensor]:
    digits = load_digits()
    parts = train_test_split(digits.data / 16, digits.target, test_size=0.25, random_state=seed)
    return [torch.tensor(part, dtype=torch.long if part.ndim == 1 else torch.float32) for part in parts]


def train_epoch(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor) -> float:
    total = 0.0
    for batch in torch.randperm(len(x)).split(64):
        loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(batch)
    return total / len(x)


@torch.no_grad()
def evaluate(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logits = model(x)
    # Tensors may be passed as they are.
    return nn.functional.cross_entropy(logits, y), (logits.argmax(1) == y).float().mean()


if __name__ == "__main__":
    main()
