"""Version control for machine learning.

Public names are resolved when they are first used: ``import keepsake`` itself loads nothing, so that it costs nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing.TYPE_CHECKING without the import of typing; type checkers know the name
if TYPE_CHECKING:
    from typing import Any

    from keepsake.checkpoint import Checkpoint, CheckpointList, PrimaryMetric
    from keepsake.comparing import Difference
    from keepsake.experiment import Experiment
    from keepsake.experiment_list import ExperimentList
    from keepsake.history import History
    from keepsake.project import CheckpointCollection, ExperimentCollection, Project, init
    from keepsake.resuming import latest_checkpoint_path

    checkpoints: CheckpointCollection
    experiments: ExperimentCollection

__version__ = "1.0.0.dev0"

__all__ = [
    "Checkpoint",
    "CheckpointList",
    "Difference",
    "Experiment",
    "ExperimentList",
    "History",
    "PrimaryMetric",
    "Project",
    "__version__",
    "checkpoints",
    "experiments",
    "init",
    "latest_checkpoint_path",
]

_HOMES = {
    "Checkpoint": "keepsake.checkpoint",
    "CheckpointList": "keepsake.checkpoint",
    "Difference": "keepsake.comparing",
    "Experiment": "keepsake.experiment",
    "ExperimentList": "keepsake.experiment_list",
    "History": "keepsake.history",
    "PrimaryMetric": "keepsake.checkpoint",
    "Project": "keepsake.project",
    "init": "keepsake.project",
    "latest_checkpoint_path": "keepsake.resuming",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "experiments":
        value: Any = import_module("keepsake.project").ExperimentCollection()
    elif name == "checkpoints":
        value = import_module("keepsake.project").CheckpointCollection()
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'keepsake' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
