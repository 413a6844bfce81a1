"""Which process of a distributed job records: the one of rank zero."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

RANK_VARIABLES = (
    "RANK",  # torchrun, accelerate, most launchers
    "SLURM_PROCID",  # srun
    "OMPI_COMM_WORLD_RANK",  # Open MPI
    "PMIX_RANK",  # PMIx launchers
    "PMI_RANK",  # MPICH, Intel MPI
    "MV2_COMM_WORLD_RANK",  # MVAPICH
    "JSM_NAMESPACE_RANK",  # IBM's jsrun
)
"""Global ranks as launchers export them, the most specific first: the first that is set decides."""

LOCAL_RANK_VARIABLES = ("NODE_RANK", "LOCAL_RANK")
"""What launchers export that name no global rank (Lightning's own): any of them above zero means another rank."""


def other_rank(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return why this process must not record, such as ``RANK=3``, or None if it is the one that records.

    An initialised ``torch.distributed`` knows best; otherwise the variables of the launchers are asked. Nothing is imported.

    Args:
        environ: The environment variables.

    Example:
        >>> other_rank({"RANK": "3"}), other_rank({"RANK": "0", "LOCAL_RANK": "0"})
        ('RANK=3', None)
    """
    rank = _torch_rank()
    if rank is not None:
        return f"torch.distributed rank {rank}" if rank else None
    for name in RANK_VARIABLES:
        if environ.get(name, "").strip().isdigit():
            return f"{name}={environ[name].strip()}" if int(environ[name]) else None
    for name in LOCAL_RANK_VARIABLES:
        if environ.get(name, "").strip().isdigit() and int(environ[name]):
            return f"{name}={environ[name].strip()}"
    return None


def _torch_rank() -> int | None:
    distributed = sys.modules.get("torch.distributed")
    try:
        if distributed is not None and distributed.is_available() and distributed.is_initialized():
            return int(distributed.get_rank())
    except Exception:  # noqa: BLE001 - a half-imported or odd build of torch must not stop init()
        return None
    return None
