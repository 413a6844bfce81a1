"""A shell completes words of ``keepsake``: the real bash, and zsh and fish where they are installed, by the scripts that users get."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from keepsake.cli import COMMANDS
from keepsake.query.known import Known
from keepsake.repository import layout
from tests.cli.conftest import FINISHED, FINISHED_BEST, IN_ORDER, Repo, Result, checkpoint
from tests.conftest import ROOT

Run = Callable[..., Result]
Complete = Callable[[str], list[str]]

ASK = {
    "bash": """
source "$1"
COMP_LINE=$2 COMP_POINT=${#2} COMP_WORDBREAKS=$' \\t\\n"\\'@><=;|&(:'
compopt() { echo "$*"; }
_keepsake keepsake
printf '%s\\n' "${COMPREPLY[@]}"
""",
    "zsh": """
compdef() { : }
source "$1"
words=("${(@z)2}")
[[ $2 == *' ' ]] && words+=('')
CURRENT=$#words
compadd() { printf '%s\\n' "${found[@]}" }
_files() { echo "files $*" }
_keepsake
""",
    "fish": 'source $argv[1]; complete -C $argv[2] | string replace -r "\\t.*" ""; true',
}
"""What makes a shell print what it would offer; bash leaves out of each word what it takes for a word of its own."""

SHELLS = [shell for shell in ASK if shutil.which(shell)]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the command ``keepsake``, which stands first on the path."""
    directory = tmp_path / "bin"
    directory.mkdir()
    program = directory / "keepsake"
    program.write_text(f"#!{sys.executable}\nfrom keepsake.__main__ import main\nmain()\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(directory), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return directory


@pytest.fixture(params=SHELLS)
def complete(request: pytest.FixtureRequest, command: Path, tmp_path: Path, repo: Repo) -> Complete:
    """Return what a shell offers for a line."""
    shell = request.param
    script = tmp_path / "script"
    script.write_text(subprocess.run(["keepsake", "completion", shell], check=True, capture_output=True, text=True).stdout)
    flags = {"bash": ["--norc", "-c"], "zsh": ["-f", "-c"], "fish": ["--no-config", "-c"]}[shell]
    names = [] if shell == "fish" else [shell]

    def ask(line: str) -> list[str]:
        arguments = [shell, *flags, ASK[shell], *names, str(script), line]
        done = subprocess.run(arguments, check=True, capture_output=True, text=True, cwd=repo.directory)
        assert done.stderr == ""
        offered = done.stdout.splitlines()
        if shell == "bash":
            word = line.rpartition(" ")[2]
            # Of these only @ belongs to the word that it begins.
            kept = word[: max(word.rfind("@"), word.rfind("=") + 1, word.rfind(":") + 1, 0)]
            offered = [kept + one for one in offered]
        return [one for one in offered if one]

    return ask


def test_commands_options_and_their_values(repo: Repo, complete: Complete) -> None:
    assert sorted(complete("keepsake s")) == ["show", "sync"]
    assert set(complete("keepsake ")) >= set(COMMANDS)
    assert complete("keepsake ls --form") == ["--format"]
    assert complete("keepsake ls --format js") in (["json", "jsonl"], ["jsonl", "json"])
    assert complete("keepsake diff --only params,met") == ["params,metrics"]
    assert complete("keepsake help exit") == ["exit-codes"]
    assert complete("keepsake no-such-command x") == []


def test_what_the_last_ls_has_seen(repo: Repo, here: Run, complete: Complete) -> None:
    assert complete("keepsake show eb9") == []
    here("name", "eb96def", "warm-up")
    here("tag", "eb96def", "prod")
    here("alias", "production", "eb96def@best")
    here("ls")
    assert complete("keepsake show eb9") == [FINISHED[:7]]
    assert complete("keepsake show fe6a") == [FINISHED_BEST[:7]]
    assert complete("keepsake show warm") == ["warm-up"]
    assert complete("keepsake show @pro") == ["@production"]
    assert sorted(complete("keepsake show warm-up@")) == ["warm-up@best", "warm-up@latest", "warm-up@step:"]
    assert {id[:7] for id in IN_ORDER} <= set(complete("keepsake rm "))
    assert complete("keepsake show eb96def ") == []
    assert complete("keepsake tag eb96def pr") == ["prod"]
    assert complete("keepsake ls -f val_l") == ["val_loss"]
    assert complete("keepsake ls -c lr,+val_l") == ["lr,+val_loss"]
    assert complete("keepsake ls -s -val_l") == ["-val_loss"]


def test_nothing_that_was_recorded_means_anything_to_a_shell(repo: Repo, here: Run, complete: Complete) -> None:
    trap = repo.directory / "trap"
    hostile = [
        f"val_loss$(touch {trap})",
        f"val_loss`touch {trap}`",
        f"val_loss; touch {trap}",
        "val_loss\nval_x",
        "val_loss'\"",
        "val_loss\x1b[2J",
    ]
    repo.add(
        "7" * 64, params=dict.fromkeys(hostile, 1), checkpoints=[checkpoint("8" * 64, 1, 1, metrics=dict.fromkeys(hostile, 0.5))]
    )
    repo.repository.storage.write(
        layout.annotations_key("7" * 64), b'{"name": "$(touch trap)", "tags": ["`touch trap`"], "notes": ""}'
    )
    here("ls")
    assert complete("keepsake ls -f val_lo") == ["val_loss"]
    assert not any("touch" in one for one in complete("keepsake show ") + complete("keepsake tag eb96def "))
    assert not trap.exists()


def test_directories_are_left_to_the_shell(repo: Repo, complete: Complete) -> None:
    (repo.directory / "somewhere").mkdir()
    found = complete("keepsake checkout -o some")
    assert found in (["-o dirnames"], ["files -/"], ["somewhere/"])


# --- what nobody at the keyboard may notice ---------------------------------------------------------------------------


def answer(repo: Repo, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"_KEEPSAKE_COMPLETE": "zsh"}
    return subprocess.run(["keepsake", *words], check=True, capture_output=True, text=True, cwd=repo.directory, env=environment)


def index_of(repo: Repo) -> Path:
    return Known(f"file://{repo.root}")._path


def test_an_index_that_is_absent_damaged_or_locked_is_no_error(repo: Repo, here: Run, command: Path) -> None:
    index = index_of(repo)
    assert answer(repo, "show", "eb9").stdout == "words\n"
    assert not index.exists()
    here("ls")
    assert answer(repo, "show", "eb9").stdout.splitlines()[1].startswith("eb96def\t")
    with sqlite3.connect(index) as locked:
        locked.execute("BEGIN EXCLUSIVE")
        done = answer(repo, "show", "eb9")
        assert done.stderr == ""
    locked.close()
    index.write_bytes(b"no database" * 1000)
    done = answer(repo, "show", "eb9")
    assert (done.stdout, done.stderr) == ("words\n", "")
    assert index.read_bytes() == b"no database" * 1000


@pytest.mark.parametrize(
    "config", ["repository: [", "repository: s3://no-such-bucket/x", "repository: gs://no-such-bucket", "", "\0"]
)
def test_a_configuration_that_leads_nowhere_is_no_error(repo: Repo, command: Path, config: str) -> None:
    (repo.directory / "keepsake.yaml").write_text(config)
    done = answer(repo, "show", "eb9")
    assert done.stdout in ("words\n", "")
    assert done.stderr == ""


def test_the_name_of_a_command_loads_no_command(repo: Repo, command: Path) -> None:
    script = "import os, sys; os.environ['_KEEPSAKE_COMPLETE'] = 'zsh'; from keepsake.cli import run; run(['sh'])"
    script += "; heavy = {'yaml', 'sqlite3', 'boto3'}.intersection(sys.modules)"
    script += "; print(*heavy, *(name for name in sys.modules if name.endswith('_command')), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=repo.directory)
    assert (done.stdout.splitlines()[1].partition("\t")[0], done.stderr) == ("show", "\n")


def test_a_shell_that_is_unknown(here: Run, repo: Repo) -> None:
    assert here("completion", "tcsh").code == 2
