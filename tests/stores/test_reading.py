"""Reading from and copying between stores: little is transferred, and nothing is taken on trust."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest

from keepsake import Project
from keepsake.repository import layout, verify
from keepsake.repository.json_values import utc_now
from keepsake.repository.records import ExperimentRecord
from keepsake.repository.repository import Repository
from keepsake.storage import from_url
from tests.cli.conftest import Terminal
from tests.servers.proxy import Fault, Proxy

# What google.api_core says on its first import about a package that nobody needs.
pytestmark = pytest.mark.filterwarnings("ignore:Please install grpcio-status:ImportWarning")

COUNT = 60


def keepsake(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "keepsake", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def fill(project: Project) -> list[str]:
    """Write many small experiments straight into the store."""
    repository = project.store_at_hand()
    repository.prepare()
    ids = []
    for number in range(COUNT):
        record = ExperimentRecord(id=layout.new_id(), created=utc_now(), params={"number": number}, outcome="finished")
        repository.save(record)
        ids.append(record.id)
    return ids


def record_two(project: Project) -> None:
    for number in range(2):
        with project.experiments.create(path=".", params={"number": number}, quiet=True) as experiment:
            for step in range(2):
                Path("weights").write_bytes(random.Random(10 * number + step).randbytes(100_000))
                experiment.checkpoint("weights", metrics={"loss": step})


def assert_same(one: Repository, other: Repository) -> None:
    contents = [
        {
            info.key: repository.storage.read(info.key)
            for prefix in ("metadata/experiments", "experiments", "checkpoints")
            for info in repository.storage.list(prefix)
        }
        for repository in (one, other)
    ]
    assert contents[0] == contents[1]
    assert len(contents[0]) == 2 + 2 + 4


# --- listing ----------------------------------------------------------------------------------------------------------


def numbers_of_experiments() -> dict[str, object]:
    return {experiment.id: experiment.params["number"] for experiment in Project().experiments.list()}


def numbers_in_the_index() -> dict[str, object]:
    """What ``keepsake ls`` goes by."""
    return {summary.id: summary.params["number"] for summary in Project().index().summaries()}


@pytest.mark.parametrize("look", [numbers_of_experiments, numbers_in_the_index])
def test_after_one_change_one_record_is_fetched(remote: Project, store: Proxy, look: Callable[[], dict[str, object]]) -> None:
    ids = fill(remote)
    assert len(look()) == COUNT
    store.forget()
    assert len(look()) == COUNT
    assert [line for line in store.requests if "metadata/experiments/" in line] == []

    repository = remote.store_at_hand()
    changed = repository.load_stored(ids[7])
    changed.params = {"number": "changed"}
    repository.save(changed)
    repository.delete_experiment(repository.load_stored(ids[8]))
    store.forget()
    assert look() == {id: "changed" if id == ids[7] else number for number, id in enumerate(ids) if id != ids[8]}
    fetched = [line for line in store.requests if "metadata/experiments/" in line.replace("%2F", "/")]
    assert len(fetched) == 1
    assert ids[7] in fetched[0]


def test_many_records_are_fetched_at_once(remote: Project, store: Proxy) -> None:
    ids = fill(remote)
    store.latency_s = 0.03
    assert {experiment.id for experiment in Project().experiments.list()} == set(ids)


def test_what_is_deleted_while_it_is_listed_is_left_out(remote: Project, store: Proxy) -> None:
    ids = fill(remote)
    status = 404
    body = (
        b"<Error><Code>NoSuchKey</Code></Error>"
        if "s3" in remote.repository_url
        else b'{"error": {"message": "No such object: x"}}'
    )
    store.plan(Fault("status", match=ids[3], times=1, status=status, body=body))
    assert {experiment.id for experiment in Project().experiments.list()} == {id for id in ids if id != ids[3]}


# --- copying ----------------------------------------------------------------------------------------------------------


def test_push_and_pull_carry_everything(remote: Project, store: Proxy, tmp_path: Path) -> None:
    record_two(Project(repository="file://.local"))
    pushed = keepsake("push", remote.repository_url, "-R", "file://.local")
    assert (pushed.returncode, pushed.stderr) == (0, f"Copied 2 experiments to {remote.repository_url}.\n")
    assert_same(Repository.at("file://.local"), remote.store_at_hand())
    again = keepsake("push", remote.repository_url, "-R", "file://.local")
    assert again.stderr == f"Copied 0 experiments to {remote.repository_url}, 2 experiments there already.\n"
    pulled = keepsake("pull", remote.repository_url, "-R", f"file://{tmp_path}/other")
    assert pulled.returncode == 0, pulled.stderr
    assert_same(Repository.at(f"file://{tmp_path}/other"), remote.store_at_hand())


def test_only_what_is_named_is_copied(remote: Project, tmp_path: Path) -> None:
    local = Project(repository="file://.local")
    record_two(local)
    wanted = local.experiments.list()[1]
    assert keepsake("push", remote.repository_url, wanted.id[:10], "-R", "file://.local").returncode == 0
    assert [experiment.id for experiment in remote.experiments.list()] == [wanted.id]
    missing = keepsake("push", remote.repository_url, "ffffffff", "-R", "file://.local")
    assert missing.returncode == 3


def test_a_store_copies_by_itself(remote: Project, store: Proxy) -> None:
    record_two(remote)
    target = Project(repository=f"{remote.repository_url}/elsewhere")
    store.forget()
    assert remote.copy_to(target) == (2, 0)
    assert_same(remote.store_at_hand(), target.store_at_hand())
    copied = {line.partition(" ")[2] for line in store.requests if line.startswith("GET") and line.endswith(".tar.gz")}
    if "s3" in remote.repository_url:
        # `assert_same` has read them; while they were copied, nobody has.
        assert len([line for line in store.requests if line.startswith("GET") and ".tar.gz" in line]) == len(copied)


def test_a_copy_that_breaks_off_goes_on(remote: Project, store: Proxy) -> None:
    local = Project(repository="file://.local")
    record_two(local)
    archive = layout.checkpoint_archive_key(local.experiments.list()[1].checkpoints[0].id)
    store.plan(Fault("status", match="checkpoints", times=10_000, status=403, body=b"<Error><Code>AccessDenied</Code></Error>"))
    assert keepsake("push", remote.repository_url, "-R", "file://.local").returncode == 4
    assert remote.experiments.list() == []  # no record of nothing
    store.plan_nothing()
    assert keepsake("push", remote.repository_url, "-R", "file://.local").returncode == 0
    assert_same(Repository.at("file://.local"), remote.store_at_hand())
    assert any(info.key == archive for info in remote.store_at_hand().storage.list(archive))


def test_what_is_damaged_is_not_copied(remote: Project) -> None:
    local = Project(repository="file://.local")
    record_two(local)
    [checkpoint, *_] = local.experiments.list()[0].checkpoints
    archive = Path(".local") / layout.checkpoint_archive_key(checkpoint.id)
    content = bytearray(archive.read_bytes())
    content[500] ^= 1
    archive.write_bytes(content)
    failed = keepsake("push", remote.repository_url, "-R", "file://.local")
    assert failed.returncode == 1
    assert "is damaged, and is not copied" in failed.stderr
    assert "hint: keepsake fsck -R file://.local" in failed.stderr
    assert list(remote.store_at_hand().storage.list(layout.checkpoint_archive_key(checkpoint.id))) == []


# --- making buckets ---------------------------------------------------------------------------------------------------


@pytest.fixture
def new_buckets(remote: Project, request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Names of two buckets that are not there, and are not there any more after the test."""
    scheme = remote.repository_url.partition(":")[0]
    names = [f"keepsake-test-{os.urandom(8).hex()}" for _ in range(2)]
    yield [f"{scheme}://{name}" for name in names]
    if "real" in request.node.callspec.params["store"]:
        for name in names:
            storage = from_url(f"{scheme}://{name}")
            storage.delete([info.key for info in storage.list()])
            if scheme == "s3":
                boto3.client("s3").delete_bucket(Bucket=name)
            else:
                import google.cloud.storage

                google.cloud.storage.Client().bucket(name).delete()


