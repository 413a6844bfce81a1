"""Names, tags, notes and aliases: what is written is read again, and what was never meant to be one is refused."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepsake.exceptions import CorruptedRecord, DoesNotExist, InvalidName
from keepsake.repository import annotations as said
from keepsake.repository import layout
from keepsake.repository.annotations import Alias, Annotation, check_label
from keepsake.repository.json_values import utc_now
from keepsake.repository.records import CheckpointRecord, ExperimentRecord
from keepsake.repository.repository import Repository
from keepsake.storage import DiskStorage, MemoryStorage

ONE, OTHER = "1" * 64, "2" * 64
CHECKPOINT, SECOND = "a" * 64, "b" * 64

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@pytest.fixture
def repository() -> Repository:
    """Two experiments, the first of which has two checkpoints."""
    repository = Repository(MemoryStorage())
    fill(repository)
    return repository


def fill(repository: Repository) -> None:
    repository.prepare()
    checkpoints = [CheckpointRecord(id, utc_now(), 1) for id in (CHECKPOINT, SECOND)]
    repository.save(ExperimentRecord(ONE, utc_now(), checkpoints=checkpoints))
    repository.save(ExperimentRecord(OTHER, utc_now()))


# --- formats --------------------------------------------------------------------------------------------------------


@given(name=st.text(), tags=st.lists(st.text()), notes=st.text(), more=st.dictionaries(st.text(), json_values))
def test_an_annotation_is_read_as_it_was_written_and_unknown_keys_survive(
    name: str, tags: list[str], notes: str, more: dict[str, Any]
) -> None:
    raw = more | {"name": name, "tags": tags, "notes": notes}
    annotation = Annotation.from_bytes(json.dumps(raw).encode(), key="k")
    assert (annotation.name, annotation.tags, annotation.notes) == (name, tuple(sorted(set(tags))), notes)
    again = Annotation.from_bytes(annotation.to_bytes(), key="k")
    assert again == annotation
    assert again.to_json() == annotation.to_json() == raw | {"tags": sorted(set(tags))}


@given(raw=json_values)
def test_any_json_is_an_annotation_and_an_alias_or_damaged(raw: Any) -> None:
    content = json.dumps(raw).encode()
    for kind in (Annotation, Alias):
        try:
            found = kind.from_bytes(content, key="metadata/x.json")
        except CorruptedRecord as err:
            assert "metadata/x.json" in err.message  # noqa: PT017 - most inputs raise nothing
        else:
            assert kind.from_bytes(found.to_bytes(), key="k") == found


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"[]", b"null", b'{"tags": "prod"}', b'{"tags": [1]}', b'{"name": 1}', b"[" * 9999]
)
def test_a_damaged_annotation_names_its_key(content: bytes) -> None:
    with pytest.raises(CorruptedRecord, match="metadata/annotations/1.json is damaged"):
        Annotation.from_bytes(content, key="metadata/annotations/1.json")


def test_null_is_nothing() -> None:
    assert Annotation.from_json({"name": None, "tags": None}) == Annotation()


def test_an_alias_may_lack_its_experiment() -> None:
    assert Alias.from_json({"checkpoint": CHECKPOINT}) == Alias(CHECKPOINT, "")


# --- what may be called how -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["prod", "v1.2-rc_3", "team/prod", "abc", "12", "beta", "a.json.b", "x" * 100])
def test_labels(label: str) -> None:
    assert check_label(label, "name") == label


@pytest.mark.parametrize(
    ("label", "why"),
    [
        ("", "cannot be a name$"),
        ("-x", "cannot be a name$"),
        ("a b", "cannot be a name$"),
        ("a@b", "cannot be a name$"),
        ("../x", "cannot be a name$"),
        ("a/../b", "cannot be a name$"),
        ("a//b", "cannot be a name$"),
        ("a/", "cannot be a name$"),
        ("a.json/b", "cannot be a name$"),
        ("a\n", "cannot be a name$"),
        ("x" * 101, "cannot be a name$"),
        ("ünï", "cannot be a name$"),
        ("Last", "stands for"),
        ("best", "stands for"),
        ("latest", "stands for"),
        ("2026", "start of an ID"),
        ("DEADBEEF", "start of an ID"),
        ("f" * 64, "start of an ID"),
    ],
)
def test_what_is_no_name(label: str, why: str) -> None:
    with pytest.raises(InvalidName) as caught:
        check_label(label, "name")
    assert re.search(why, caught.value.message)


@given(label=st.text(max_size=20) | st.from_regex(r"[A-Za-z0-9._/-]{1,12}", fullmatch=True))
def test_whatever_is_an_alias_has_a_key_of_its_own(label: str) -> None:
    try:
        check_label(label, "alias")
    except ValueError:
        return
    storage = MemoryStorage()
    storage.write(layout.alias_key(label), b"")
    assert [layout.alias_of_key(info.key) for info in storage.list()] == [label]


def test_a_tag_may_be_a_number_or_a_word_that_stands_for_something() -> None:
    assert [check_label(tag, "tag") for tag in ("2026", "best")] == ["2026", "best"]


# --- in a repository ------------------------------------------------------------------------------------------------


def test_changes_follow_each_other(repository: Repository) -> None:
    said.change(repository, ONE, lambda one: one.tagged(["prod", "base"]))
    assert said.change(repository, ONE, lambda one: one.tagged(["new"], ["prod"])).tags == ("base", "new")
    assert said.read(repository, ONE).tags == ("base", "new")
    assert said.read(repository, OTHER) == Annotation()


def test_what_changes_nothing_writes_nothing(repository: Repository) -> None:
    said.change(repository, ONE, lambda one: one.tagged([], ["prod"]))
    assert not list(repository.storage.list(layout.ANNOTATIONS_PREFIX))


def test_changes_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    repository = Repository(DiskStorage(tmp_path))
    fill(repository)
    threads = [
        threading.Thread(target=said.change, args=(repository, ONE, lambda one, tag=f"t{number:02}": one.tagged([tag])))
        for number in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said.read(repository, ONE).tags == tuple(f"t{number:02}" for number in range(20))


def test_what_is_gone_cannot_be_changed(repository: Repository) -> None:
    with pytest.raises(DoesNotExist, match='no experiment "3333333"'):
        said.change(repository, "3" * 64, lambda one: one.tagged(["prod"]))
    with pytest.raises(DoesNotExist, match='no experiment "3333333"'):
        said.set_alias(repository, "prod", Alias(CHECKPOINT, "3" * 64))


def test_an_alias_is_moved_and_removed(repository: Repository) -> None:
    said.set_alias(repository, "team/prod", Alias(CHECKPOINT, ONE))
    said.set_alias(repository, "team/prod", Alias(SECOND, ONE))
    assert said.aliases(repository) == {"team/prod": Alias(SECOND, ONE)}
    said.remove_alias(repository, "team/prod")
    said.remove_alias(repository, "team/prod")
    assert said.aliases(repository) == {}


def test_a_damaged_alias_is_left_out(repository: Repository) -> None:
    repository.storage.write(layout.alias_key("prod"), b"{")
    repository.storage.write(f"{layout.ALIASES_PREFIX}/README", b"")
    assert said.aliases(repository) == {}


def test_deleting_an_experiment_or_a_checkpoint_deletes_what_is_said_of_it(repository: Repository) -> None:
    said.set_alias(repository, "first", Alias(CHECKPOINT, ONE))
    said.set_alias(repository, "second", Alias(SECOND, ONE))
    repository.storage.write(layout.alias_key("bare"), json.dumps({"checkpoint": SECOND}).encode())
    said.change(repository, ONE, lambda one: one.tagged(["prod"]))
    repository.delete_checkpoint(ONE, CHECKPOINT)
    assert set(said.aliases(repository)) == {"second", "bare"}
    repository.delete_experiment(repository.load(ONE))
    assert [info.key for info in repository.storage.list()] == [layout.record_key(OTHER), layout.SPEC_KEY]
