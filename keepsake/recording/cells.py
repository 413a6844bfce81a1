"""Experiments that the cells of a notebook begin.

A notebook has no end: a cell is run again, and nobody has said that the experiment of the time before is over. So the next one that a
cell begins ends it. How it ended is how the last cell did that recorded something of it: a person who mends a training that has failed
and runs it again has not finished the first one.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from keepsake import messages
from keepsake.repository import layout

if TYPE_CHECKING:
    from keepsake.repository.records import ExperimentRecord
    from keepsake.repository.status import Outcome


class Recorded(Protocol):
    """Who records an experiment."""

    record: ExperimentRecord

    calls: int
    """How often something was recorded."""

    @property
    def is_live(self) -> bool:
        """Whether it has not ended."""
        ...

    def finish(self, outcome: Outcome, error: BaseException | str | None = None) -> None:
        """End it."""
        ...


@dataclass
class _Begun:
    """An experiment that a cell has begun.

    Args:
        recorder: Who records it.
        cell: Number of the cell.
        calls: What had been recorded of it when a cell ended last.
        error: What ended the last cell that recorded something of it.
    """

    recorder: Recorded
    cell: int
    calls: int = -1
    error: BaseException | None = None


_begun: list[_Begun] = []
_cell = 0
_watched: Any = None


def begin(recorder: Recorded, *, quiet: bool) -> None:
    """End what earlier cells have begun, because this one begins another; outside of a notebook do nothing.

    What the same cell has begun goes on: whoever needs two at once writes them there.

    Args:
        recorder: Who records the new one.
        quiet: Do not say which ones end.
    """
    shell = _shell()
    if shell is None:
        return
    _watch(shell)
    earlier = [one for one in _begun if one.recorder is not recorder and one.recorder.is_live]
    for one in [one for one in earlier if one.cell != _cell]:
        if not quiet:
            new, old = layout.short_id(recorder.record.id), layout.short_id(one.recorder.record.id)
            messages.info(f"experiment {old} ends here, because this notebook goes on with {new}")
        one.recorder.finish(*_ending(one.error))
    _begun[:] = [*(one for one in earlier if one.recorder.is_live), _Begun(recorder, _cell)]


def ending_of(recorder: object) -> tuple[Outcome, BaseException | None]:
    """Return how an experiment ends that nobody has ended before its process does."""
    return _ending(next((one.error for one in _begun if one.recorder is recorder), None))


def _ending(error: BaseException | None) -> tuple[Outcome, BaseException | None]:
    if error is None:
        return "finished", None
    return ("interrupted" if isinstance(error, KeyboardInterrupt) else "failed"), error


def _shell() -> Any:
    """Return what runs the cells of this kernel, None where there is no kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    return shell if hasattr(shell, "kernel") else None


def _watch(shell: Any) -> None:
    global _watched
    if _watched is not shell:
        shell.events.register("post_run_cell", _after_cell)
        _watched = shell


def _after_cell(result: Any) -> None:
    global _cell
    _cell += 1
    error = result.error_before_exec or result.error_in_exec
    for one in _begun:
        if one.calls != one.recorder.calls:
            one.calls, one.error = one.recorder.calls, error
