"""References: the words by which people name one experiment or one checkpoint, and what they name in a repository.

::

    4591273             an experiment or a checkpoint, by the start of its ID
    warm-up             an experiment, by its name
    @production         a checkpoint, by its alias
    last, last~2        the newest experiment, the third newest
    best                the experiment with the best primary metric of all
    X@best, X@latest    the best checkpoint of an experiment X, however that is named; the one made last
    X@step:4000         its checkpoint at a step

`parse` only reads; `resolve` looks into the index, and reads the records of those experiments only that are concerned.
"""

from __future__ import annotations

import difflib
import itertools
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from keepsake.exceptions import AmbiguousID, DoesNotExist, InvalidQuery
from keepsake.query.best import best_of
from keepsake.repository import layout

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from keepsake.query.index import Index
    from keepsake.repository.annotations import Alias
    from keepsake.repository.records import CheckpointRecord, ExperimentRecord

Kind: TypeAlias = Literal["word", "alias", "last", "best"]

MAX_LISTED = 10
"""Most things that an error lists."""

MAX_READ = 20
"""Most experiments that are read to say which of them an ID may mean."""

NEAREST_STEPS = 3

_LAST = re.compile(r"last(?:~([0-9]{1,9}))?", re.IGNORECASE)
_STEP = re.compile(r"step:([0-9]{1,18})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Reference:
    """What somebody has typed.

    Args:
        text: As it was typed.
        kind: What it begins with: a ``word`` (a name or the start of an ID), an ``alias``, or one of the words that stand for something.
        value: The word or the alias; empty otherwise.
        back: How many experiments before the ``last`` one.
        checkpoint: Which checkpoint of the experiment: ``best``, ``latest`` or a step; None if that is not said.
    """

    text: str
    kind: Kind
    value: str = ""
    back: int = 0
    checkpoint: Literal["best", "latest"] | int | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """What a reference names: an experiment, or one of its checkpoints.

    Args:
        experiment: The experiment.
        checkpoint: The checkpoint, if the reference names one.
    """

    experiment: ExperimentRecord
    checkpoint: CheckpointRecord | None = None


# --- reading ----------------------------------------------------------------------------------------------------------


def parse(text: str) -> Reference:
    """Parse a reference.

    Raises:
        InvalidQuery: What stands behind the ``@`` names no checkpoint.

    Example:
        >>> parse("last~2@step:4000")
        Reference(text='last~2@step:4000', kind='last', value='', back=2, checkpoint=4000)
        >>> parse("@team/prod").kind, parse("warm-up@best").checkpoint, parse("45912").value
        ('alias', 'best', '45912')
    """
    typed = text.strip()
    if typed.startswith("@"):
        return Reference(text, "alias", typed[1:])
    word, at, selector = typed.partition("@")
    checkpoint = _selected(text, selector) if at else None
    last = _LAST.fullmatch(word)
    if last:
        return Reference(text, "last", back=int(last[1] or 0), checkpoint=checkpoint)
    if word.lower() == "best":
        return Reference(text, "best", checkpoint=checkpoint)
    return Reference(text, "word", word, checkpoint=checkpoint)


def _selected(text: str, selector: str) -> Literal["best", "latest"] | int:
    step = _STEP.fullmatch(selector)
    if step:
        return int(step[1])
    match selector.lower():
        case "best":
            return "best"
        case "latest":
            return "latest"
    raise InvalidQuery(
        f'"{text}": behind the @ of an experiment stands best, latest or step:N, not "{selector}"',
        hint=f"@{selector} is an alias" if selector else None,
    )


# --- looking up -------------------------------------------------------------------------------------------------------


def resolve(text: str, index: Index) -> Match:
    """Return the one experiment or checkpoint that a reference names.

    A whole ID of an experiment is read at once, everything else is looked up in the index.

    Args:
        text: The reference.
        index: Of the repository, as up to date as it is to be.

    Raises:
        DoesNotExist: It names nothing.
        AmbiguousID: It could mean several; the error lists them and says how many characters would do.
        InvalidQuery: It is no reference.
    """
    reference = parse(text)
    match = _base(reference, index)
    if reference.checkpoint is None:
        return match
    if match.checkpoint is not None:
        raise InvalidQuery(f'"{text}": {reference.value} is a checkpoint itself, and has no checkpoints')
    return Match(match.experiment, _checkpoint(reference.checkpoint, match.experiment))


def _base(reference: Reference, index: Index) -> Match:
    match reference.kind:
        case "alias":
            return _by_alias(reference.value, index)
        case "last":
            return _last(reference, index)
        case "best":
            return _best(index)
        case "word":
            return _by_word(reference, index)


def _by_word(reference: Reference, index: Index) -> Match:
    word = reference.value
    wanted = word.lower()
    repository = index.repository
    repository.check()
    if layout.is_id(wanted) and repository.record_etag(wanted) is not None:
        return Match(repository.load(wanted))
    named = [] if layout.is_id(wanted) else index.ids_by_name().get(word, [])
    if len(named) == 1:
        return Match(repository.load(named[0]))
    if named:
        raise _ambiguous(word, [Match(record) for record in _loaded(named, index)])
    owners = index.owners(wanted) if layout.is_id_prefix(wanted) else []
    if len(owners) > MAX_READ:
        raise _too_many(word, owners, index)
    matches = [match for record in _loaded(owners, index) for match in _matches(record, wanted)]
    if not matches:
        raise _nothing(word, index)
    if len(matches) > 1:
        raise _ambiguous(word, matches)
    return matches[0]


def _loaded(ids: Iterable[str], index: Index) -> list[ExperimentRecord]:
    """Return experiments, oldest first; those that are deleted meanwhile are left out."""
    found = []
    for experiment_id in ids:
        with suppress(DoesNotExist):
            found.append(index.repository.load(experiment_id))
    return sorted(found, key=lambda record: (record.created, record.id))


def _matches(record: ExperimentRecord, prefix: str) -> Iterator[Match]:
    if record.id.startswith(prefix):
        yield Match(record)
    for checkpoint in record.checkpoints:
        if checkpoint.id.startswith(prefix):
            yield Match(record, checkpoint)


def _by_alias(alias: str, index: Index) -> Match:
    aliases = index.aliases()
    found = aliases.get(alias)
    if found is None:
        raise DoesNotExist(f'no checkpoint has the alias "{alias}"', hint=_did_you_mean(alias, aliases, "@") or "keepsake alias")
    record = index.repository.load(found.experiment)
    checkpoint = _aliased(record, found)
    if checkpoint is None:
        raise DoesNotExist(
            f'the checkpoint that "@{alias}" stood for, {layout.short_id(found.checkpoint)}, was deleted',
            hint=f"keepsake alias --delete {alias}",
        )
    return Match(record, checkpoint)


def _aliased(record: ExperimentRecord, alias: Alias) -> CheckpointRecord | None:
    return next((checkpoint for checkpoint in record.checkpoints if checkpoint.id == alias.checkpoint), None)


def _last(reference: Reference, index: Index) -> Match:
    newest = index.summaries(newest=reference.back + 1)
    if len(newest) <= reference.back:
        raise DoesNotExist(
            f'no experiment is "{reference.text}": there {_are(len(newest), "experiment")} in {index.repository.label}',
            hint="keepsake ls",
        )
    return Match(index.repository.load(newest[0].id))


def _best(index: Index) -> Match:
    summaries = index.summaries()
    chosen = best_of(summaries)
    if chosen is None:
        raise DoesNotExist(
            f'"best" is nothing: no experiment in {index.repository.label} has a primary metric', hint="keepsake ls"
        )
    return Match(index.repository.load(chosen.id))


def _checkpoint(wanted: Literal["best", "latest"] | int, record: ExperimentRecord) -> CheckpointRecord:
    short = layout.short_id(record.id)
    if not record.checkpoints:
        raise DoesNotExist(f"experiment {short} has no checkpoints", hint=f"keepsake show {short}")
    if wanted == "latest":
        return record.checkpoints[-1]
    if wanted == "best":
        best = record.best()
        if best is None:
            raise DoesNotExist(
                f"no checkpoint of experiment {short} is the best: none has a primary metric",
                hint=f"keepsake show {short}@latest",
            )
        return best
    # Where a training was resumed from before it, the later one counts.
    found = next((checkpoint for checkpoint in reversed(record.checkpoints) if checkpoint.step == wanted), None)
    if found is None:
        steps = {checkpoint.step for checkpoint in record.checkpoints}
        nearest = sorted(sorted(steps, key=lambda step: (abs(step - wanted), step))[:NEAREST_STEPS])
        raise DoesNotExist(
            f"no checkpoint at step {wanted}; the nearest {'is at' if len(nearest) == 1 else 'are at'} {', '.join(map(str, nearest))}",
            hint=f"keepsake show {short} --all",
        )
    return found


# --- what cannot be found ---------------------------------------------------------------------------------------------


def _nothing(word: str, index: Index) -> DoesNotExist:
    meant = _did_you_mean(word, index.ids_by_name()) if not layout.is_id_prefix(word.lower()) else None
    if meant is not None:
        return DoesNotExist(f'no experiment named "{word}"', hint=meant)
    summaries = index.summaries()
    checkpoints = sum(summary.num_checkpoints for summary in summaries)
    return DoesNotExist(
        f'nothing starts with "{word}" (searched {_count(len(summaries), "experiment")},'
        f" {_count(checkpoints, 'checkpoint')} in {index.repository.label})",
        hint="keepsake ls",
    )


def _did_you_mean(word: str, known: Iterable[str], before: str = "") -> str | None:
    by_lower_case = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_lower_case, n=3)
    return f"did you mean {' or '.join(before + by_lower_case[name] for name in close)}?" if close else None


