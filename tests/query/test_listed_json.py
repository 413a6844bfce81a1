"""What `ls --json` prints of experiments is kept as text: it says what the records say, and what else is known."""

from __future__ import annotations

import json
import math
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepsake.query import index as index_module
from keepsake.query.index import Index
from keepsake.query.listed_json import details_of, kept, listed, text, text_of
from keepsake.repository import layout
from keepsake.repository.annotations import Alias, change, set_alias
from keepsake.repository.json_values import utc_now
from keepsake.repository.primary_metric import PrimaryMetric
from keepsake.repository.records import CheckpointRecord, ExperimentRecord
from keepsake.repository.repository import Repository
from keepsake.repository.summary import Summary, parse
from keepsake.storage import DiskStorage, MemoryStorage

TEXTS = st.text(max_size=5) | st.sampled_from(["\x1b[2J", "\u202e", "\x9b", "\ud800", "a\nb", "[NaN]"])
INTEGERS = st.integers(-(2**63), 2**63 - 1)
"""Those that the format has."""
VALUES = st.recursive(
    st.none() | st.booleans() | INTEGERS | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=5,
)
METRICS = st.dictionaries(TEXTS, st.floats() | INTEGERS, max_size=3)


def a_record(metrics: list[dict[str, Any]] | None = None, **fields: Any) -> ExperimentRecord:
    record = ExperimentRecord(layout.new_id(), utc_now(), **fields)
    record.checkpoints = [
        CheckpointRecord(layout.new_id(), utc_now(), step, metrics=row, primary_metric=PrimaryMetric("loss", "minimize"))
        for step, row in enumerate(metrics or [])
    ]
    return record


def expected(record: ExperimentRecord) -> Any:
    return json.loads(json.dumps(listed(Summary.of(record))))


@given(
    st.dictionaries(TEXTS, VALUES, max_size=4),
    st.lists(METRICS | st.builds(lambda loss: {"loss": loss}, st.floats()), max_size=4),
    st.sampled_from([None, "finished", "failed"]),
    TEXTS,
)
def test_what_is_kept_is_what_the_record_says(
    params: dict[str, Any], metrics: list[dict[str, Any]], outcome: Any, command: str
) -> None:
    record = a_record(metrics, params=params, outcome=outcome, command=command, ended=utc_now() if outcome else None)
    parsed = parse(record.to_bytes(), key=layout.record_key(record.id))
    content = kept(Summary(parsed.row, {"details": parsed.details}))
    assert json.loads(text_of(content)) == expected(record)
    assert not set(text_of(content)) & {"\x1b", "\u202e", "\x9b"}
    again = Summary(parsed.row, {"details": details_of(content)})
    for found, wanted in ((again.best(), record.best()), (again.latest(), record.latest())):
        assert repr(found and found.to_json()) == repr(wanted and wanted.to_json())


@pytest.mark.parametrize("number", [2**63, 2**64, -(2**63) - 1, 10**30])
def test_an_integer_beyond_the_format_is_the_nearest_float_at_least(number: int) -> None:
    """Nothing that keepsake records, but anybody may write it."""
    record = a_record([{"count": number}], params={"seed": number})
    parsed = parse(record.to_bytes(), key=layout.record_key(record.id))
    shown = json.loads(text_of(kept(Summary(parsed.row, {"details": parsed.details}))))
    assert float(shown["params"]["seed"]) == float(shown["latest_checkpoint"]["metrics"]["count"]) == float(number)


@given(st.binary(min_size=1, max_size=3), st.integers(min_value=0))
def test_what_is_damaged_is_noticed(wrong: bytes, place: int) -> None:
    content = kept(Summary.of(a_record([{"loss": 1.0}])))
    place %= len(content)
    damaged = content[:place] + wrong + content[place + len(wrong) :]
    if damaged != content:
        with pytest.raises(ValueError, match="damaged"):
            text_of(damaged)


@pytest.fixture
def repository() -> Repository:
    repository = Repository(MemoryStorage())
    repository.prepare()
    for number in range(4):
        record = a_record([{"loss": 1.0 - number}, {"loss": math.nan}], params={"model": {"depth": number}}, outcome="finished")
        repository.save(record)
    return repository


@pytest.mark.parametrize("few", [0, 200])
def test_what_else_is_known_of_an_experiment_is_told(repository: Repository, monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    monkeypatch.setattr(index_module, "FEW_SPECIAL", few)
    first, second, third, _ = repository.list_experiments()
    change(repository, first.id, lambda found: replace(found, name="baseline").tagged(["good"], []))
    set_alias(repository, "production", Alias(second.checkpoints[0].id, second.id))
    running = a_record(heartbeat_interval_s=10.0)
    repository.save(running)
    repository.beat(running.id)
    index = Index(repository, None)
    one, two, three, four, five = found = [json.loads(text) for text in index.listed_json()]
    assert (one["name"], one["tags"]) == ("baseline", ["good"])
    assert two["aliases"] == {"production": second.checkpoints[0].id}
    assert three == expected(third)
    assert (four["running"], five["running"]) == (False, True)
    chosen = index.summaries()[::-2]
    assert [json.loads(text) for text in index.listed_json_of(chosen)] == found[::-2]
    assert [json.loads(text) for text in index.listed_json(2)] == found[-2:]


def test_a_text_that_is_damaged_is_made_anew(tmp_path: Path) -> None:
    repository = Repository(DiskStorage(tmp_path / "runs"))
    repository.prepare()
    records = [a_record([{"loss": float(number)}], outcome="finished") for number in range(3)]
    for record in records:
        repository.save(record)
    path = tmp_path / "index.sqlite"
    whole = Index(repository, path).listed_json()
    database = sqlite3.connect(path)
    database.execute("UPDATE listed_json SET listed_json = CAST(replace(listed_json, 'finished', 'vanished') AS BLOB)")
    database.commit()
    database.close()
    assert (
        Index(repository, path).listed_json() == whole == [text(Summary.of(record)) for record in repository.list_experiments()]
    )


def test_an_experiment_that_is_deleted_meanwhile_is_told_as_it_was(repository: Repository) -> None:
    index = Index(repository, None)
    summaries = index.summaries()
    whole = index.listed_json()
    repository.delete_experiment(repository.list_experiments()[0])
    assert index.listed_json_of(summaries) == whole
    index.forget()
    assert index.listed_json() == whole[1:]
