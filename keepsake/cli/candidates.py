"""Which words may come next on a command line that somebody is typing.

Only words that mean the same to every shell, whatever it does with them, are offered: what others have recorded in a shared bucket
must not be able to run anything.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import click

from keepsake.cli import ALIASES, COMMANDS, cli
from keepsake.repository import layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from keepsake.query.known import Known
    from keepsake.repository.summary import CheckpointRow, Summary

_INERT = re.compile(r"[\w@%+,./:=^-][\w@%+,./:=^~-]*")
"""Words without anything that a shell takes for more."""

_LAST_NAME = re.compile(r"[\w./-]*\Z")
"""The name at the end of a filter."""


class Candidate(NamedTuple):
    """A word that may come next.

    Args:
        word: The word.
        meaning: What it is, for people; "" for nothing.
    """

    word: str
    meaning: str = ""


class Candidates(NamedTuple):
    """What may come next.

    Args:
        kind: ``words``, or what the shell itself finds: ``directories`` or ``files``.
        words: The words.
    """

    kind: Literal["words", "directories", "files"]
    words: Sequence[Candidate] = ()


Source: TypeAlias = "Callable[[Typed], Iterable[Candidate] | Candidates]"
"""Returns what may come next; not all of it needs to fit what has been typed."""


class Typed(NamedTuple):
    """What has been typed.

    Args:
        word: The word that is being typed, as far as it goes.
        before: The arguments of the command before it, without options and their values.
        known: Returns what is known of the repository that is meant.
        directory: The project directory, if one is named.
    """

    word: str
    before: Sequence[str]
    known: Callable[[], Known | None]
    directory: str | None = None


def candidates(words: Sequence[str]) -> Candidates:
    """Return what may come next.

    Args:
        words: The words behind ``keepsake``; the last one is being typed, and may be empty.

    Example:
        >>> [candidate.word for candidate in candidates(["sh"]).words]
        ['show']
    """
    *before, word = words or [""]
    line = _Line()
    for one in before:
        line.take(one)
    found = line.source(word)
    if isinstance(found, Candidates):
        return found
    fitting: dict[str, Candidate] = {}
    for candidate in found:
        if candidate.word.startswith(word) and _is_inert(candidate.word, word) and (word or not candidate.word.startswith("-")):
            fitting.setdefault(candidate.word, candidate)
    return Candidates("words", list(fitting.values()))


def _is_inert(candidate: str, word: str) -> bool:
    # What is there already has been typed by the person at the keyboard.
    added = candidate[len(word) :]
    return not added or _INERT.fullmatch(candidate if not word else f"x{added}") is not None


class _Line:
    """A command line, word by word."""

    def __init__(self) -> None:
        self._command: click.Command = cli
        self._name = ""
        self._pending: click.Option | None = None
        self._only_arguments = False
        self._arguments: list[str] = []
        self._said: dict[str, str] = {}

    def take(self, word: str) -> None:
        """Take a word that is complete."""
        if self._pending is not None:
            self._say(self._pending, word)
            self._pending = None
        elif self._only_arguments or not word.startswith("-") or word == "-":
            self._take_argument(word)
        elif word == "--":
            self._only_arguments = True
        else:
            flag, has_value, value = word.partition("=")
            option = self._options().get(flag)
            if option is not None and not option.is_flag:
                if has_value:
                    self._say(option, value)
                else:
                    self._pending = option

    def _take_argument(self, word: str) -> None:
        if self._name:
            self._arguments.append(word)
            return
        command = cli.get_command(None, word)
        if command is not None:
            self._command, self._name = command, ALIASES.get(word, word)

    def _say(self, option: click.Option, value: str) -> None:
        self._said[option.name or ""] = value

    def _options(self) -> dict[str, click.Option]:
        parameters = [*cli.params, *self._command.params]
        return {flag: one for one in parameters if isinstance(one, click.Option) for flag in one.opts}

    def source(self, word: str) -> Iterable[Candidate] | Candidates:
        """Return what may come next; not all of it needs to fit what has been typed."""
        typed = Typed(word, self._arguments, self._known, self._said.get("project_directory"))
        if self._pending is not None:
            return _values(self._pending, typed)
        flag, has_value, value = word.partition("=")
        if not self._only_arguments and word.startswith("-"):
            if not has_value:
                return self._flags()
            option = self._options().get(flag)
            found = _values(option, typed._replace(word=value)) if option is not None else ()
            return found if isinstance(found, Candidates) else [one._replace(word=f"{flag}={one.word}") for one in found]
        if not self._name:
            return [*(Candidate(*item) for item in COMMANDS.items()), *(Candidate(name) for name in ALIASES)]
        return _ARGUMENTS.get(self._name, _nothing)(typed)

    def _flags(self) -> Iterator[Candidate]:
        for flag, option in self._options().items():
            yield Candidate(flag, " ".join((option.help or "").split()))
        yield Candidate("--help", "Show this message and exit.")

    def _known(self) -> Known | None:
        from keepsake import config
        from keepsake.exceptions import KeepsakeError
        from keepsake.query.known import Known

        try:
            return Known(config.load(self._said.get("repository"), self._said.get("project_directory")).url)
        except KeepsakeError:
            return None


# --- values of options ------------------------------------------------------------------------------------------------


def _values(option: click.Option, typed: Typed) -> Iterable[Candidate] | Candidates:
    if isinstance(option.type, click.Choice):
        return map(Candidate, option.type.choices)
    return _BY_METAVAR.get(option.metavar or "", _nothing)(typed)


def _nothing(typed: Typed) -> Iterable[Candidate]:
    return ()


def _names(typed: Typed) -> Iterator[Candidate]:
    from keepsake.query.names import FIELDS

    known = typed.known()
    meanings: dict[str, str] = {}
    for summary in known.experiments() if known is not None else ():
        meanings |= dict.fromkeys(summary.flat_params, "param") | dict.fromkeys(summary.shown_metrics, "metric")
    for name in [*meanings, *FIELDS]:
        yield Candidate(name, meanings.get(name, "field"))


def _sort_keys(typed: Typed) -> Iterator[Candidate]:
    start = "-" if typed.word.startswith("-") else ""
    for name, meaning in _names(typed):
        yield Candidate(start + name, meaning)


def _listed(names: Callable[[Typed], Iterable[Candidate]], marks: str = "") -> Source:
    """Return a source of words with commas between, each perhaps with a mark in front."""

    def source(typed: Typed) -> Iterator[Candidate]:
        start, comma, last = typed.word.rpartition(",")
        mark = last[:1] if last[:1] and last[:1] in marks else ""
        for name, meaning in names(typed):
            yield Candidate(start + comma + mark + name, meaning)

    return source


def _filters(typed: Typed) -> Iterator[Candidate]:
    from keepsake.display.text import safe

    begun = _LAST_NAME.search(typed.word)
    start = typed.word[: begun.start()] if begun is not None else typed.word
    before = start.rstrip()
    if re.search(r"\b(tag|tags)\s*[=~!]+$", before):
        found: Iterable[Candidate] = _tags(typed)
    elif re.search(r"\bstatus\s*[=~!]+$", before):
        found = map(Candidate, ("running", "stopped", "failed"))
    elif before and not re.search(r"(\band|\bor|\bnot|\()$", before):
        return
    else:
        found = _names(typed)
    for name, meaning in found:
        yield Candidate(safe(start) + name, meaning)


def _tags(typed: Typed) -> Iterator[Candidate]:
    known = typed.known()
    return map(Candidate, known.tags() if known is not None else ())


def _sections(typed: Typed) -> Iterator[Candidate]:
    from keepsake.query.compare import SECTIONS

    return map(Candidate, SECTIONS)


def _directories(typed: Typed) -> Candidates:
    return Candidates("directories")


def _files(typed: Typed) -> Candidates:
    return Candidates("files")


_BY_METAVAR: dict[str, Source] = {
    "EXPR": _filters,
    "KEY": _sort_keys,
    "NAMES": _listed(_names, "+-"),
    "SECTIONS": _listed(_sections),
    "TAG": _tags,
    "DIR": _directories,
    "URL": _directories,
    "FILE": _files,
    "PATH": _files,
    "GLOB": _files,
}
"""By what the help text calls the value of an option."""


# --- arguments ----------------------------------------------------------------------------------------------------------


def _references(typed: Typed) -> Iterator[Candidate]:
    """Yield what stands for an experiment or a checkpoint."""
    known = typed.known()
    if known is None:
        return
    start, at, _ = typed.word.partition("@")
    if at and start:
        yield from (Candidate(f"{start}@{which}", meaning) for which, meaning in _checkpoints_of(start, known))
        return
    named = known.named()
    if start == "" or layout.is_id_prefix(start):
        length = max(known.short_length(), len(start))
        names = {id: name for name, id in named.items()}
        for summary in known.experiments(start):
            yield Candidate(summary.id[:length], _experiment(summary, names.get(summary.id, "")))
        for id, owner in known.checkpoints(start):
            yield Candidate(id[:length], _checkpoint(id, owner))
    yield from (Candidate(f"@{alias}", "alias") for alias in known.aliases())
    yield from (Candidate(name, f"name of {layout.short_id(id)}") for name, id in named.items())
    yield Candidate("best", "the experiment with the best primary metric")
    yield Candidate("last", "the newest experiment")


def _experiment(summary: Summary, name: str) -> str:
    """Return what people know an experiment by. Whether it runs is not known here."""
    from keepsake.display.text import age
    from keepsake.repository.json_values import utc_now

    started = f"{age((utc_now() - summary.created).total_seconds())} ago"
    return ", ".join(filter(None, (started, summary.outcome, _score(summary, summary.best_row), name)))


def _score(summary: Summary, row: CheckpointRow | None) -> str:
    """Return the primary metric of one of an experiment's checkpoints; "" where there is none."""
    from keepsake.display.text import cell
    from keepsake.repository.json_values import decode_value
    from keepsake.repository.summary import METRICS

    metric = summary.primary_metric
    values = (row[METRICS] if row is not None else None) or {}
    return f"{metric.name} {cell(decode_value(values[metric.name]))}" if metric is not None and metric.name in values else ""


