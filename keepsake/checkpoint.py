"""Checkpoint and CheckpointList: what people hold in their hands of a checkpoint's record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self, SupportsIndex, overload

from keepsake.display import text
from keepsake.display.page import Displayed
from keepsake.exceptions import DoesNotExist, KeepsakeError
from keepsake.framing import Framed
from keepsake.query.compare import SECTIONS
from keepsake.repository import layout
from keepsake.repository.json_values import is_comparable
from keepsake.repository.primary_metric import PrimaryMetric

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from keepsake.comparing import Difference
    from keepsake.display.page import Page
    from keepsake.display.plots import Along
    from keepsake.experiment import Experiment
    from keepsake.query.columns import Column
    from keepsake.repository.archive import ArchivedFile
    from keepsake.repository.primary_metric import Goal
    from keepsake.repository.records import ArchiveInfo, CheckpointRecord

__all__ = ["Checkpoint", "CheckpointList", "PrimaryMetric", "SavedPath"]


class Checkpoint(Displayed):
    """Metrics, and the files saved with them, at one step of an experiment.

    Made by `Experiment.checkpoint`, and found in `Experiment.checkpoints`.

    Args:
        record: What is recorded of it.
        experiment: The experiment that it belongs to.
    """

    def __init__(self, record: CheckpointRecord, experiment: Experiment) -> None:
        self.record = record
        self.experiment = experiment

    @property
    def id(self) -> str:
        """64 hexadecimal characters."""
        return self.record.id

    @property
    def created(self) -> datetime:
        """When it was made, in UTC."""
        return self.record.created

    @property
    def step(self) -> int:
        """The step that it was made at."""
        return self.record.step

    @property
    def path(self) -> SavedPath | None:
        """What was saved, relative to the project directory; None if no files were. Called with a file, it gives a local copy.

        Example:
            >>> import keepsake
            >>> best = keepsake.experiments.get("@production").best()  # doctest: +SKIP
            >>> best.path  # doctest: +SKIP
            'model.pt'
            >>> model = torch.load(best.path("model.pt"))  # doctest: +SKIP
        """
        return SavedPath(self.record.path, self) if self.record.path is not None else None

    @property
    def metrics(self) -> dict[str, Any]:
        """Values by name."""
        return self.record.metrics

    @property
    def primary_metric(self) -> PrimaryMetric | None:
        """The metric by which the best checkpoint is chosen, if it has a value here."""
        return self.record.primary_metric

    @property
    def archive(self) -> ArchiveInfo | None:
        """Size and digest of the stored files; None where there are none, or keepsake 0.4.2 wrote them."""
        return self.record.archive

    def short_id(self) -> str:
        """Return the first 7 characters of the ID."""
        return layout.short_id(self.id)

    def open(self, path: str | os.PathLike[str]) -> BinaryIO:
        """Open one saved file for reading.

        Args:
            path: Its path relative to the project directory, as it was saved.

        Returns:
            A readable, seekable binary stream.

        Raises:
            DoesNotExist: No such file was saved with this checkpoint.
            ReadError: The archive is missing or damaged.

        Example:
            >>> import keepsake
            >>> best = keepsake.experiments.get("4591273").best()  # doctest: +SKIP
            >>> weights = torch.load(best.open("model.pth"))  # doctest: +SKIP
        """
        self._require_files()
        return self.experiment.repository.archives.open_file(layout.checkpoint_archive_key(self.id), Path(path).as_posix())

    def directory(self) -> Path:
        """Return a local copy of the directory that was saved; where a file was saved, of the one that it lies in.

        It lies in the cache; see `SavedPath`, where the files are read-only.

        Returns:
            An absolute path.

        Raises:
            DoesNotExist: The checkpoint has no files.
            ReadError: The archive is missing or damaged.
            WriteError: The cache cannot be written.

        Example:
            >>> import keepsake
            >>> best = keepsake.experiments.get("@production").best()  # doctest: +SKIP
            >>> model = AutoModel.from_pretrained(best.directory())  # doctest: +SKIP
        """
        copy = self.local_copy(self.record.path or ".")
        return copy if copy.is_dir() else copy.parent

    def local_copy(self, path: str | os.PathLike[str]) -> Path:
        """Return a local copy of a saved file or directory; this is what `SavedPath` does when it is called."""
        from keepsake.checkout.cached import cached_path

        self._require_files()
        return cached_path(self.experiment.repository, self.record, path)

    def files(self) -> list[ArchivedFile]:
        """Return what was saved: paths, sizes and digests, from the archive's index alone where it has one.

        Raises:
            DoesNotExist: The checkpoint has no files.
            ReadError: The archive is missing or damaged.

        Example:
            >>> import keepsake
            >>> [file.path for file in keepsake.experiments.get("4591273").best().files()]  # doctest: +SKIP
            ['model.pth']
        """
        self._require_files()
        return self.experiment.repository.archives.files(layout.checkpoint_archive_key(self.id))

    def checkout(
        self, output_directory: str | os.PathLike[str], quiet: bool = False, *, path: str | os.PathLike[str] | None = None
    ) -> None:
        """Copy the saved files into a directory, over what is there.

        The experiment's code is not copied: that is what `Experiment.checkout` does.

        Args:
            output_directory: Where to; made if it does not exist.
            quiet: Do not say what was done.
            path: Only this file or directory.

        Raises:
            DoesNotExist: The checkpoint has no files, or not this one.
            ReadError: The archive is missing, damaged or unsafe.
        """
        from keepsake.checkout import checkout

        self._require_files()
        checkout(self.experiment, self, Path(output_directory), path=path, code=False, quiet=quiet)

    def diff(
        self,
        other: Experiment | Checkpoint | str | None = None,
        *,
        only: Collection[str] | str = SECTIONS,
        path: Sequence[str] | str = (),
    ) -> Difference:
        """Compare it with another one, as ``keepsake diff`` does.

        Args:
            other: An experiment or a checkpoint, or a reference to one such as ``"best"``; None is the working directory.
            only: Which of ``params``, ``metrics``, ``env``, ``code`` and ``files`` to compare; all if not given.
            path: Patterns of the files that are compared; all if not given.

        Returns:
            What differs, as data; printed it is what the command prints.

        Raises:
            DoesNotExist: The reference names nothing.
            ValueError: There is no such section, or both lie in different repositories.
            ReadError: What was saved cannot be read.

        Example:
            >>> import keepsake
            >>> print(keepsake.experiments.get("4591273").diff("eb96def"))  # doctest: +SKIP
        """
        from keepsake.comparing import difference

        return difference(self.experiment.project, self, other, only, path)

    def alias(self, name: str) -> None:
        """Give it an alias, under which it is found as ``@name``; another checkpoint that had it has it no more.

        Never raises where this process records the experiment.

        Args:
            name: Letters, digits and ``. _ - /``, a letter or a digit first; nothing that looks like the start of an ID.

        Raises:
            InvalidName: It cannot be an alias.
            DoesNotExist: The experiment was deleted.

        Example:
            >>> import keepsake
            >>> keepsake.experiments.get("4591273").best().alias("production")  # doctest: +SKIP
            >>> keepsake.experiments.find("@production")  # doctest: +SKIP
        """
        self.experiment.give_alias(name, self.id)

    def delete(self) -> None:
        """Delete the checkpoint: from the experiment's record, then its files."""
        self.experiment.flush()
        self.experiment.repository.delete_checkpoint(self.experiment.id, self.id)
        self.experiment.refresh()

    def _require_files(self) -> None:
        if not self.record.has_files:
            raise DoesNotExist(f"checkpoint {self.short_id()} has no files: it was made without path")
        self.experiment.wait_for_files(self.record)

    def _page(self) -> Page:
        from keepsake.display import notebook

        files: list[ArchivedFile] = []
        annotation, problem = None, ""
        try:
            annotation = self.experiment.summary
            # What is on its way is not waited for, and an archive without an index is not read from end to end.
            files = self.files() if self.archive is not None and self.archive.index_sha256 is not None else []
        except KeepsakeError as err:
            problem = err.message
        return notebook.checkpoint_page(self.experiment.record, self.record, files, annotation, problem)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Checkpoint) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        metrics = ", ".join(f"{text.safe(name)}={value!r}" for name, value in self.metrics.items())
        return f"<Checkpoint {self.short_id()} step {self.step}{': ' if metrics else ''}{metrics}>"


