"""The callback for tf_keras, which is Keras 2. What it does stands in ``_keras.py``."""

from __future__ import annotations

from keepsake.exceptions import MissingDependency
from keepsake.integrations._keras import KerasCallback

try:
    from tf_keras.callbacks import Callback
except ModuleNotFoundError as _err:
    if _err.name not in ("tf_keras", "tf_keras.callbacks"):
        # It is there, and lacks TensorFlow, which it says better.
        raise
    raise MissingDependency(
        "keepsake.integrations.tf_keras needs Keras 2, which is not installed", hint="pip install keepsake tf_keras"
    ) from _err

__all__ = ["KeepsakeCallback"]


class KeepsakeCallback(KerasCallback, Callback):  # type: ignore[misc]
    """Records a training of Keras 2 as `keepsake.integrations.keras.KeepsakeCallback` does one of Keras 3, with the same arguments.

    A ``filepath`` may end with anything here; without a suffix that Keras knows it is a directory in TensorFlow's own format.

    Example:
        >>> from keepsake.integrations.tf_keras import KeepsakeCallback
        >>> model.fit(x, y, callbacks=[KeepsakeCallback("saved_model")])  # doctest: +SKIP
    """

    package = "tf_keras"