def _checkpoint(id: str, owner: Summary) -> str:
    from keepsake.repository.summary import ID, STEP

    what = f"checkpoint of {layout.short_id(owner.id)}"
    for row in (owner.best_row, owner.latest_row):
        if row is not None and row[ID].startswith(id):
            return ", ".join(filter(None, (what, f"step {row[STEP]}", _score(owner, row))))
    return what


def _checkpoints_of(reference: str, known: Known) -> Iterator[tuple[str, str]]:
    """Yield what may stand behind the @ of an experiment. Of its steps those are known of the best and the latest checkpoint."""
    from keepsake.repository.summary import STEP

    summary = _experiment_of(reference, known)
    best, latest = (summary.best_row, summary.latest_row) if summary is not None else (None, None)
    for which, row in (("best", best), ("latest", latest)):
        yield which, ", ".join(filter(None, (f"step {row[STEP]}", _score(summary, row)))) if summary and row else ""
    yield "step:", "the checkpoint at this step"
    for row in (best, latest):
        if summary is not None and row is not None:
            yield f"step:{row[STEP]}", _score(summary, row)


def _experiment_of(reference: str, known: Known) -> Summary | None:
    id = known.named().get(reference)
    if id is None and not layout.is_id_prefix(reference):
        # That a word stands for the newest one takes the repository itself to say: the index may be behind.
        return None
    found = known.experiments(id or reference)
    return found[0] if len(found) == 1 else None


