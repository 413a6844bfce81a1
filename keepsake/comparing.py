"""Comparing experiments and checkpoints: what `keepsake diff` shows, as data that can be printed."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from keepsake.query.compare import SECTIONS, Comparison, Side, compare
from keepsake.query.names import shown_checkpoint

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from keepsake.checkpoint import Checkpoint
    from keepsake.experiment import Experiment
    from keepsake.project import Project
    from keepsake.query.compare import MetricPair, Pair
    from keepsake.query.saved import TreeComparison

__all__ = ["Difference"]


class Difference:
    """What differs between two experiments, checkpoints, or one of them and the working directory; printed as ``keepsake diff`` prints it.

    A section is None where it was not asked for, or where a side cannot have it. Made by `Experiment.diff` and `Checkpoint.diff`.

    Args:
        comparison: What was compared.
        text: The same for people.

    Example:
        >>> import keepsake
        >>> difference = keepsake.experiments.get("4591273").diff("best")  # doctest: +SKIP
        >>> print(difference)  # doctest: +SKIP
        >>> [pair.name for pair in difference.params if pair.differs]  # doctest: +SKIP
        ['lr']
    """

    def __init__(self, comparison: Comparison, text: str) -> None:
        self.comparison = comparison
        self._text = text

    @property
    def params(self) -> list[Pair] | None:
        """All params that either side has: ``name``, ``left``, ``right``, ``differs``."""
        return self.comparison.params

    @property
    def metrics(self) -> list[MetricPair] | None:
        """All metrics that either side has, the primary one first, with ``delta`` and ``better`` in addition."""
        return self.comparison.metrics

    @property
    def environment(self) -> list[Pair] | None:
        """Versions of Python and of packages, the system and the GPUs."""
        return self.comparison.environment

    @property
    def code(self) -> TreeComparison | None:
        """The files that were saved when the experiments began."""
        return self.comparison.code

    @property
    def files(self) -> TreeComparison | None:
        """The files of the checkpoints."""
        return self.comparison.files

    @property
    def differs(self) -> bool:
        """Whether anything differs of what was compared."""
        return self.comparison.differs

    def __str__(self) -> str:
        return self._text

    __repr__ = __str__


def side_of(one: Experiment | Checkpoint | None) -> Side:
    """Return what is compared of something: of an experiment its best checkpoint, else its latest; None is the working directory."""
    if one is None:
        return Side(None)
    experiment, checkpoint = parts_of(one)
    experiment.flush()
    return Side(experiment.record, checkpoint.record if checkpoint is not None else shown_checkpoint(experiment.record))


def parts_of(one: Experiment | Checkpoint) -> tuple[Experiment, Checkpoint | None]:
    """Return the experiment, and the checkpoint where it is one."""
    from keepsake.checkpoint import Checkpoint

    return (one.experiment, one) if isinstance(one, Checkpoint) else (one, None)


def difference(
    project: Project,
    left: Experiment | Checkpoint,
    right: Experiment | Checkpoint | str | None,
    sections: Collection[str] | str,
    globs: Sequence[str] | str = (),
) -> Difference:
    """Compare two; see `Experiment.diff`."""
    from keepsake.display.comparison import comparison_lines
    from keepsake.display.tables import View
    from keepsake.query.saved import SavedFiles
    from keepsake.repository.json_values import utc_now

    wanted = [sections] if isinstance(sections, str) else list(sections)
    unknown = [section for section in wanted if section not in SECTIONS]
    if unknown:
        raise ValueError(f"no section {unknown[0]!r} to compare, there are {', '.join(SECTIONS)}")
    if isinstance(right, str):
        experiment, checkpoint = project.experiments.find(right)
        right = checkpoint or experiment
    elif right is not None and parts_of(right)[0].repository.storage.url != project.repository_at_hand().storage.url:
        raise ValueError("both must lie in one repository; keepsake pull copies experiments from another one")
    with ExitStack() as stack:
        patterns = [globs] if isinstance(globs, str) else list(globs)
        saved = SavedFiles(project.repository_at_hand(), project.directory, stack, patterns)
        comparison = compare(side_of(left), side_of(right), wanted, saved)
        # Here, because files are read for what they have no digests of, and are closed afterwards.
        view = View(now=utc_now(), short=project.index().short_length(), width=TEXT_WIDTH)
        return Difference(comparison, "\n".join(comparison_lines(comparison, view)))


TEXT_WIDTH = 120
"""How many columns the text takes at most; a notebook has about as many."""
