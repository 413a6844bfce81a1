"""Recording trainings of Lightning 2.x, ``lightning`` and ``pytorch_lightning`` alike: a callback, a logger, or both."""

from keepsake.integrations.lightning.callback import KeepsakeCallback
from keepsake.integrations.lightning.logger import KeepsakeLogger

__all__ = ["KeepsakeCallback", "KeepsakeLogger"]
