"""The main job, from end to end: two trainings are recorded, listed, shown, compared, and the best weights are used again.

``tox run -e demo`` runs it. Everything happens in a temporary directory, with the real command line.
"""

import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

import keepsake

EXAMPLE = Path(__file__).parent / "train_lightning.py"
TOLERANCE = 1e-6


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="keepsake-demo-") as directory:
        home = Path(directory)
        shutil.copy(EXAMPLE, home)
        run("keepsake init --yes", home)
        run("python train_lightning.py --learning-rate 0.01", home)
        run("python train_lightning.py --learning-rate 0.0003", home)
        run("keepsake ls", home)

        experiments = keepsake.Project(directory=home).experiments.list()
        best = min(experiments, key=lambda experiment: experiment.best().metrics["val_loss"])
        other = next(experiment for experiment in experiments if experiment != best)
        run(f"keepsake show {best.short_id()}", home)
        run(f"keepsake diff {other.short_id()} {best.short_id()}", home)
        run(f"keepsake checkout {best.short_id()} --output-directory best", home)
        run("ls best", home)
        compare(best.best(), home / "best")


def run(line: str, directory: Path) -> None:
    """Print a command as if it were typed, and run it."""
    print(f"\n$ {line}", flush=True)
    words = shlex.split(line)
    program = {"keepsake": [sys.executable, "-m", "keepsake"], "python": [sys.executable]}.get(words[0], words[:1])
    # One stream, so that the lines stand in the order in which they were printed.
    subprocess.run([*program, *words[1:]], cwd=directory, check=True, stderr=subprocess.STDOUT)


def compare(checkpoint: keepsake.Checkpoint, directory: Path) -> None:
    """Load the weights that were checked out, and measure again what was recorded with them."""
    sys.path.insert(0, str(directory))
    import train_lightning

    model = train_lightning.Digits.load_from_checkpoint(directory / "model.ckpt", map_location="cpu").eval()
    _, loader = train_lightning.loaders()
    [(x, y)] = loader
    with torch.no_grad():
        measured = torch.nn.functional.cross_entropy(model.layers(x), y).item()
    recorded = checkpoint.metrics["val_loss"]
    print(f"\nval_loss of the weights in best/model.ckpt: recorded {recorded:.8f}, measured again {measured:.8f}")
    if abs(measured - recorded) > TOLERANCE:
        sys.exit(f"they differ by more than {TOLERANCE}")
    print("The checked-out weights are the ones that were recorded.")


if __name__ == "__main__":
    main()
