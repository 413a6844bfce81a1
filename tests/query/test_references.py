"""References: any text is one or is refused, and each form finds what it names without reading anything else."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepsake.exceptions import AmbiguousID, DoesNotExist, InvalidQuery
from keepsake.query.index import Index
from keepsake.query.references import Match, parse, resolve
from keepsake.repository import annotations as said
from keepsake.repository import layout
from keepsake.repository.annotations import Alias, Annotation
from keepsake.repository.primary_metric import PrimaryMetric
from keepsake.repository.records import CheckpointRecord, ExperimentRecord
from keepsake.repository.repository import Repository
from keepsake.storage import MemoryStorage
from tests.query.summaries import LOSS, START

ACC = PrimaryMetric("acc", "maximize")


def full(short: str) -> str:
    return short.ljust(layout.ID_LENGTH, "0")


class CountingStorage(MemoryStorage):
    """Counts which records are read."""

    def __init__(self) -> None:
        super().__init__()
        self.records_read: list[str] = []
        self.listings = 0

    def read(self, key: str) -> bytes:
        if key.startswith(layout.RECORDS_PREFIX):
            self.records_read.append(key)
        return super().read(key)

    def list(self, prefix: str = "") -> Any:
        self.listings += prefix == layout.METADATA_PREFIX
        return super().list(prefix)


@pytest.fixture
def storage() -> CountingStorage:
    return CountingStorage()


@pytest.fixture
def repository(storage: CountingStorage) -> Repository:
    """Three experiments, oldest first: 45… with two checkpoints, 46… with one, eb… with none."""
    repository = Repository(storage, label="file://runs")
    repository.prepare()
    add(repository, "4591", 0, [("da0f", 100, {"loss": 0.5}), ("45c0", 200, {"loss": 0.7})], params={"lr": 0.1})
    add(repository, "46aa", 1, [("0b77", 100, {"loss": 0.4})])
    add(repository, "eb96", 2, [])
    return repository


def add(
    repository: Repository,
    short: str,
    hours: int,
    checkpoints: list[tuple[str, int, dict[str, Any]]],
    primary: PrimaryMetric | None = LOSS,
    **fields: Any,
) -> None:
    created = START + timedelta(hours=hours)
    found = [
        CheckpointRecord(full(id), created, step, metrics=metrics, primary_metric=primary) for id, step, metrics in checkpoints
    ]
    repository.save(ExperimentRecord(full(short), created, checkpoints=found, outcome="finished", **fields))


def ids(match: Match) -> tuple[str, str | None]:
    return match.experiment.id[:4], match.checkpoint.id[:4] if match.checkpoint is not None else None


def find(repository: Repository, text: str) -> tuple[str, str | None]:
    return ids(resolve(text, Index(repository, None)))


# --- reading --------------------------------------------------------------------------------------------------------


@given(text=st.text() | st.from_regex(r"(last|best|ab1|x)(~[0-9]{0,3})?(@(best|latest|step:[0-9]{0,4}|x)?)?", fullmatch=True))
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    try:
        reference = parse(text)
    except InvalidQuery as err:
        assert text in err.message  # noqa: PT017 - most inputs raise nothing
        assert "@" in text
    else:
        assert reference.text == text


@given(
    base=st.sampled_from(["last", "best", "4591", "warm-up", "a/b.c"]) | st.integers(0, 99).map(lambda n: f"last~{n}"),
    checkpoint=st.sampled_from(["best", "latest"]) | st.integers(0, 10**12),
)
def test_what_stands_behind_the_at_is_a_checkpoint_of_what_stands_before_it(base: str, checkpoint: str | int) -> None:
    plain = parse(base)
    reference = parse(f"{base}@{checkpoint if isinstance(checkpoint, str) else f'step:{checkpoint}'}")
    assert reference.checkpoint == checkpoint
    assert (reference.kind, reference.value, reference.back) == (plain.kind, plain.value, plain.back)


@pytest.mark.parametrize("text", ["4591@", "4591@foo", "4591@step:", "4591@step:-1", "4591@4000", "last@@prod", "a@b@best"])
def test_what_names_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(InvalidQuery, match="stands best, latest or step:N"):
        parse(text)


# --- looking up -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("459", ("4591", None)),
        (" 459 ", ("4591", None)),
        ("EB9", ("eb96", None)),
        (full("4591"), ("4591", None)),
        (full("4591").upper(), ("4591", None)),
        (full("da0f"), ("4591", "da0f")),
        ("da", ("4591", "da0f")),
        ("@prod", ("4591", "45c0")),
        ("@bare", ("46aa", "0b77")),
        ("warm-up", ("46aa", None)),
        ("abc", ("eb96", None)),
        ("last", ("eb96", None)),
        ("last~0", ("eb96", None)),
        ("last~2", ("4591", None)),
        ("best", ("46aa", None)),
        ("best@latest", ("46aa", "0b77")),
        ("459@best", ("4591", "da0f")),
        ("459@latest", ("4591", "45c0")),
        ("459@step:200", ("4591", "45c0")),
        ("last~1@step:100", ("46aa", "0b77")),
        ("warm-up@BEST", ("46aa", "0b77")),
    ],
)
def test_every_form_finds_what_it_names(repository: Repository, text: str, found: tuple[str, str | None]) -> None:
    said.set_alias(repository, "prod", Alias(full("45c0"), full("4591")))
    repository.storage.write(layout.alias_key("bare"), b'{"checkpoint": "%s"}' % full("0b77").encode())
    said.change(repository, full("46aa"), lambda _: Annotation("warm-up"))
    said.change(repository, full("eb96"), lambda _: Annotation("abc"))
    assert find(repository, text) == found


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("zzz", 'nothing starts with "zzz" (searched 3 experiments, 3 checkpoints in file://runs)', "keepsake ls"),
        ("fff", 'nothing starts with "fff" (searched 3 experiments, 3 checkpoints in file://runs)', "keepsake ls"),
        ("", 'nothing starts with "" (searched 3 experiments, 3 checkpoints in file://runs)', "keepsake ls"),
        ("warm-pu", 'no experiment named "warm-pu"', "did you mean warm-up?"),
        ("@prd", 'no checkpoint has the alias "prd"', "did you mean @prod?"),
        ("@xyz", 'no checkpoint has the alias "xyz"', "keepsake alias"),
        ("@gone", 'the checkpoint that "@gone" stood for, 7777000, was deleted', "keepsake alias --delete gone"),
        ("last~3", 'no experiment is "last~3": there are 3 experiments in file://runs', "keepsake ls"),
        ("459@step:4000", "no checkpoint at step 4000; the nearest are at 100, 200", "keepsake show 4591000 --all"),
        ("46@step:4000", "no checkpoint at step 4000; the nearest is at 100", "keepsake show 46aa000 --all"),
        ("eb96@best", "experiment eb96000 has no checkpoints", "keepsake show eb96000"),
    ],
)
def test_what_names_nothing_says_so(repository: Repository, text: str, message: str, hint: str) -> None:
    said.set_alias(repository, "prod", Alias(full("45c0"), full("4591")))
    said.set_alias(repository, "gone", Alias(full("7777"), full("4591")))
    said.change(repository, full("46aa"), lambda _: Annotation("warm-up"))
    with pytest.raises(DoesNotExist) as caught:
        find(repository, text)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_a_prefix_of_several_lists_them(repository: Repository) -> None:
    with pytest.raises(AmbiguousID) as caught:
        find(repository, "45")
    assert caught.value.message == '"45" matches 2 things'
    assert caught.value.facts == (
        "4591000  2026-03-01 00:00  experiment  lr=0.1",
        "45c0000  2026-03-01 00:00  checkpoint  step 200 of 4591000",
    )
    assert caught.value.hint == "type at least 3 characters, e.g. 459"


def test_a_prefix_of_very_many_does_not_read_them_all(repository: Repository, storage: CountingStorage) -> None:
    for number in range(40):
        add(repository, f"4c{number:02}", 3, [])
    index = Index(repository, None)
    index.summaries()
    storage.records_read.clear()
    with pytest.raises(AmbiguousID, match='"4" matches something in 42 experiments') as caught:
        resolve("4", index)
    assert caught.value.hint == "type 7 characters"
    assert len(storage.records_read) == 10


def test_a_name_that_two_have_is_ambiguous(repository: Repository) -> None:
    for short in ("4591", "46aa"):
        said.change(repository, full(short), lambda _: Annotation("warm-up"))
    with pytest.raises(AmbiguousID, match='"warm-up" matches 2 things'):
        find(repository, "warm-up")


def test_a_checkpoint_has_no_checkpoints(repository: Repository) -> None:
    with pytest.raises(InvalidQuery, match="da0f is a checkpoint itself"):
        find(repository, "da0f@best")


def test_best_needs_one_primary_metric(repository: Repository) -> None:
    add(repository, "77", 4, [("88", 1, {"acc": 0.9})], primary=ACC)
    with pytest.raises(AmbiguousID, match=r"several: acc \(maximize\), loss \(minimize\)"):
        find(repository, "best")


def test_best_of_nothing() -> None:
    with pytest.raises(DoesNotExist, match="has a primary metric"):
        find(Repository(MemoryStorage()), "best")


def test_of_two_checkpoints_at_one_step_the_later_one_counts(repository: Repository) -> None:
    add(repository, "77", 4, [("88", 1, {"loss": 1}), ("99", 1, {"loss": 2})])
    assert find(repository, "last@step:1") == ("7700", "9900")


def test_only_the_experiment_that_is_named_is_read(repository: Repository, storage: CountingStorage) -> None:
    index = Index(repository, None)
    index.summaries()
    storage.records_read.clear()
    for text in ("da0f", "last~2@best", "459@step:100"):
        assert ids(resolve(text, index))[0] == "4591"
    assert set(storage.records_read) == {layout.record_key(full("4591"))}


def test_a_whole_id_takes_no_listing(repository: Repository, storage: CountingStorage) -> None:
    assert find(repository, full("4591")) == ("4591", None)
    assert storage.listings == 0
    assert len(storage.records_read) == 1


# --- the index ------------------------------------------------------------------------------------------------------


def test_a_summary_knows_what_people_say(repository: Repository) -> None:
    said.change(repository, full("4591"), lambda _: Annotation("warm-up", ("prod",), "better"))
    said.set_alias(repository, "prod", Alias(full("45c0"), full("4591")))
    index = Index(repository, None)
    summary = index.summary(full("4591"))
    assert summary is not None
    assert (summary.name, summary.tags, summary.notes, summary.aliases) == (
        "warm-up",
        ("prod",),
        "better",
        {"prod": full("45c0")},
    )
    said.remove_alias(repository, "prod")
    index.forget()
    assert index.aliases() == {}
    assert index.ids_by_name() == {"warm-up": [full("4591")]}


def test_a_damaged_annotation_is_ignored_with_a_warning(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    key = layout.annotations_key(full("4591"))
    repository.storage.write(key, b'{"name": 3')
    repository.storage.write(layout.alias_key("prod"), b"[]")
    summary = Index(repository, None).summary(full("4591"))
    assert summary is not None
    assert summary.name == ""
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"keepsake: warning: the annotation {key} is damaged: ")
    assert second == "keepsake: warning: the alias metadata/aliases/prod.json is damaged: it names no checkpoint; it is ignored"


def test_what_is_said_of_what_is_gone_is_ignored(repository: Repository) -> None:
    repository.storage.write(layout.annotations_key(full("dead")), b'{"name": "warm-up"}')
    repository.storage.write(layout.alias_key("prod"), b'{"checkpoint": "%s"}' % full("dead").encode())
    index = Index(repository, None)
    assert (index.ids_by_name(), index.aliases()) == ({}, {})
