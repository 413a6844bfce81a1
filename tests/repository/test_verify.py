"""Whatever happens to a file of a repository, it is found or it does no harm; and repairing never makes anything worse."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import keepsake
from keepsake.exceptions import KeepsakeError
from keepsake.repository import annotations as said
from keepsake.repository import layout, verify
from keepsake.repository.journal import journals
from keepsake.repository.repository import Repository
from keepsake.storage import MemoryStorage
from keepsake.storage.disk import LEFT_BEHIND_ELSEWHERE_S
from tests.conftest import Script
from tests.storage.test_disk import backdate

FILES = {"small": b"abc" * 100, "large": bytes(range(256)) * 12_000, "empty": b""}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with two experiments, and files of several sizes."""
    directory = tmp_path_factory.mktemp("recorded")
    (directory / "keepsake.yaml").write_text("repository: file://.keepsake\n", encoding="utf-8")
    (directory / "train.py").write_text("print('train')\n", encoding="utf-8")
    files = directory / "files"
    files.mkdir()
    for name, content in FILES.items():
        (files / name).write_bytes(content)
    (directory / ".keepsakeignore").write_text("files\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        for rate in (0.1, 0.2):
            with keepsake.init(params={"rate": rate}, quiet=True) as experiment:
                experiment.checkpoint("files", metrics={"loss": rate})
                experiment.checkpoint(metrics={"loss": rate / 2})
    return directory / ".keepsake"


def everything(repository: Repository) -> dict[tuple[str, str], bytes]:
    """Return the content of each file of each checkpoint that can be read."""
    found = {}
    for record in repository.list_experiments():
        for checkpoint in record.checkpoints:
            for name in FILES if checkpoint.has_files else ():
                try:
                    with repository.archives.open_file(layout.checkpoint_archive_key(checkpoint.id), f"files/{name}") as file:
                        found[checkpoint.id, name] = file.read()
                except KeepsakeError:
                    continue
    return found


def damage_of(report: verify.Report) -> list[verify.Finding]:
    return [finding for finding in report.findings if finding.severity == "damage"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_altered_is_found_or_does_no_harm(recorded: Path, tmp_path: Path, data: st.DataObject) -> None:
    root = tmp_path / "altered"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(recorded, root)
    repository = Repository.at(f"file://{root}")
    whole = everything(repository)
    assert len(whole) == 2 * len(FILES)
    records = {record.id: record for record in repository.list_experiments()}
    path = data.draw(st.sampled_from(sorted(path for path in root.rglob("*") if path.is_file())), label="file")
    content = bytearray(path.read_bytes())
    match data.draw(st.sampled_from(["delete", "cut", "empty", "flip", "append"]), label="what happens"):
        case "delete":
            path.unlink()
        case "cut":
            path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
        case "empty":
            path.write_bytes(b"")
        case "append":
            path.write_bytes(content + b"\0")
        case "flip":
            content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
            path.write_bytes(content)

    repository = Repository.at(f"file://{root}")
    try:
        report = verify.check(repository)
    except KeepsakeError:
        # The format itself is unknown; every other command says so too.
        assert path.name == layout.SPEC_KEY
        return
    if not damage_of(report):
        if path.suffix == ".gz":
            pytest.fail("an archive was altered, and it was not noticed")
        assert {record.id for record in repository.list_experiments()} <= records.keys()
    before = everything(repository)
    assert all(whole[key] == content for key, content in before.items())
    for finding in report.findings:
        if finding.repair is not None:
            finding.repair()
    assert everything(Repository.at(f"file://{root}")).items() >= before.items()


def test_a_store_without_journals_is_checked_too() -> None:
    repository = Repository(MemoryStorage())
    repository.prepare()
    assert verify.check(repository) == verify.Report(0, 0, 0, [])


def test_what_people_say_is_checked_too(recorded: Path, tmp_path: Path) -> None:
    root = tmp_path / "said"
    shutil.copytree(recorded, root)
    repository = Repository.at(f"file://{root}")
    first, second = repository.list_experiments()
    said.change(repository, first.id, lambda one: one.tagged(["prod"]))
    said.set_alias(repository, "production", said.Alias(first.checkpoints[0].id, first.id))
    assert verify.check(repository).findings == []

    gone = said.Alias("5" * 64, first.id)
    for name, age_s in (("old", 2 * verify.ORPHANED_S), ("new", 0)):
        said.set_alias(repository, name, gone)
        backdate(root / layout.alias_key(name), age_s)
    orphan = root / layout.annotations_key("6" * 64)
    orphan.write_bytes(b"{}")
    backdate(orphan, 2 * verify.ORPHANED_S)
    (root / layout.annotations_key(second.id)).write_bytes(b"[]")
    (root / layout.alias_key("broken")).write_bytes(b'{"checkpoint": ')
    for prefix in (layout.ANNOTATIONS_PREFIX, layout.ALIASES_PREFIX):
        (root / prefix / "README").write_bytes(b"a person's")
    findings = verify.check(repository).findings
    assert {(finding.severity, finding.kind, finding.key.rpartition("/")[2]) for finding in findings} == {
        ("leftover", "orphan", "old.json"),
        ("note", "orphan", "new.json"),
        ("leftover", "orphan", f"{'6' * 64}.json"),
        ("damage", "annotation-damaged", f"{second.id}.json"),
        ("damage", "alias-damaged", "broken.json"),
        ("note", "foreign-file", "README"),
    }
    assert len(findings) == 7
    for finding in findings:
        if finding.repair is not None:
            finding.repair()
    assert not orphan.exists()
    assert set(said.aliases(repository)) == {"production", "new"}
    assert said.read(repository, first.id).tags == ("prod",)


WRITER = """
    import os, sys
    import keepsake

    experiment = keepsake.init(path=None, quiet=True)
    open("weights", "wb").write(os.urandom(100_000))
    experiment.checkpoint("weights", metrics={"loss": 1})
    experiment.checkpoint(metrics={"loss": 2})
    print(experiment.id, flush=True)
    sys.stdin.read()
"""


def test_what_a_living_process_has_not_stored_is_no_finding(script: Callable[..., Script]) -> None:
    writer = script(WRITER)
    id = writer.line()
    repository = Repository.at(f"file://{Path('.keepsake').absolute()}")
    report = verify.check(repository)
    assert report.findings == []
    assert report.checkpoints == 2
    [place] = journals(Path(".keepsake"))
    assert place.experiment_id == id
    assert writer.wait() == 0
    assert verify.check(repository).findings == []


def test_what_a_dead_process_has_left_is_listed_and_then_stored(script: Callable[..., Script]) -> None:
    writer = script(WRITER)
    id = writer.line()
    writer.process.kill()
    writer.process.wait()
    root = Path(".keepsake").absolute()
    # As a kill in the middle of writing the record leaves it.
    temporary = root / ".tmp" / "00000000-1-2"
    temporary.write_bytes(b"half")
    backdate(temporary, 2 * LEFT_BEHIND_ELSEWHERE_S)

    repository = Repository.at(f"file://{root}")
    for _ in range(2):  # looking changes nothing
        report = verify.check(repository)
        assert [(finding.severity, finding.kind) for finding in report.findings] == [
            ("leftover", "journal"),
            ("leftover", "temporary-file"),
        ]
        assert report.findings[0].text.startswith(f"journal of experiment {id[:7]}, whose process has died: ")
        assert report.checkpoints == 2
    for finding in report.findings:
        assert finding.repair is not None
        finding.repair()
    assert verify.check(repository).findings == []
    assert not temporary.exists()
    assert not (root / ".journal" / id).exists()
    [first, second] = repository.load_stored(id).checkpoints
    assert (first.metrics, second.metrics) == ({"loss": 1}, {"loss": 2})
    assert first.archive is not None
