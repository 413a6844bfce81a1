"""The old import path of the Lightning callback."""

from keepsake.integrations.lightning import KeepsakeCallback

__all__ = ["KeepsakeCallback"]
