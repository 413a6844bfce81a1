from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepsake.repository import layout
from keepsake.storage.base import check_key


def test_ids_are_drawn_from_the_systems_random_source() -> None:
    ids = {layout.new_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(layout.is_id(id) for id in ids)


@given(st.from_regex(r"[0-9a-f]{64}", fullmatch=True))
def test_keys_lead_back_to_their_ids(id: str) -> None:
    assert layout.id_of_json_key(layout.record_key(id)) == id
    assert layout.id_of_json_key(layout.heartbeat_key(id)) == id
    for key in (layout.record_key(id), layout.experiment_archive_key(id), layout.checkpoint_archive_key(id)):
        assert check_key(key) == key
    assert id.startswith(layout.short_id(id))


@given(st.text())
def test_foreign_names_are_no_ids(name: str) -> None:
    assert layout.id_of_json_key(f"metadata/experiments/{name}.json.tmp") is None
    assert layout.is_id_prefix(name) == (0 < len(name) <= 64 and set(name) <= set("0123456789abcdef"))


def test_the_layout_is_the_originals() -> None:
    id = "0123456789abcdef" * 4
    assert layout.SPEC_KEY == "repository.json"
    assert layout.record_key(id) == f"metadata/experiments/{id}.json"
    assert layout.heartbeat_key(id) == f"metadata/heartbeats/{id}.json"
    assert layout.experiment_archive_key(id) == f"experiments/{id}.tar.gz"
    assert layout.checkpoint_archive_key(id) == f"checkpoints/{id}.tar.gz"
    assert layout.short_id(id) == "0123456"


@pytest.mark.parametrize(
    "text", ["", "a" * 63, "a" * 65, "A" * 64, "g" * 64, " " + "a" * 63, "a" * 64 + "\n", "\uff11" * 64, "\u0661" * 64, "-" * 64]
)
def test_what_is_no_id(text: str) -> None:
    assert not layout.is_id(text)
    assert layout.id_of_json_key(layout.record_key(text)) is None


@pytest.mark.parametrize("text", ["", "A", "g", "a" * 65, "a\n", " a", "\uff11", "abc-"])
def test_what_starts_no_id(text: str) -> None:
    assert not layout.is_id_prefix(text)


@pytest.mark.parametrize(
    "name",
    [
        ".json",
        "a.json",
        "{id}",
        "{id}.JSON",
        "{id}.json.json",
        "{id}.tar.gz",
        "{id}.json~",
        ".{id}.json",
        "{id}.json/x",
        "x{id}.json",
    ],
)
def test_a_foreign_file_among_the_records_is_about_no_id(name: str) -> None:
    assert layout.id_of_json_key(f"metadata/experiments/{name.format(id='a' * 64)}") is None
