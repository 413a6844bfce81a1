from __future__ import annotations

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
