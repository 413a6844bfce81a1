"""The callback for Keras 3 with any backend: TensorFlow, JAX or PyTorch. What it does stands in ``_keras.py``."""

from __future__ import annotations

from keepsake.exceptions import MissingDependency
from keepsake.integrations._keras import KerasCallback

try:
    from keras.callbacks import Callback
except ModuleNotFoundError as _err:
    if _err.name not in ("keras", "keras.callbacks"):
        # Keras is there, and lacks its backend, which it says better.
        raise
    raise MissingDependency(
        "keepsake.integrations.keras needs Keras 3, which is not installed", hint='pip install "keepsake[keras]"'
    ) from _err

__all__ = ["KeepsakeCallback"]


class KeepsakeCallback(KerasCallback, Callback):  # type: ignore[misc]
    """Records a Keras training: code, params, and at the end of each epoch its metrics and the model.

    The chief records; the other processes of a distributed training only take part in saving. A model that is trained further with
    the same callback is the same experiment.

    Args:
        filepath: Name that the model is recorded under, which ends with ``.keras`` (or the older ``.h5``, ``.hdf5``), relative to the
            project directory; an absolute one, and one that leaves that directory, is recorded under its base name. May hold
            ``{epoch}`` and names of metrics. Nothing is written there. None records metrics only.
        params: Hyperparameters, of any type that `keepsake.init` takes; they outweigh what Keras knows: the optimizer's configuration
            (``optimizer``), the loss and the metrics by their names, the size of the model and how long it trains (``fit``).
        primary_metric: Name and goal of the metric to choose the best checkpoint by, such as ``("val_loss", "minimize")``.
        save_freq: ``"epoch"``, or a number of batches, each time after which the model is recorded. Where they end an epoch, with all
            metrics of the epoch.
        save_weights_only: Record the weights alone; ``filepath`` then ends with ``.weights.h5``.
        log_freq: ``"epoch"``, or a number of batches after each of which the running metrics become a point of the history.
        monitor: Keras's own way to say the primary metric's name, which ``primary_metric`` outweighs.
        mode: ``"min"``, ``"max"``, or ``"auto"`` to tell it from the name: more is better of accuracies, areas under
            curves, precision, recall and their like.
        save_best_only: Record the model only where the primary metric (``val_loss`` if none is given) is better than ever in this
            experiment. The metrics of the other epochs are points of the history.
        path: What of the project is saved as code; None for nothing.
        experiment: An experiment of yours to record into; it is not ended. None makes one at the start of the training.
        resume: An experiment to go on with, as for `keepsake.init`.
        quiet: Say nothing at the start and the end.

    Raises:
        ValueError: An argument makes no sense.

    Example:
        >>> from keepsake.integrations.keras import KeepsakeCallback
        >>> model.fit(x, y, callbacks=[KeepsakeCallback(primary_metric=("val_loss", "minimize"))])  # doctest: +SKIP
    """

    package = "keras"
    model_suffixes = (".keras", ".h5", ".hdf5")