def test_init_offers_to_make_the_bucket_and_nothing_else_does(remote: Project, store: Proxy, new_buckets: list[str]) -> None:
    url, other = (f"{bucket}/runs" for bucket in new_buckets)
    refused = keepsake("push", url, "-R", "file://.keepsake")
    assert refused.returncode != 0
    for arguments, code in ((["-R", url, "-f"], 6), (["-R", url, "-f", "--yes"], 0), (["-R", url, "-f"], 0)):
        done = keepsake("init", *arguments)
        assert done.returncode == code, done.stderr
    # As the hint says, where keepsake.yaml names it already.
    Path("keepsake.yaml").write_text(f"repository: {other}\n", encoding="utf-8")
    missing = keepsake("ls")
    [hint] = [line.removeprefix("hint: keepsake ") for line in missing.stderr.splitlines() if line.startswith("hint:")]
    made = keepsake(*hint.split(), "--yes")
    assert made.returncode == 0, made.stderr
    with Project().experiments.create(quiet=True) as experiment:
        experiment.checkpoint(metrics={"loss": 1})
    assert verify.check(Project().store_at_hand()).checkpoints == 1


def test_a_checkout_of_many_megabytes_is_what_was_saved(remote: Project, store: Proxy, tmp_path: Path) -> None:
    content = random.Random(0).randbytes(30_000_000)
    with remote.experiments.create(quiet=True) as experiment:
        Path("weights").write_bytes(content)
        experiment.checkpoint("weights")
    store.latency_s = 0.05
    store.forget()
    done = keepsake("checkout", experiment.id, "-o", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "weights").read_bytes() == content
    # One after the other they would never be two at a time.
    assert store.most_at_once > 1
    store.latency_s = 0.0
    store.plan(Fault("alter", match=experiment.checkpoints[0].id, times=10_000))
    damaged = keepsake("checkout", experiment.id, "-o", str(tmp_path / "damaged"))
    assert damaged.returncode != 0
    assert not (tmp_path / "damaged").exists()


@pytest.mark.parametrize("store", ["s3"], indirect=True)
def test_people_see_how_far_it_is(remote: Project, store: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPSAKE_MODE", "offline")
    with remote.experiments.create(quiet=True) as experiment:
        Path("weights").write_bytes(random.Random(0).randbytes(60_000_000))
        experiment.checkpoint("weights")
    monkeypatch.delenv("KEEPSAKE_MODE")
    # Each takes more than a second on a line of this speed, below which nothing is shown, and has parts that come earlier than others.
    for arguments, label, bytes_per_s in (
        (["sync"], "uploading", 6e6),
        (["checkout", experiment.id, "-o", str(tmp_path / "out")], "fetching", 2e6),
        (["pull", remote.repository_url, "-R", f"file://{tmp_path}/local"], "copying", 20e6),
    ):
        store.bytes_per_s = bytes_per_s
        shown = Terminal(tuple(arguments), 80, {}).end()
        assert shown.code == 0, shown.out
        steps = {int(share) for share in re.findall(rf"{label} .*?(\d+)%", shown.out)}
        assert 100 in steps
        # Not only when a whole archive is done.
        assert any(0 < share < 100 for share in steps), shown.out