class SavedPath(str):
    """What was saved with a checkpoint, as a text; and the way to a local copy of it.

    Args:
        path: Relative to the project directory.
        checkpoint: The checkpoint.

    Example:
        >>> import keepsake
        >>> checkpoint = keepsake.experiments.get("@production").best()  # doctest: +SKIP
        >>> checkpoint.path, checkpoint.path("model.pt")  # doctest: +SKIP
        ('model.pt', PosixPath('/home/ana/.cache/keepsake/…/files/model.pt'))
    """

    _checkpoint: Checkpoint

    def __new__(cls, path: str, checkpoint: Checkpoint) -> Self:
        """Make the text."""
        new = super().__new__(cls, path)
        new._checkpoint = checkpoint
        return new

    def __call__(self, file: str | os.PathLike[str]) -> Path:
        """Return a local copy of a saved file or directory: fetched and checked once, and shared by all processes of this user.

        The copy lies in the cache and cannot be written to. It stays for as long as this process lives, and for an hour in any case; after
        that it may be removed where the cache grows beyond ``KEEPSAKE_CACHE_SIZE``, 10 GB if nothing is said.

        Args:
            file: Its path as it was saved, relative to the project directory.

        Returns:
            An absolute path.

        Raises:
            DoesNotExist: No such file was saved with this checkpoint.
            ReadError: The archive is missing or damaged.
            WriteError: The cache cannot be written.
            ConfigInvalid: ``KEEPSAKE_CACHE_SIZE`` is no size.
        """
        return self._checkpoint.local_copy(file)

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        """Leave the checkpoint behind: elsewhere it is a text."""
        return str, (str(self),)


