"""``keepsake show``: everything about one experiment or checkpoint."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

import keepsake as keepsake_package
from keepsake import Project
from keepsake.repository import annotations, layout
from keepsake.repository.annotations import Annotation
from keepsake.repository.primary_metric import PrimaryMetric
from tests.cli.conftest import FINISHED, FINISHED_BEST, FINISHED_LATEST, Repo, Result, checkpoint, full_id

Run = Callable[..., Result]


def test_an_experiment(repo: Repo, keepsake: Run) -> None:
    result = keepsake("show", "eb96def")
    assert (result.code, result.err) == (0, "")
    assert re.fullmatch(r"Experiment eb96def  stopped \(finished\) \d+d ago", result.lines[0])
    for line in (
        f"ID          {FINISHED}",
        "Ran         2026-03-01 08:00:00 UTC for 1h 12m",
        "Command     python train.py",
        "Where       ana@gpu-07, Python 3.12.4",
        "Git         8f3c2ad on main, with changes that are not committed",
        "  model.depth  3",
        "  val_loss (min)  0.2121  0.2500  ▁█",
    ):
        assert line in result.lines


def test_why_an_experiment_does_not_run(repo: Repo, here: Run) -> None:
    assert here("show", "76ab171").lines[0] == "Experiment 76ab171  failed after 2m: RuntimeError: CUDA out of memory"
    assert "stopped (interrupted: SIGTERM)" in here("show", "91af3b0").lines[0]
    assert re.search(r"stopped \(no heartbeat since .* UTC \(host gpu-07\)\)", here("show", "4591273").lines[0])
    assert here("show", "bfb06bc").lines[0] == "Experiment bfb06bc  running"


def test_a_checkpoint(repo: Repo, here: Run) -> None:
    result = here("show", "fe6a313")
    assert result.lines[0].startswith("Checkpoint fe6a313  step 100, ")
    assert f"ID          {FINISHED_BEST}" in result.lines
    assert "  acc             0.9411" in result.lines
    assert any(line.startswith("Experiment eb96def") for line in result.lines)


def test_json(repo: Repo, keepsake: Run) -> None:
    shown = json.loads(keepsake("show", "eb96def", "--json").out)
    assert (shown["id"], shown["best_checkpoint"], shown["latest_checkpoint"]) == (FINISHED, FINISHED_BEST, FINISHED_LATEST)
    assert (shown["status"], shown["running"], len(shown["checkpoints"])) == ("stopped", False, 2)
    checkpoint = json.loads(keepsake("show", "fe6a313", "--json").out)
    assert (checkpoint["id"], checkpoint["experiment"]["id"]) == (FINISHED_BEST, FINISHED)


def test_all_shows_what_a_terminal_is_spared_otherwise(repo: Repo, here: Run, terminal) -> None:
    repo.add("aaaaaaa", params={f"p{number}": number for number in range(40)})
    assert "16 more: --all" in terminal("show", "aaaaaaa").end().out
    assert "  p39" not in terminal("show", "aaaaaaa").end().out
    assert "  p39" in terminal("show", "aaaaaaa", "--all").end().out
    assert "  p39" in here("show", "aaaaaaa").out


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_a_page_fits_the_terminal(repo: Repo, terminal, width: int) -> None:
    repo.add("aaaaaaa", command="python train.py " + "--option value " * 40, error="x" * 500, outcome="failed")
    for id in ("aaaaaaa", "eb96def", "fe6a313"):
        lines = terminal("show", id, width=width, NO_COLOR="1").end().lines
        assert len(lines) > 5
        assert max(map(len, lines)) <= width


def test_a_history_makes_the_trend(project: Project, keepsake: Run) -> None:
    experiment = keepsake_package.init(quiet=True)
    for step in range(24):
        experiment.log({"loss": 24 - step}, step=step)
    experiment.stop()
    assert "  loss      1  ██▇▆▆▅▄▃▃▂▁▁" in keepsake("show", experiment.id).lines


def test_trends_and_trees_are_ascii_where_nothing_else_can_be_shown(repo: Repo, keepsake: Run) -> None:
    assert "  val_loss (min)  0.2121  0.2500  _#" in keepsake("show", "eb96def", PYTHONIOENCODING="ascii").lines
    assert keepsake("show", "eb96def", "--code", PYTHONIOENCODING="ascii").lines[0] == "|-- lib/"


def test_commands_to_paste_name_the_repository_again(repo: Repo, keepsake: Run, tmp_path: Path) -> None:
    url = f"file://{repo.root}"
    lines = keepsake("show", "eb96def", "-R", url, cwd=tmp_path).lines
    assert lines[-2].startswith(f"keepsake checkout eb96def -o out/ -R {url}")


def test_what_people_said_of_it_later(repo: Repo, keepsake: Run) -> None:
    said = Annotation("warm-up", ("base", "paper"), "lower dropout\nafter sweep 3")
    annotations.change(repo.repository, FINISHED, lambda _: said)
    annotations.set_alias(repo.repository, "production", annotations.Alias(FINISHED_BEST, FINISHED))
    page = keepsake("show", "warm-up").lines
    assert page[2] == "Name        warm-up    Tags  base, paper    Aliases  @production"
    assert page[page.index("Notes       lower dropout") + 1] == "            after sweep 3"
    assert next(line for line in page if line.startswith("fe6a313")).endswith("  best, @production")
    assert "Aliases     @production" in keepsake("show", "@production").lines
    shown = json.loads(keepsake("show", "eb96def", "--json").out)
    assert (shown["name"], shown["tags"], shown["notes"]) == ("warm-up", ["base", "paper"], "lower dropout\nafter sweep 3")
    assert shown["aliases"] == {"production": FINISHED_BEST}
    checkpoint = json.loads(keepsake("show", "eb96def@best", "--json").out)
    assert (checkpoint["id"], checkpoint["aliases"]) == (FINISHED_BEST, ["production"])
    assert json.loads(keepsake("show", "eb96def@latest", "--json").out)["aliases"] == []
    assert keepsake("show", "warm-up", "--path", "train.py").out == "print('train')\n"


# --- files ------------------------------------------------------------------------------------------------------------


def test_files_of_the_code_and_of_a_checkpoint(repo: Repo, keepsake: Run) -> None:
    digest = hashlib.sha256(b"best weights").hexdigest()
    assert keepsake("show", "fe6a313", "--files").lines == [f"SIZE  SHA256{' ' * 58}  PATH", f"12 B  {digest}  model.pth"]
    code = keepsake("show", "eb96def", "--files")
    assert (code.code, code.err) == (0, "")
    assert [line.split()[-1] for line in code.lines] == ["PATH", "keepsake.yaml", "lib/net.py", "train.py"]


def test_files_as_json(repo: Repo, keepsake: Run) -> None:
    assert "files" not in json.loads(keepsake("show", "eb96def", "--json").out)
    [file] = json.loads(keepsake("show", "fe6a313", "--files", "--json").out)["files"]
    assert file == {
        "path": "model.pth",
        "kind": "file",
        "size_bytes": 12,
        "sha256": hashlib.sha256(b"best weights").hexdigest(),
        "link_target": None,
        "modified": "2023-11-14T22:13:20.000000Z",
    }
    assert len(json.loads(keepsake("show", "eb96def", "--files", "--json").out)["files"]) == 3


def test_the_page_of_a_checkpoint_lists_its_first_files(repo: Repo, here: Run, terminal) -> None:
    assert any(line.endswith("  model.pth") and line.startswith("12 B  ") for line in here("show", "fe6a313").lines)
    many = {f"shard-{number:02}.bin": bytes(number) for number in range(14)}
    info = repo.archive(layout.checkpoint_archive_key(full_id("cc")), many)
    repo.add("aaaaaaa", checkpoints=[checkpoint(full_id("cc"), 1, 1, path="out", archive=info)])
    shown = terminal("show", "cc").end().out
    assert "shard-09.bin" in shown
    assert "shard-10.bin" not in shown
    assert "… 4 more: --files" in shown
    assert "shard-13.bin" in terminal("show", "cc", "--files").end().out


def test_the_tree_of_the_code(repo: Repo, keepsake: Run) -> None:
    lines = ["├── lib/", "│   └── net.py     10 B", "├── keepsake.yaml  37 B", "└── train.py       15 B"]
    assert keepsake("show", "eb96def", "--code").lines == lines
    assert keepsake("show", "fe6a313", "--code").lines == lines


def test_only_the_index_of_an_archive_is_read(repo: Repo, keepsake: Run) -> None:
    path = repo.root / layout.checkpoint_archive_key(FINISHED_BEST)
    content = path.read_bytes()
    path.write_bytes(bytes(20) + content[20:])
    for arguments in (["--files"], []):
        result = keepsake("show", "fe6a313", *arguments)
        assert (result.code, result.err) == (0, "")
        assert "model.pth" in result.out


def test_a_page_is_shown_even_if_the_files_are_gone(repo: Repo, keepsake: Run) -> None:
    (repo.root / layout.checkpoint_archive_key(FINISHED_BEST)).unlink()
    result = keepsake("show", "fe6a313")
    assert result.code == 0
    assert result.err == "warning: the files of checkpoint fe6a313 in file://.keepsake are not in the repository\n"
    assert "Checkpoint fe6a313" in result.out
    assert keepsake("show", "fe6a313", "--files").code == 1


def test_an_archive_of_the_original_is_read_for_files_alone(repo: Repo, keepsake: Run) -> None:
    id = full_id("cc")
    with tarfile.open(repo.root / layout.checkpoint_archive_key(id), "w:gz") as tar:
        member = tarfile.TarInfo(f"{id}/model.pth")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"data"))
    repo.add("aaaaaaa", checkpoints=[checkpoint(id, 1, 1, path="model.pth")])
    assert "Files" not in keepsake("show", "cc").out
    assert keepsake("show", "cc", "--files").lines == ["SIZE  SHA256  PATH", " 4 B  -       model.pth"]


def test_what_has_no_files(repo: Repo, keepsake: Run) -> None:
    for arguments in (["76ab171", "--files"], ["76ab171", "--code"], ["45da0f8", "--files"]):
        result = keepsake("show", *arguments)
        assert (result.code, result.out) == (3, "")
        assert result.err.startswith("error: ")


def test_one_question_at_a_time(repo: Repo, keepsake: Run) -> None:
    for arguments in (["--files", "--code"], ["--json", "--path", "train.py"], ["--code", "--json"], ["--path", "x", "--files"]):
        result = keepsake("show", "eb96def", *arguments)
        assert (result.code, result.out) == (2, "")
        assert "cannot be given together" in result.err


# --- one file ---------------------------------------------------------------------------------------------------------


def test_a_file_of_the_code(repo: Repo, keepsake: Run) -> None:
    assert keepsake("show", "eb96def", "--path", "train.py") == Result(0, "print('train')\n", "")
    assert keepsake("show", "eb96def", "--path", "./lib/net.py") == Result(0, "depth = 3\n", "")


def test_a_file_that_lies_elsewhere_says_where(repo: Repo, keepsake: Run) -> None:
    assert keepsake("show", "0b77c4e", "--path", "model.pth") == Result(0, "latest weights", "")
    best = "from checkpoint fe6a313, the best one\n"
    assert keepsake("show", "eb96def", "--path", "model.pth") == Result(0, "best weights", best)
    code = "from the code of experiment eb96def\n"
    assert keepsake("show", "0b77c4e", "--path", "train.py") == Result(0, "print('train')\n", code)


def test_without_a_best_checkpoint_it_is_the_latest(repo: Repo, keepsake: Run) -> None:
    stored = []
    for step, start in enumerate(("c1", "c2")):
        id = full_id(start)
        info = repo.archive(layout.checkpoint_archive_key(id), {"out/w.bin": start.encode()})
        stored.append(checkpoint(id, step, step, primary=None, path="out", archive=info))
    repo.add("aaaaaaa", checkpoints=stored)
    assert keepsake("show", "aaaaaaa", "--path", "out/w.bin") == Result(0, "c2", "from checkpoint c200000\n")


def test_bytes_go_into_a_pipe_as_they_are(repo: Repo, keepsake: Run) -> None:
    content = bytes(range(256)) * 1000
    info = repo.archive(layout.experiment_archive_key(full_id("aaaaaaa")), {"all.bin": content})
    repo.add("aaaaaaa", path=".", archive=info)
    command = [sys.executable, "-m", "keepsake", "show", "aaaaaaa", "--path", "all.bin"]
    assert subprocess.run(command, capture_output=True, check=True).stdout == content


def test_a_terminal_gets_no_binary_file(repo: Repo, terminal) -> None:
    for name, content in {"weights.bin": b"PK" + bytes(9), "latin.txt": "é".encode("latin-1") * 9}.items():
        info = repo.archive(layout.experiment_archive_key(full_id("aaaaaaa")), {name: content})
        repo.add("aaaaaaa", path=".", archive=info)
        result = terminal("show", "aaaaaaa", "--path", name).end()
        assert result.code == 1
        assert result.lines[0] == f'error: "{name}" is binary ({len(content)} B), which is not for a terminal'
        assert f"hint: keepsake show aaaaaaa --path {name} > {name}   or   keepsake checkout" in result.out


def test_a_terminal_gets_text_that_cannot_steer_it(repo: Repo, terminal, keepsake: Run) -> None:
    evil = "a\tb\x1b[2J\x9b\u202e\x07\rhidden\r\nend 模型\n"
    late = b"x" * 9000 + b"\xff\xfe\x1b"
    info = repo.archive(layout.experiment_archive_key(full_id("aaaaaaa")), {"evil.txt": evil.encode(), "late.txt": late})
    repo.add("aaaaaaa", path=".", archive=info)
    shown = terminal("show", "aaaaaaa", "--path", "evil.txt").end()
    assert (shown.code, shown.out) == (0, "a\tb\\x1b[2J\\x9b\\u202e\\x07\nhidden\nend 模型\n")
    assert terminal("show", "aaaaaaa", "--path", "late.txt").end().out == "x" * 9000 + "\\xff\\xfe\\x1b"


def test_a_file_that_was_not_saved(repo: Repo, keepsake: Run) -> None:
    result = keepsake("show", "eb96def", "--path", "modle.pth")
    assert (result.code, result.out) == (3, "")
    assert result.err.splitlines() == [
        'error: no file "modle.pth" in the code of experiment eb96def or in checkpoint fe6a313, the best one',
        "close to it: model.pth",
        "hint: keepsake show eb96def --files",
    ]
    assert "close to it: lib/net.py" in keepsake("show", "eb96def", "--path", "net.py").err
    assert "there are: keepsake.yaml, lib/net.py, train.py, model.pth" in keepsake("show", "eb96def", "--path", "zzzzzz").err
    assert keepsake("show", "76ab171", "--path", "x").err.startswith("error: nothing was saved with 76ab171")


def test_a_link_says_where_it_leads(repo: Repo, keepsake: Run) -> None:
    id = full_id("aaaaaaa")
    with tarfile.open(repo.root / layout.experiment_archive_key(id), "w:gz") as tar:
        tar.addfile(tarfile.TarInfo(f"{id}/lib/train.py"))
        link = tarfile.TarInfo(f"{id}/lib/main.py")
        link.type, link.linkname = tarfile.SYMTYPE, "train.py"
        tar.addfile(link)
    repo.add("aaaaaaa", path=".")
    result = keepsake("show", "aaaaaaa", "--path", "lib/main.py")
    assert result.code == 3
    assert result.err.splitlines() == [
        'error: "lib/main.py" is a link to "lib/train.py"',
        "hint: keepsake show aaaaaaa --path lib/train.py",
    ]


# --- hostile text -----------------------------------------------------------------------------------------------------


def test_nothing_recorded_steers_the_terminal(repo: Repo, here: Run, terminal) -> None:
    evil = "\x1b]0;pwned\x07\x1b[2J\u202e\x9b"
    name = f"di{evil}r/fi{evil}le.py"
    info = repo.archive(layout.experiment_archive_key(full_id("aaaaaaa")), {name: evil.encode()})
    weights = repo.archive(layout.checkpoint_archive_key(full_id("cc")), {name: evil.encode()})
    saved = checkpoint(full_id("cc"), 1, 1, primary=PrimaryMetric(evil, "minimize"), path=evil, archive=weights)
    saved.metrics = {evil: 0.5, f"text{evil}": evil}
    texts = dict.fromkeys(("user", "host", "command", "python_version", "error"), evil)
    repo.add(
        "aaaaaaa",
        **texts,
        path=".",
        archive=info,
        outcome="failed",
        params={evil: {evil: evil}},
        python_packages={evil: evil},
        git={"commit": evil, "branch": evil, "remote": evil},
        system={"os": evil, "gpus": [{"name": evil, "driver": evil}]},
        checkpoints=[saved],
    )
    # Written as somebody else may have done it: our own commands take no such name.
    annotation = json.dumps({"name": f"name{evil}", "tags": [f"tag{evil}"], "notes": f"notes{evil}"})
    repo.repository.storage.write(layout.annotations_key(full_id("aaaaaaa")), annotation.encode())
    for id in ("aaaaaaa", "cc"):
        for arguments in ([], ["--all"], ["--files"], ["--code"], ["--json"], ["--json", "--files"], ["--path", "nothing"]):
            shown = [here("show", id, *arguments), terminal("show", id, *arguments, NO_COLOR="1").end()]
            for result in shown:
                assert not set(result.out + result.err) & {"\x1b", "\x07", "\u202e", "\x9b"}, arguments
                assert "pwned" in result.out + result.err
    assert "\x1b" not in terminal("show", "aaaaaaa", "--path", name, NO_COLOR="1").end().out
    assert "Notes       notes\\x1b]0;pwned" in here("show", "aaaaaaa").out
