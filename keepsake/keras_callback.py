"""The old import path of the Keras callback."""

from keepsake.integrations.keras import KeepsakeCallback

__all__ = ["KeepsakeCallback"]