def _first_reference(typed: Typed) -> Iterable[Candidate]:
    return () if typed.before else _references(typed)


def _compared(typed: Typed) -> Iterator[Candidate]:
    yield Candidate(".", "the working directory")
    yield from _references(typed)


def _alias_and_reference(typed: Typed) -> Iterable[Candidate]:
    known = typed.known()
    if not typed.before:
        at = "@" if typed.word.startswith("@") else ""
        return [Candidate(f"{at}{alias}", "alias") for alias in (known.aliases() if known is not None else ())]
    return _references(typed) if len(typed.before) == 1 else ()


def _reference_and_tags(typed: Typed) -> Iterable[Candidate]:
    return _tags(typed) if typed.before else _references(typed)


def _repositories(typed: Typed) -> Iterable[Candidate] | Candidates:
    """Return the names of the remotes, and directories where there are none."""
    from keepsake import config

    remotes = config.Settings(config.find_directory(typed.directory)).remotes()
    return map(Candidate, remotes) if remotes else Candidates("directories")


def _repository_and_references(typed: Typed) -> Iterable[Candidate] | Candidates:
    return _references(typed) if typed.before else _repositories(typed)


def _two_repositories(typed: Typed) -> Iterable[Candidate] | Candidates:
    return _repositories(typed) if len(typed.before) < 2 else ()


def _topics(typed: Typed) -> Iterator[Candidate]:
    from keepsake.cli.help_command import TOPICS

    yield from (Candidate(*item) for item in COMMANDS.items())
    yield from map(Candidate, TOPICS)


_ARGUMENTS: dict[str, Source] = {
    "show": _first_reference,
    "checkout": _first_reference,
    "name": _first_reference,
    "note": _first_reference,
    "diff": _compared,
    "rm": _references,
    "tag": _reference_and_tags,
    "alias": _alias_and_reference,
    "push": _repository_and_references,
    "pull": _repository_and_references,
    "copy": _two_repositories,
    "init": _directories,
    "help": _topics,
    "completion": lambda typed: map(Candidate, ("bash", "zsh", "fish")),
}
"""By command."""