class CheckpointList(Displayed, Framed, list[Checkpoint]):
    """Checkpoints, oldest first; a slice is a list of the same kind.

    Example:
        >>> import keepsake
        >>> losses = keepsake.experiments.get("4591273").checkpoints[-10:].metrics["val_loss"]  # doctest: +SKIP
    """

    @property
    def step(self) -> list[int]:
        """The step of each checkpoint."""
        return [checkpoint.step for checkpoint in self]

    @property
    def metrics(self) -> Mapping[str, list[Any]]:
        """Columns by metric: ``metrics["loss"]`` is one value for each checkpoint, None where it has no such metric."""
        return _Columns(self)

    def primary_metric(self) -> str:
        """Return the name of the primary metric that these checkpoints share.

        Raises:
            ValueError: There is none, or there are several.
        """
        names = {checkpoint.primary_metric.name for checkpoint in self if checkpoint.primary_metric is not None}
        if len(names) != 1:
            found = f"several: {', '.join(sorted(names))}" if names else "none"
            raise ValueError(f"no shared primary metric (there are {found})")
        return names.pop()

    def plot(
        self,
        metric: str | None = None,
        logy: bool = False,
        plot_only: bool = False,
        *,
        x: Along = "step",
        logx: bool = False,
        smooth: float = 0.0,
        ax: Any = None,
    ) -> Any:
        """Draw a metric of these checkpoints, one curve for each experiment that they belong to; see `Experiment.plot`.

        Args:
            metric: Its name; the primary metric that they share if not given.
            logy: Give its axis a logarithmic scale.
            plot_only: Draw the curves and nothing around them.
            x: What to draw them along: ``"step"``, ``"time"`` or ``"elapsed"``.
            logx: Give that axis a logarithmic scale.
            smooth: From 0 to below 1.
            ax: Axes of matplotlib to draw into; those of a new figure if not given.

        Returns:
            The axes.

        Raises:
            ValueError: No metric is given, and they share none; it has no numbers; another argument makes no sense.
            KeyError: No checkpoint has the metric.
            MissingDependency: matplotlib is not installed.

        Example:
            >>> import keepsake
            >>> keepsake.experiments.get("4591273").checkpoints[-10:].plot("val_loss")  # doctest: +SKIP
        """
        from keepsake.display.plots import Curve, plot_curves

        name = metric if metric is not None else self.primary_metric()
        points: dict[Experiment, list[tuple[int, datetime, Any]]] = {}
        for one in self:
            if name in one.metrics:
                points.setdefault(one.experiment, []).append((one.step, one.created, one.metrics[name]))
        if not points:
            raise KeyError(name)
        curves = [Curve.of(experiment.record, name, found, experiment.name) for experiment, found in points.items()]
        return plot_curves(curves, name, x=x, logx=logx, logy=logy, smooth=smooth, plot_only=plot_only, ax=ax)

    def _page(self) -> Page:
        from keepsake.display import notebook

        records = {checkpoint.experiment.id: checkpoint.experiment.record for checkpoint in self}
        return notebook.checkpoints_page(list(records.values()), [checkpoint.record for checkpoint in self])

    def best(self, metric: str | None = None, *, goal: Goal | None = None) -> Checkpoint | None:
        """Return the checkpoint with the best value of a metric; None if none has a number. NaN is never chosen; of equals the first is.

        Args:
            metric: Its name; the primary metric that they share if not given.
            goal: ``"minimize"`` or ``"maximize"``; what is recorded of this metric if not given.

        Raises:
            ValueError: No metric is given and they share none, or nothing says what is better.

        Example:
            >>> import keepsake
            >>> keepsake.experiments.get("4591273").checkpoints[-10:].best("val_acc", goal="maximize")  # doctest: +SKIP
        """
        from keepsake.query.best import goal_of

        if metric is None and goal is None and not any(checkpoint.primary_metric for checkpoint in self):
            return None
        name = metric if metric is not None else self.primary_metric()
        wanted = goal_of(name, goal, (checkpoint.primary_metric for checkpoint in self))
        candidates = [checkpoint for checkpoint in self if is_comparable(checkpoint.metrics.get(name))]
        choose = min if wanted == "minimize" else max
        return choose(candidates, key=lambda checkpoint: checkpoint.metrics[name], default=None)

    def _columns(self) -> dict[str, Column]:
        from keepsake.query.columns import checkpoint_columns

        groups = groupby(self, key=lambda checkpoint: checkpoint.experiment)
        return checkpoint_columns((experiment.summary, [one.record.to_json() for one in group]) for experiment, group in groups)

    @overload
    def __getitem__(self, index: SupportsIndex, /) -> Checkpoint: ...
    @overload
    def __getitem__(self, index: slice, /) -> CheckpointList: ...
    def __getitem__(self, index: SupportsIndex | slice, /) -> Checkpoint | CheckpointList:
        return CheckpointList(super().__getitem__(index)) if isinstance(index, slice) else super().__getitem__(index)


class _Columns(Mapping[str, list[Any]]):
    """The metrics of several checkpoints, by name."""

    def __init__(self, checkpoints: Iterable[Checkpoint]) -> None:
        self._rows = [checkpoint.metrics for checkpoint in checkpoints]

    def __getitem__(self, name: str) -> list[Any]:
        if not any(name in row for row in self._rows):
            raise KeyError(name)
        return [row.get(name) for row in self._rows]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for row in self._rows for name in row))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<metrics {', '.join(map(text.safe, self))}>"
