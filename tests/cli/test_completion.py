"""A shell completes words of ``keepsake``: the real bash, and zsh and fish where they are installed, by the scripts that users get."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepsake.cli import COMMANDS, completing
from keepsake.cli.completing import SCRIPTS
from keepsake.query.known import Known
from keepsake.repository import layout
from keepsake.repository.cache import cache_file
from tests.cli.conftest import FINISHED, FINISHED_BEST, IN_ORDER, Repo, Result, checkpoint
from tests.conftest import ROOT

Run = Callable[..., Result]
Complete = Callable[[str], list[str]]

BREAKS = " \t\n\"'@><=;|&(:"
"""What ends a word for the line editor of bash, where nobody has said otherwise."""

ASK = {
    "bash": """
source "$1"
COMP_WORDBREAKS=$' \\t\\n"\\'@><=;|&(:'
COMP_LINE=$2 COMP_POINT=${#2}
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
PREFIX=${words[CURRENT]}
compadd() { printf '%s\\n' "${(@P)@[-1]}" }
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
    checkpoints = ["warm-up@best", "warm-up@latest", "warm-up@step:", "warm-up@step:100", "warm-up@step:200"]
    assert sorted(complete("keepsake show warm-up@")) == checkpoints
    assert complete("keepsake show eb9@step:1") == ["eb9@step:100"]
    assert sorted(complete("keepsake show last@")) == ["last@best", "last@latest", "last@step:"]
    assert {id[:7] for id in IN_ORDER} <= set(complete("keepsake rm "))
    assert complete("keepsake show eb96def ") == []
    assert complete("keepsake tag eb96def pr") == ["prod"]
    assert complete("keepsake ls -f val_l") == ["val_loss"]
    assert complete("keepsake ls -c lr,+val_l") == ["lr,+val_loss"]
    assert complete("keepsake ls -s -val_l") == ["-val_loss"]
    assert complete("keepsake alias prod") == ["production"]
    assert complete("keepsake alias @prod") == ["@production"]


def test_the_newest_experiment_comes_first(repo: Repo, here: Run, complete: Complete) -> None:
    here("ls")
    offered = [id for id in complete("keepsake rm ") if id in {whole[:7] for whole in IN_ORDER}]
    assert offered == [id[:7] for id in reversed(IN_ORDER)]


def test_people_see_what_they_know_things_by(repo: Repo, here: Run, command: Path) -> None:
    here("name", "eb96def", "warm-up")
    here("ls")
    meanings = dict(line.split("\t") for line in answer(repo, "show", "").stdout.splitlines()[1:])
    assert re.fullmatch(r"\d+d ago, finished, val_loss 0\.2121, warm-up", meanings["eb96def"])
    assert re.fullmatch(r"\d+d ago, failed", meanings["76ab171"])
    assert meanings["warm-up"] == "name of eb96def"
    meanings = dict(line.split("\t") for line in answer(repo, "show", "fe6a").stdout.splitlines()[1:])
    assert meanings == {"fe6a313": "checkpoint of eb96def, step 100, val_loss 0.2121"}
    meanings = dict(line.split("\t") for line in answer(repo, "show", "eb9@").stdout.splitlines()[1:])
    assert meanings["eb9@best"] == "step 100, val_loss 0.2121"
    assert meanings["eb9@latest"] == "step 200, val_loss 0.25"


# --- at the keyboard --------------------------------------------------------------------------------------------------

PROGRAM = """\
import json, os, pathlib, sys
if "_KEEPSAKE_COMPLETE" in os.environ:
    from keepsake.__main__ import main
    main()
pathlib.Path(os.environ["SEEN"]).write_text(json.dumps(sys.argv[1:]))
print("se" + "en")
"""
"""A command that completes as ``keepsake`` does, and writes down with which words it is run."""

INTERACTIVE = {
    "bash": (["--norc", "--noprofile", "-i"], "source {script}; echo rea''dy\n"),
    "zsh": (["-f", "-i"], "autoload -Uz compinit; compinit -D -u; source {script}; echo rea''dy\n"),
    "fish": (["--no-config", "-i"], "source {script}; echo rea''dy\n"),
}


@pytest.fixture(params=SHELLS)
def typed(request: pytest.FixtureRequest, command: Path, tmp_path: Path, terminal: Any) -> Callable[[str], list[str]]:
    """Type a line into a shell on a terminal, press the tab key and Enter, and return the words with which ``keepsake`` is run."""
    shell = request.param
    (command / "keepsake").write_text(f"#!{sys.executable}\n{PROGRAM}")
    (tmp_path / "script").write_text(SCRIPTS[shell])
    flags, setup = INTERACTIVE[shell]
    seen = tmp_path / "seen.json"

    def run(line: str) -> list[str]:
        screen = terminal(shell, *flags, width=200, code="os.execvp(sys.argv[1], sys.argv[1:])", SEEN=str(seen), TERM="dumb")
        screen.type(setup.format(script=tmp_path / "script"))
        screen.wait_for("ready")
        # A quotation that is open after the tab key is closed by it.
        screen.type(f"{line}\t\n")
        screen.wait_for("seen")
        words: list[str] = json.loads(seen.read_text())
        return words

    return run


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("keepsake sho", ["show"]),
        ("keepsake show eb9", ["show", "eb96def"]),
        ("keepsake show @pro", ["show", "@production"]),
        ("keepsake show eb96def@be", ["show", "eb96def@best"]),
        ("keepsake ls --filter=val_l", ["ls", "--filter=val_loss"]),
        ('keepsake ls --filter="val_l', ["ls", "--filter=val_loss"]),
        ('keepsake ls -f "lr > 0.1 and val_l', ["ls", "-f", "lr > 0.1 and val_loss"]),
        ("keepsake ls -f 'lr > 0.1 and val_l", ["ls", "-f", "lr > 0.1 and val_loss"]),
        (r"keepsake ls -f lr\ \>\ 0.1\ and\ val_l", ["ls", "-f", "lr > 0.1 and val_loss"]),
        (r"keepsake ls -f \$\(touch\ trap\)\ and\ val_l", ["ls", "-f", "$(touch trap) and val_loss"]),
    ],
)
def test_what_was_typed_stays_as_it_was_meant(
    repo: Repo, here: Run, typed: Callable[[str], list[str]], line: str, words: list[str]
) -> None:
    here("alias", "production", "eb96def@best")
    here("ls")
    assert typed(line) == words
    assert not (repo.directory / "trap").exists()


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), min_size=1))
def test_a_line_means_to_us_what_it_means_to_a_shell(words: list[str]) -> None:
    line = completing._Line.parse(" ".join(map(shlex.quote, words)), BREAKS)
    assert line.words == words
    assert all(completing._unquoted(shlex.quote(word)) == word for word in words)


@given(st.text(alphabet="ab \\t'\"\\\\=:@$;"))
def test_of_any_line_its_last_part_is_replaced_and_no_more(text: str) -> None:
    line = completing._Line.parse(text, BREAKS)
    assert text.endswith(line.replaced)
    assert line.words


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


def test_nothing_that_was_recorded_is_taken_for_an_option(repo: Repo, here: Run, complete: Complete) -> None:
    repo.repository.storage.write(layout.annotations_key(FINISHED), b'{"name": "--force", "tags": ["--remove"], "notes": ""}')
    here("ls")
    assert "--force" not in complete("keepsake rm ")
    assert complete("keepsake tag eb96def ") == []


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
        assert (done.stdout, done.stderr) == ("words\n", "")
    locked.close()
    index.write_bytes(b"no database" * 1000)
    done = answer(repo, "show", "eb9")
    assert (done.stdout, done.stderr) == ("words\n", "")
    assert index.read_bytes() == b"no database" * 1000


@pytest.mark.parametrize("said", ["s3://acme-hotdog/x/", "S3://acme-hotdog/x"])
def test_the_index_of_a_bucket_is_found_without_its_library(said: str) -> None:
    assert Known(said)._path == cache_file("s3://acme-hotdog/x", "index")


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
