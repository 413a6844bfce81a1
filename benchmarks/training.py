"""How much a training slows down when it makes a checkpoint each second: a small convolutional network in PyTorch, on the CPU.

Run it with ``tox run -e bench -- training``. It needs torch.
"""

from __future__ import annotations

import functools
import shutil
import time
from typing import TYPE_CHECKING

import torch
from _measure import interleave, parser, report, workplace
from torch import nn

import keepsake

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    EachSecond = Callable[[nn.Module, int, float], None]

ALONE = "the loop alone"
SAVE = "torch.save"
BATCH = 64


def main() -> None:
    options = parser(__doc__, rounds=7)
    options.add_argument("--seconds", type=float, default=10, help="about how long one run takes")
    options.add_argument("--hidden", type=int, default=1600, help="width of the hidden layer; 1,600 makes 10 MB of weights")
    arguments = options.parse_args()
    with workplace(arguments.directory) as place:
        steps = round(arguments.seconds / train(network(arguments.hidden), 100, nothing) * 100)
        setup = (place, arguments.hidden, steps)
        contenders = {
            ALONE: functools.partial(run_without, *setup, saves=False),
            SAVE: functools.partial(run_without, *setup, saves=True),
            "torch.save, checkpoint()": functools.partial(run_with, *setup, move=False),
            "torch.save, checkpoint(move=True)": functools.partial(run_with, *setup, move=True),
        }
        figures = interleave(contenders, arguments.rounds)
        weights_mb = sum(weights.numel() * weights.element_size() for weights in network(arguments.hidden).parameters()) / 1e6
    report(f"{steps:,} steps, each second {weights_mb:.0f} MB of weights: the loop", figures["loop"], ALONE, SAVE)
    report("the same with the experiment's end, when all is stored", figures["ended"], ALONE, SAVE)


def run_without(place: Path, hidden: int, steps: int, *, saves: bool) -> dict[str, float]:
    """Train without keepsake; the framework's own save is what every way to keep weights needs."""

    def save(model: nn.Module, step: int, loss: float) -> None:
        torch.save(model.state_dict(), place / "model.pth")

    loop_s = train(network(hidden), steps, save if saves else nothing)
    return {"loop": loop_s, "ended": loop_s}


def run_with(place: Path, hidden: int, steps: int, *, move: bool) -> dict[str, float]:
    """Train with an experiment in a new repository."""
    repository = place / "repository"
    project = keepsake.Project(repository=f"file://{repository}", directory=place)
    experiment = project.experiments.create(quiet=True)

    def save(model: nn.Module, step: int, loss: float) -> None:
        torch.save(model.state_dict(), place / "model.pth")
        experiment.checkpoint("model.pth", step, {"loss": loss}, ("loss", "minimize"), move=move)

    loop_s = train(network(hidden), steps, save)
    start_s = time.perf_counter()
    experiment.stop()
    ended_s = time.perf_counter() - start_s
    if any(checkpoint.archive is None for checkpoint in project.experiments.get(experiment.id).checkpoints):
        raise RuntimeError("not all is stored")
    shutil.rmtree(repository)
    return {"loop": loop_s, "ended": loop_s + ended_s}


def network(hidden: int) -> nn.Module:
    torch.manual_seed(0)
    features = (nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    return nn.Sequential(*features, nn.Linear(8 * 14 * 14, hidden), nn.ReLU(), nn.Linear(hidden, 10))


def train(model: nn.Module, steps: int, each_second: EachSecond) -> float:
    """Train on noise for a number of steps, and return how many seconds that took."""
    images, labels = torch.randn(BATCH, 1, 28, 28), torch.randint(10, (BATCH,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    start_s = saved_s = time.perf_counter()
    for step in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        if time.perf_counter() - saved_s >= 1:
            saved_s = time.perf_counter()
            each_second(model, step, loss.item())
    return time.perf_counter() - start_s


def nothing(model: nn.Module, step: int, loss: float) -> None:
    """Save nothing."""


if __name__ == "__main__":
    main()
