"""Records survive a round trip with whatever they hold, and damage is named."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepsake.exceptions import CorruptedRecord
from keepsake.repository.json_values import decode_value, encode_value, format_time, parse_time
from keepsake.repository.layout import new_id, record_key
from keepsake.repository.primary_metric import PrimaryMetric
from keepsake.repository.records import ArchiveInfo, CheckpointRecord, ExperimentRecord

TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=10).filter(
    lambda text: text not in ("[NaN]", "[+Infinity]", "[-Infinity]")
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
TIMES = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)).map(lambda moment: moment.replace(tzinfo=UTC, fold=0))
IDS = st.builds(new_id)
METRICS = st.none() | st.builds(PrimaryMetric, TEXT, st.sampled_from(["maximize", "minimize"]))
DIGESTS = st.sampled_from([{"index_sha256": "0" * 64}, {"sha256": "1" * 64}, {"index_sha256": "0" * 64, "sha256": "1" * 64}])
ARCHIVES = st.none() | st.builds(
    lambda size_bytes, files, digests: ArchiveInfo(size_bytes, files, **digests),
    st.integers(0, 2**50),
    st.integers(0, 1000),
    DIGESTS,
)
CHECKPOINTS = st.builds(
    CheckpointRecord,
    id=IDS,
    created=TIMES,
    step=st.integers(0, 2**40),
    path=st.none() | st.just("out/model.pth"),
    metrics=st.dictionaries(TEXT, VALUES, max_size=3),
    primary_metric=METRICS,
    archive=ARCHIVES,
)
EXPERIMENTS = st.builds(
    ExperimentRecord,
    id=IDS,
    created=TIMES,
    params=st.dictionaries(TEXT, VALUES, max_size=4),
    host=TEXT,
    user=TEXT,
    config=st.dictionaries(TEXT, TEXT, max_size=2),
    command=TEXT,
    path=st.none() | st.just("."),
    python_version=TEXT,
    python_packages=st.dictionaries(TEXT, TEXT, max_size=2),
    checkpoints=st.lists(CHECKPOINTS, max_size=3),
    keepsake_version=TEXT,
    git=st.none() | st.dictionaries(TEXT, TEXT, min_size=1, max_size=2),
    system=st.none() | st.dictionaries(TEXT, st.integers(), min_size=1, max_size=2),
    pid=st.none() | st.integers(1, 2**22),
    ended=st.none() | TIMES,
    outcome=st.sampled_from([None, "finished", "failed", "interrupted"]),
    error=st.none() | TEXT,
    heartbeat_interval_s=st.none() | st.floats(0.1, 1000),
    resumed=st.lists(TIMES, max_size=2),
    archive=ARCHIVES,
)


def same(one: object, other: object) -> bool:
    """Equality in which NaN equals NaN."""
    return repr(one) == repr(other)


@given(EXPERIMENTS)
def test_a_record_survives_the_round_trip(record: ExperimentRecord) -> None:
    content = record.to_bytes()
    assert same(ExperimentRecord.from_bytes(content, key="k"), record)
    assert ExperimentRecord.from_bytes(content, key="k").to_bytes() == content
    json.loads(content, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@given(EXPERIMENTS, st.data())
def test_unknown_keys_survive_at_every_level(record: ExperimentRecord, data: st.DataObject) -> None:
    raw = json.loads(record.to_bytes())
    unknown = {"from_the_future": {"deep": [1, {"x": None}]}}
    places = [raw, *raw["checkpoints"], *(c["primary_metric"] for c in raw["checkpoints"] if c["primary_metric"])]
    places += [one["archive"] for one in (raw, *raw["checkpoints"]) if one.get("archive")]
    for place in places:
        place.update(unknown)
    read = ExperimentRecord.from_json(raw)
    read.error = data.draw(TEXT)
    rewritten = json.loads(read.to_bytes())
    assert {**rewritten, "error": None} == {**raw, "error": None}


@given(TIMES, st.integers(0, 9), st.sampled_from(["Z", "+00:00", "+05:30", "-08:00", ""]))
def test_times_of_any_precision_are_read(moment: datetime, digits: int, zone: str) -> None:
    fraction = f"{moment.microsecond:06}000"[:digits]
    text = moment.isoformat(timespec="seconds").removesuffix("+00:00") + (f".{fraction}" if digits else "") + zone
    expected = moment.replace(microsecond=int(fraction[:6].ljust(6, "0")) if digits else 0)
    offset = {"+05:30": timedelta(hours=5, minutes=30), "-08:00": timedelta(hours=-8)}.get(zone, timedelta())
    assert parse_time(text) == expected - offset
    assert parse_time(format_time(moment)) == moment
    assert format_time(moment).endswith("Z")


@pytest.mark.parametrize(("number", "text"), [(math.nan, "[NaN]"), (math.inf, "[+Infinity]"), (-math.inf, "[-Infinity]")])
def test_numbers_that_json_lacks_are_the_originals_texts(number: float, text: str) -> None:
    assert encode_value({"a": [number, {"b": number}]}) == {"a": [text, {"b": text}]}
    assert repr(decode_value({"a": [text]})) == repr({"a": [number]})


ORIGINAL = {
    "id": "1" * 64,
    "created": "2026-11-23T04:42:12.207530975Z",
    "params": None,
    "host": "",
    "user": "ana",
    "config": {"repository": "file://.keepsake", "storage": ""},
    "command": "train.py",
    "path": "",
    "python_version": "3.11.7",
    "python_packages": None,
    "checkpoints": None,
    "replicate_version": "0.2.0",
}


def test_what_the_original_leaves_out_or_calls_otherwise_is_understood() -> None:
    record = ExperimentRecord.from_json(ORIGINAL)
    assert (record.params, record.checkpoints, record.path) == ({}, [], None)
    assert record.keepsake_version == "0.2.0"
    assert record.created == datetime(2026, 11, 23, 4, 42, 12, 207530, tzinfo=UTC)
    assert (record.outcome, record.status.reason) == (None, "unknown")
    rewritten = record.to_json()
    assert rewritten["replicate_version"] == "0.2.0"
    assert set(rewritten) - set(ORIGINAL) == {"keepsake_version"}  # none of our own keys that say nothing


def test_the_keys_stand_in_the_order_of_the_original() -> None:
    record = ExperimentRecord(id="1" * 64, created=datetime(2026, 11, 23, tzinfo=UTC))
    expected = "id created params host user config command path python_version python_packages checkpoints keepsake_version"
    assert list(record.to_json())[:12] == expected.split()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        json.dumps({**ORIGINAL, "id": "short"}).encode(),
        json.dumps({**ORIGINAL, "id": 5}).encode(),
        json.dumps({**ORIGINAL, "created": "yesterday"}).encode(),
        json.dumps({**ORIGINAL, "created": None}).encode(),
        json.dumps({**ORIGINAL, "params": [1]}).encode(),
        json.dumps({**ORIGINAL, "checkpoints": [None]}).encode(),
        json.dumps({**ORIGINAL, "checkpoints": [{}]}).encode(),
        json.dumps({**ORIGINAL, "checkpoints": {"a": 1}}).encode(),
        json.dumps({**ORIGINAL, "archive": {"size_bytes": 1}}).encode(),
        json.dumps({**ORIGINAL, "ended": 5}).encode(),
        json.dumps({**ORIGINAL, "host": 5}).encode(),
        json.dumps(ORIGINAL).encode()[:-20],
    ],
    ids=lambda content: repr(content[:30]),
)
def test_damage_is_named_with_the_key(content: bytes) -> None:
    key = record_key("1" * 64)
    with pytest.raises(CorruptedRecord, match=f"the record {key} is damaged"):
        ExperimentRecord.from_bytes(content, key=key)


STEP = {
    "id": "3" * 64,
    "created": "2026-11-23T04:42:13Z",
    "metrics": {"loss": 1},
    "step": 1,
    "path": "out",
    "primary_metric": {"name": "loss", "goal": "minimize"},
    "archive": {"size_bytes": 1, "sha256": "0" * 64, "files": 1},
}
OURS = ["git", "system", "pid", "ended", "outcome", "error", "heartbeat_interval_s", "resumed", "archive", "from_the_future"]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["\ud800", "[NaN]", 10**400]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["name", "goal", "id", "x"]), inner, max_size=2),
    max_leaves=4,
)


@given(
    st.dictionaries(st.sampled_from([*ORIGINAL, *OURS]), ANYTHING, max_size=2),
    st.dictionaries(st.sampled_from([*STEP, "from_the_future"]), ANYTHING, max_size=2),
)
def test_anything_in_any_place_is_damage_or_can_be_used_and_written_again(damage: dict[str, Any], inner: dict[str, Any]) -> None:
    raw = {**ORIGINAL, "checkpoints": [{**STEP, **inner}], **damage}
    record = None
    with contextlib.suppress(CorruptedRecord):
        record = ExperimentRecord.from_bytes(json.dumps(raw).encode(), key="k")
    if record is not None:
        record.best()
        _ = record.status
        content = record.to_bytes()
        json.loads(content.decode(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        # Not within the suppression: what we wrote ourselves must never be damage.
        assert ExperimentRecord.from_bytes(content, key="k").to_bytes() == content


def test_a_step_may_be_written_with_a_point_but_not_between_two() -> None:
    for step, read in [(1.0, 1), (0, 0), (None, 0), (10**15, 10**15)]:
        record = ExperimentRecord.from_json({**ORIGINAL, "checkpoints": [{**STEP, "step": step}]})
        assert record.checkpoints[0].step == read
    for step in (1.5, "1", True, math.inf, math.nan):
        with pytest.raises(CorruptedRecord):
            ExperimentRecord.from_bytes(json.dumps({**ORIGINAL, "checkpoints": [{**STEP, "step": step}]}).encode(), key="k")


def test_a_goal_that_nobody_knows_yet_is_no_primary_metric_and_survives() -> None:
    metric = {"name": "loss", "goal": "approach", "target": 0.5}
    record = ExperimentRecord.from_json({**ORIGINAL, "checkpoints": [{**STEP, "primary_metric": metric}]})
    assert record.primary_metric is None
    assert record.best() is None
    assert record.to_json()["checkpoints"][0]["primary_metric"] == metric


def test_the_announcement_of_an_archive_has_three_states() -> None:
    checkpoint = {key: value for key, value in STEP.items() if key != "archive"}
    absent = CheckpointRecord.from_json(checkpoint)
    pending = CheckpointRecord.from_json({**checkpoint, "archive": None})
    stored = CheckpointRecord.from_json(STEP)
    assert [(one.archive is not None, one.archive_pending) for one in (absent, pending, stored)] == [
        (False, False),
        (False, True),
        (True, False),
    ]
    assert "archive" not in absent.to_json()
    assert pending.to_json()["archive"] is None
    assert stored.to_json()["archive"] == STEP["archive"]


def test_a_name_that_is_not_unicode_survives() -> None:
    record = ExperimentRecord(
        id="1" * 64, created=datetime(2026, 11, 23, tzinfo=UTC), path=b"caf\xe9".decode("utf-8", "surrogateescape")
    )
    assert ExperimentRecord.from_bytes(record.to_bytes(), key="k").path == record.path


def full_record() -> dict[str, Any]:
    """Return a record in which every key that we know says something."""
    checkpoint = CheckpointRecord(
        id="2" * 64,
        created=datetime(2026, 11, 23, tzinfo=UTC),
        step=3,
        path="out",
        metrics={"loss": 0.5, "nan": math.nan},
        primary_metric=PrimaryMetric("loss", "minimize"),
        archive=ArchiveInfo(5, 1, sha256="0" * 64),
    )
    record = ExperimentRecord(
        id="1" * 64,
        created=datetime(2026, 11, 23, tzinfo=UTC),
        params={"a": {"b": [1, None, math.inf]}},
        config={"repository": "file://.keepsake"},
        path=".",
        python_packages={"click": "8"},
        checkpoints=[checkpoint],
        git={"commit": "abc"},
        system={"cpus": 2},
        pid=1,
        ended=datetime(2026, 11, 24, tzinfo=UTC),
        outcome="failed",
        error="ValueError: x",
        heartbeat_interval_s=10.0,
        resumed=[datetime(2026, 11, 23, 1, tzinfo=UTC)],
        archive=ArchiveInfo(5, 1, sha256="0" * 64),
    )
    parsed: dict[str, Any] = json.loads(record.to_bytes())
    return parsed


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Return the way to every value in some JSON."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in items for place in places(item, (*path, key)))]


def replaced(value: Any, path: tuple[str | int, ...], new: Any) -> Any:
    if not path:
        return new
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[path[0]] = replaced(value[path[0]], path[1:], new)
    return changed


KEY = record_key("1" * 64)
ODD_VALUES = [None, True, 0, -1, 1.5, 1e300, 10**400, "", "text", "\ud800", [], [None], [[]], {}, {"a": None}]


@pytest.mark.parametrize("path", places(full_record()), ids=lambda path: ".".join(map(str, path)) or "all")
def test_a_value_of_any_type_in_any_place_is_read_or_refused(path: tuple[str | int, ...]) -> None:
    for new in ODD_VALUES:
        assert_read_or_refused(json.dumps(replaced(full_record(), path, new)).encode())


def assert_read_or_refused(content: bytes) -> None:
    """Either the error names the key, or all that follows from the record can be had, and it can be written again."""
    try:
        record = ExperimentRecord.from_bytes(content, key=KEY)
    except CorruptedRecord as err:
        refused = err.message
    else:
        refused = None
    if refused is not None:
        assert refused.startswith(f"the record {KEY} is damaged: ")
        return
    record.best()
    record.latest()
    assert record.status.word in ("running", "stopped", "failed")
    assert same(ExperimentRecord.from_bytes(record.to_bytes(), key=KEY), record)


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (("params",), [1]),
        (("checkpoints",), {}),
        (("checkpoints", 0), []),
        (("checkpoints", 0, "id"), "2" * 63),
        (("checkpoints", 0, "created"), ""),
        (("checkpoints", 0, "metrics"), "loss"),
        (("checkpoints", 0, "step"), 1.5),
        (("checkpoints", 0, "step"), "3"),
        (("checkpoints", 0, "step"), True),
        (("checkpoints", 0, "path"), 5),
        (("checkpoints", 0, "primary_metric"), "loss"),
        (("checkpoints", 0, "primary_metric", "name"), 5),
        (("checkpoints", 0, "archive", "sha256"), None),
        (("python_packages", "click"), 8),
        (("id",), "3" * 64),  # the record of another experiment
        (("created",), "2026-13-01T00:00:00Z"),
        (("created",), "0001-01-01T00:00:00+23:00"),
        (("ended",), True),
        (("resumed",), "2026-11-23T00:00:00Z"),
        (("outcome",), 5),
        (("heartbeat_interval_s",), "10"),
        (("pid",), []),
        (("git",), "abc"),
        (("archive",), "abc"),
    ],
    ids=str,
)
def test_a_wrong_type_is_damage(path: tuple[str | int, ...], wrong: object) -> None:
    content = json.dumps(replaced(full_record(), path, wrong))
    with pytest.raises(CorruptedRecord, match=f"the record {KEY} is damaged"):
        ExperimentRecord.from_bytes(content.encode(), key=KEY)


@pytest.mark.parametrize("number", ["1e999", "-1e999"])
@pytest.mark.parametrize("key", ["heartbeat_interval_s", "pid"])
def test_a_number_of_ours_that_is_not_finite_is_damage_because_it_could_not_be_read_again(key: str, number: str) -> None:
    content = json.dumps({**full_record(), key: "here"}).replace('"here"', number)
    with pytest.raises(CorruptedRecord, match=f"the record {KEY} is damaged: expected a finite number"):
        ExperimentRecord.from_bytes(content.encode(), key=KEY)


def test_every_record_that_is_cut_off_is_damage() -> None:
    content = json.dumps(full_record()).encode()
    for end in range(len(content)):
        with pytest.raises(CorruptedRecord, match=f"the record {KEY} is damaged"):
            ExperimentRecord.from_bytes(content[:end], key=KEY)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("place", ["params", "from_the_future"])
def test_numbers_that_are_no_json_are_damage(number: str, place: str) -> None:
    content = json.dumps({**full_record(), place: {"x": "here"}}).replace('"here"', number)
    with pytest.raises(CorruptedRecord, match=f"the record {KEY} is damaged: {number} is no JSON"):
        ExperimentRecord.from_bytes(content.encode(), key=KEY)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_any_encoding_but_plain_utf_8_is_damage(encoding: str) -> None:
    with pytest.raises(CorruptedRecord, match=f"the record {KEY} is damaged"):
        ExperimentRecord.from_bytes(json.dumps(full_record()).encode(encoding), key=KEY)


@given(st.data())
def test_a_flipped_byte_is_read_or_refused(data: st.DataObject) -> None:
    content = bytearray(json.dumps(full_record()).encode())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    assert_read_or_refused(bytes(content))


# --- best -----------------------------------------------------------------------------------------------------------


def with_values(values: tuple[Any, ...], goal: str) -> ExperimentRecord:
    created = datetime(2026, 11, 23, tzinfo=UTC)
    checkpoints = [
        CheckpointRecord(
            id=new_id(),
            created=created + timedelta(seconds=step),
            step=step,
            metrics={} if value == "absent" else {"m": value},
            primary_metric=PrimaryMetric("m", goal) if step == 0 else None,  # type: ignore[arg-type]
        )
        for step, value in enumerate(values)
    ]
    return ExperimentRecord(id=new_id(), created=created, checkpoints=checkpoints)


@pytest.mark.parametrize(("goal", "best"), [("minimize", 1), ("maximize", 3)])
def test_the_best_is_the_same_in_every_order(goal: str, best: int) -> None:
    for values in itertools.permutations([1, 2.5, 3, math.nan, "absent", None]):
        found = with_values(values, goal).best()
        assert found is not None
        assert found.metrics["m"] == best


def test_infinities_compare_and_text_does_not() -> None:
    assert with_values((10**400, 5, math.inf), "minimize").best().metrics["m"] == 5  # type: ignore[union-attr]
    assert with_values((math.inf, "text", 5), "maximize").best().metrics["m"] == math.inf  # type: ignore[union-attr]
    assert with_values((math.nan, "text", None), "maximize").best() is None
    assert with_values((), "maximize").best() is None


def test_of_equals_the_earliest_is_best_and_latest_is_the_last() -> None:
    record = with_values((2, 1, 1.0, 3), "minimize")
    best, latest = record.best(), record.latest()
    assert best is not None
    assert latest is not None
    assert (best.step, latest.step) == (1, 3)


# --- records that are written many times ------------------------------------------------------------------------------


def plain(record: ExperimentRecord) -> bytes:
    """The file of a record as JSON alone would make it."""
    return f"{json.dumps(record.to_json(), indent=1, ensure_ascii=False)}\n".encode()


PENDING = st.builds(lambda checkpoint: replace(checkpoint, path="model", archive=None, archive_pending=True), CHECKPOINTS)


@given(EXPERIMENTS, st.lists(PENDING, max_size=3))
def test_the_file_is_the_same_with_and_without_the_texts_of_checkpoints(
    record: ExperimentRecord, pending: list[CheckpointRecord]
) -> None:
    record.checkpoints += pending
    fragments: dict[str, str] = {}
    expected = plain(record)
    assert record.to_bytes() == record.to_bytes(fragments) == record.to_bytes(fragments) == expected
    assert set(fragments) == {checkpoint.id for checkpoint in record.checkpoints if not checkpoint.archive_pending}


@given(EXPERIMENTS, st.lists(PENDING, min_size=1, max_size=3), st.data())
def test_what_happens_to_files_on_their_way_is_in_the_next_file(
    record: ExperimentRecord, pending: list[CheckpointRecord], data: st.DataObject
) -> None:
    fragments: dict[str, str] = {}
    record.checkpoints = data.draw(st.permutations([*record.checkpoints, *pending]))
    for checkpoint in data.draw(st.permutations(pending)):
        assert record.to_bytes(fragments) == plain(record)
        if data.draw(st.booleans(), label="stored"):
            checkpoint.archive, checkpoint.archive_pending = ArchiveInfo(1, 1, "0" * 64), False
        else:
            checkpoint.path, checkpoint.archive_pending = None, False
        record.checkpoints.append(data.draw(CHECKPOINTS))
    record.outcome, record.params = "finished", {"changed": True}
    assert record.to_bytes(fragments) == plain(record)
    assert len(fragments) == len(record.checkpoints)


@given(EXPERIMENTS, st.data())
def test_unknown_keys_are_written_the_same_with_the_texts_of_checkpoints(record: ExperimentRecord, data: st.DataObject) -> None:
    raw = record.to_json()
    raw |= data.draw(st.dictionaries(TEXT.map("new_{}".format), VALUES.map(encode_value), max_size=2))
    for checkpoint in raw["checkpoints"]:
        checkpoint["checkpoints"] = []
        checkpoint["new"] = '\n "checkpoints": []'
    read = ExperimentRecord.from_json(raw)
    fragments: dict[str, str] = {}
    assert read.to_bytes(fragments) == read.to_bytes(fragments) == plain(read)


def test_one_checkpoint_that_is_not_unicode_does_not_change_the_others() -> None:
    record = ExperimentRecord(id=new_id(), created=datetime(2026, 11, 23, tzinfo=UTC))
    for name in ("\udcff", "ä"):
        record.checkpoints.append(CheckpointRecord(id=new_id(), created=record.created, step=1, path=name))
    fragments: dict[str, str] = {}
    written = record.to_bytes(fragments)
    assert written == record.to_bytes(fragments) == record.to_bytes()
    read = ExperimentRecord.from_bytes(written, key=record_key(record.id))
    assert [checkpoint.path for checkpoint in read.checkpoints] == ["\udcff", "ä"]
