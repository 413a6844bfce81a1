"""`import keepsake` costs nothing, and its public names are the documented ones."""

from __future__ import annotations

import subprocess
import sys

import pytest

import keepsake

HEAVY = {
    "boto3",
    "botocore",
    "click",
    "google",
    "isal",
    "jax",
    "keras",
    "lightning",
    "matplotlib",
    "numpy",
    "pandas",
    "pathspec",
    "polars",
    "pytorch_lightning",
    "sqlite3",
    "tensorflow",
    "torch",
    "transformers",
    "yaml",
}


def loaded_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()} | set(done.stdout.split())


def test_import_keepsake_loads_nothing() -> None:
    loaded = loaded_after("import keepsake")
    assert not loaded & HEAVY
    assert {name for name in loaded if name.startswith("keepsake")} == {"keepsake"}
    # What starts Python's own heavier parts is not needed either.
    assert not loaded & {"typing", "dataclasses", "logging", "json", "inspect"} - loaded_after("pass")


def test_every_public_name_resolves_and_is_listed() -> None:
    assert dir(keepsake) == sorted(keepsake.__all__)
    for name in keepsake.__all__:
        assert getattr(keepsake, name) is getattr(keepsake, name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trial'"):
        keepsake.trial  # noqa: B018


def test_the_originals_import_paths_work() -> None:
    from keepsake.checkpoint import Checkpoint, CheckpointList, PrimaryMetric
    from keepsake.exceptions import ConfigNotFound, DoesNotExist, ReadError, WriteError
    from keepsake.experiment import Experiment, ExperimentList
    from keepsake.project import Project, init

    assert keepsake.init is init
    assert keepsake.Project is Project
    assert Experiment is keepsake.Experiment
    assert {Checkpoint, CheckpointList, PrimaryMetric, ExperimentList}
    assert {ConfigNotFound, DoesNotExist, ReadError, WriteError}


@pytest.mark.parametrize(
    ("module", "framework", "hint"),
    [
        ("keepsake.integrations.lightning", "lightning", 'pip install "keepsake[lightning]"'),
        ("keepsake.integrations.keras", "keras", 'pip install "keepsake[keras]"'),
        ("keepsake.integrations.tf_keras", "tf_keras", "pip install keepsake tf_keras"),
        ("keepsake.integrations.huggingface", "transformers", 'pip install "keepsake[huggingface]"'),
        ("keepsake.pl_callback", "lightning", 'pip install "keepsake[lightning]"'),
        ("keepsake.keras_callback", "keras", 'pip install "keepsake[keras]"'),
    ],
)
def test_an_integration_without_its_framework_names_the_install_line(module: str, framework: str, hint: str) -> None:
    absent = ("pytorch_lightning", framework)
    code = f"import sys; sys.modules.update(dict.fromkeys({absent!r})); import {module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-2:]
    assert last[0].startswith(f"keepsake.exceptions.MissingDependency: keepsake.integrations.{module.rpartition('.')[2]}"[:60])
    assert last[1] == f"hint: {hint}"
