"""A model that an example has recorded is loaded by another process that knows its ID alone, and predicts the same numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.examples.test_examples import EXAMPLES, run

TOLERANCE = 1e-6

FIND = """
    import json, sys
    import keepsake

    experiment = keepsake.experiments.get(sys.argv[1])
    best = experiment.best()
    experiment.checkout("code", code_only=True, quiet=True)  # the code that the model was trained with
    sys.path.insert(0, "code")
"""

LOOP = """
    import torch
    from train_loop import evaluate, load_data

    def measured(file):
        model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
        model.load_state_dict(torch.load(file, weights_only=True))
        _, val_x, _, val_y = load_data(experiment.params["seed"])
        return [number.item() for number in evaluate(model, val_x, val_y)]

    ways = [best.path("model.pth"), best.open("model.pth"), best.directory() / "model.pth"]
    print(json.dumps([measured(way) for way in ways]))
"""

LIGHTNING = """
    import torch
    from train_lightning import Digits, loaders

    def measured(file):
        model = Digits.load_from_checkpoint(file, map_location="cpu", weights_only=True).eval()
        [(x, y)] = loaders()[1]
        with torch.no_grad():
            logits = model.layers(x)
        return [torch.nn.functional.cross_entropy(logits, y).item(), (logits.argmax(1) == y).float().mean().item()]

    ways = [best.path("model.ckpt"), best.open("model.ckpt"), best.directory() / "model.ckpt"]
    print(json.dumps([measured(way) for way in ways]))
"""

KERAS = """
    import keras
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    def measured(file):
        model = keras.models.load_model(file, safe_mode=True)
        digits = load_digits()
        _, val_x, _, val_y = train_test_split(digits.data / 16, digits.target, test_size=0.25, random_state=0)
        return [float(number) for number in model.evaluate(val_x, val_y, batch_size=64, verbose=0)]

    # Keras reads no streams.
    with best.open("model.keras") as stream, open("copy.keras", "wb") as copy:
        copy.write(stream.read())
    ways = [best.path("model.keras"), "copy.keras", best.directory() / "model.keras"]
    print(json.dumps([measured(way) for way in ways]))
"""

HUGGING_FACE = """
    import safetensors.torch
    import torch
    from transformers import AutoModelForSequenceClassification
    from train_huggingface import Sentences

    weights = f"{best.path}/model.safetensors"

    def measured(model):
        rows = list(Sentences(200, seed=2))
        columns = {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}
        with torch.no_grad():
            found = model.eval()(**columns)
        return [found.loss.item(), (found.logits.argmax(-1) == columns["labels"]).float().mean().item()]

    def from_weights(tensors):
        model = AutoModelForSequenceClassification.from_pretrained(best.directory())
        model.load_state_dict({name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()})
        model.load_state_dict(tensors)
        return model

    print(json.dumps([
        measured(AutoModelForSequenceClassification.from_pretrained(best.directory())),
        measured(from_weights(safetensors.torch.load_file(best.path(weights)))),
        measured(from_weights(safetensors.torch.load(best.open(weights).read()))),
    ]))
"""


@pytest.mark.parametrize(
    ("example", "code", "metrics"),
    [
        pytest.param("train_loop.py", LOOP, ("val_loss", "val_accuracy"), id="loop"),
        pytest.param("train_lightning.py", LIGHTNING, ("val_loss", "val_accuracy"), id="lightning"),
        pytest.param("train_keras.py", KERAS, ("val_loss", "val_accuracy"), id="keras"),
        pytest.param("train_huggingface.py", HUGGING_FACE, ("eval_loss", "eval_accuracy"), id="huggingface"),
    ],
)
def test_another_process_predicts_the_same_numbers(example: str, code: str, metrics: tuple[str, str], tmp_path: Path) -> None:
    training, elsewhere = tmp_path / "training", tmp_path / "elsewhere"
    training.mkdir()
    elsewhere.mkdir()
    (training / example).write_text((EXAMPLES / example).read_text(encoding="utf-8"), encoding="utf-8")
    run("-m", "keepsake", "init", "--yes", cwd=training)
    run(example, "--epochs" if example != "train_lightning.py" else "--max-epochs", "3", cwd=training)
    [experiment] = json.loads(run("-m", "keepsake", "ls", "--json", cwd=training))
    recorded = [experiment["best_checkpoint"]["metrics"][name] for name in metrics]

    reader = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FIND + code), experiment["id"]],
        cwd=elsewhere,
        env={**os.environ, "KEEPSAKE_REPOSITORY": f"file://{training}/.keepsake", "KEEPSAKE_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert reader.returncode == 0, reader.stderr
    ways = json.loads(reader.stdout.splitlines()[-1])
    assert len(ways) == 3
    # Whatever way the weights came, they are the same; and they are the ones that were measured when they were recorded.
    assert ways[0] == ways[1] == ways[2]
    assert ways[0] == pytest.approx(recorded, abs=TOLERANCE)