def _ambiguous(word: str, matches: Sequence[Match]) -> AmbiguousID:
    ids = sorted((match.checkpoint or match.experiment).id for match in matches)
    needed = 1 + max((_common_length(one, other) for one, other in itertools.pairwise(ids)), default=0)
    example = (matches[0].checkpoint or matches[0].experiment).id[:needed]
    return AmbiguousID(
        f'"{word}" matches {len(matches)} things',
        facts=[
            *(_description(match, max(needed, layout.SHORT_ID_LENGTH)) for match in matches[:MAX_LISTED]),
            *([f"… {len(matches) - MAX_LISTED} more"] if len(matches) > MAX_LISTED else []),
        ],
        hint=f"type at least {needed} characters, e.g. {example}",
    )


def _too_many(word: str, owners: Sequence[str], index: Index) -> AmbiguousID:
    matches = [match for record in _loaded(owners[:MAX_LISTED], index) for match in _matches(record, word.lower())]
    needed = index.short_length()
    return AmbiguousID(
        f'"{word}" matches something in {len(owners):,} experiments',
        facts=[*(_description(match, needed) for match in matches[:MAX_LISTED]), "…"],
        hint=f"type {needed} characters",
    )


def _description(match: Match, length: int) -> str:
    if match.checkpoint is not None:
        of = layout.short_id(match.experiment.id)
        created, text = match.checkpoint.created, f"checkpoint  step {match.checkpoint.step} of {of}"
        id = match.checkpoint.id
    else:
        params = " ".join(f"{name}={value}" for name, value in list(match.experiment.params.items())[:4])
        created, text, id = match.experiment.created, f"experiment  {params}", match.experiment.id
    return f"{id[:length]}  {created:%Y-%m-%d %H:%M}  {text}".rstrip()


def _common_length(one: str, other: str) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _are(number: int, noun: str) -> str:
    return f"{'is' if number == 1 else 'are'} {_count(number, noun)}"
