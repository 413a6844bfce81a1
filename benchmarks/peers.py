"""The list of ten experiments in a terminal: whole commands of keepsake beside those of other trackers that are written in Python.

Run it with ``tox run -e bench-peers``. Each tracker has recorded ten runs of its own, on this machine and without a server. Two of
them list nothing that lies here: what they need to say their version is the least that any command of theirs could take.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from _measure import OURS, interleave, parser, report, workplace
from listing import FLOOR, run

if TYPE_CHECKING:
    from collections.abc import Callable

RUNS = 10

OUR_COMMAND = f"{OURS} ls"


def main() -> None:
    arguments = parser(__doc__, rounds=10).parse_args()
    with workplace(arguments.directory) as place:
        os.environ |= quiet(place)
        Path(os.environ["GUILD_HOME"]).mkdir()
        contenders = {FLOOR: functools.partial(run, [sys.executable, "-c", "pass"], place)}
        for name, peer in peers().items():
            if not peer.command.exists():
                print(f"without {name}: {peer.command} is not there")
                continue
            directory = place / name.replace(" ", "-")
            directory.mkdir()
            peer.record(directory)
            contenders[name] = functools.partial(run, [str(peer.command), *name.split()[1:]], directory)
        report(f"Listing {RUNS} experiments", interleave(contenders, arguments.rounds)["took"], OUR_COMMAND)


def quiet(place: Path) -> dict[str, str]:
    """Return the environment in which nothing calls home, and nothing is written outside of a directory."""
    return {
        "AIM__NO_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "DVC_NO_ANALYTICS": "1",
        "GUILD_HOME": str(place / "guild-home"),
        "HF_HUB_OFFLINE": "1",
        "HOME": str(place),
        "MLFLOW_TRACKING_URI": f"sqlite:///{place / 'mlflow.db'}",
        "TRACKIO_DIR": str(place / "trackio-home"),
        "WANDB_MODE": "offline",
    }


# --- the contenders -------------------------------------------------------------------------------------------------------


class Peer(NamedTuple):
    """A tracker.

    Args:
        command: Its program.
        record: Records runs, as those do that are listed in a directory.
    """

    command: Path
    record: Callable[[Path], None]


def peers() -> dict[str, Peer]:
    """Return the trackers by the command that lists what they have recorded."""
    here = Path(sys.executable).parent
    # It goes with no pydantic that the others go with.
    guild = Path(os.environ.get("KEEPSAKE_GUILD", here / "guild"))
    return {
        OUR_COMMAND: Peer(here / "keepsake", functools.partial(run_code, OURS_RECORDS)),
        "guild runs": Peer(guild, functools.partial(record_with_guild, guild)),
        "hf version": Peer(here / "hf", nothing),
        "trackio list runs --project digits": Peer(here / "trackio", functools.partial(run_code, TRACKIO_RECORDS)),
        "wandb --version": Peer(here / "wandb", nothing),
        "dvc exp show": Peer(here / "dvc", functools.partial(record_with_dvc, here / "dvc")),
        "aim runs ls": Peer(here / "aim", functools.partial(record_with_aim, here / "aim")),
        "mlflow runs list --experiment-id 0": Peer(here / "mlflow", functools.partial(run_code, MLFLOW_RECORDS)),
    }


OURS_RECORDS = """
import keepsake
for number in range(RUNS):
    experiment = keepsake.init(params={"lr": number})
    experiment.checkpoint(step=1, metrics={"loss": 1 / (number + 1)}, primary_metric=("loss", "minimize"))
    experiment.stop()
"""

TRACKIO_RECORDS = """
import trackio
for number in range(RUNS):
    trackio.init(project="digits", name=f"run-{number}", config={"lr": number}, embed=False)
    trackio.log({"loss": 1 / (number + 1)})
    trackio.finish()
"""

AIM_RECORDS = """
from aim import Run
for number in range(RUNS):
    run = Run()
    run["lr"] = number
    run.track(1 / (number + 1), name="loss")
    run.close()
"""

MLFLOW_RECORDS = """
import mlflow
for number in range(RUNS):
    with mlflow.start_run():
        mlflow.log_param("lr", number)
        mlflow.log_metric("loss", 1 / (number + 1))
"""


def nothing(directory: Path) -> None:
    """Record nothing: it would not be listed."""


def run_code(code: str, directory: Path) -> None:
    (directory / "keepsake.yaml").write_text("repository: file://.keepsake\n", encoding="utf-8")
    call(directory, sys.executable, "-c", f"RUNS = {RUNS}\n{code}")


def record_with_guild(guild: Path, directory: Path) -> None:
    (directory / "train.py").write_text('lr = 0\nprint("loss: 0.5")\n', encoding="utf-8")
    for number in range(RUNS):
        call(directory, str(guild), "run", "--yes", "train.py", f"lr={number}")


def record_with_dvc(dvc: Path, directory: Path) -> None:
    call(directory, "git", "init", "--quiet")
    call(directory, "git", "config", "user.name", "a")
    call(directory, "git", "config", "user.email", "a@example.com")
    call(directory, str(dvc), "init", "--quiet")
    (directory / "dvc.yaml").write_text("params: [params.yaml]\nmetrics: [metrics.json]\n", encoding="utf-8")
    (directory / "metrics.json").write_text('{"loss": 0.5}', encoding="utf-8")
    for number in range(RUNS):
        (directory / "params.yaml").write_text(f"lr: {number}\n", encoding="utf-8")
        if not number:
            call(directory, "git", "add", "--all")
            call(directory, "git", "commit", "--quiet", "--message", "Begin")
        call(directory, str(dvc), "exp", "save", "--quiet", "--name", f"run-{number}")


def record_with_aim(aim: Path, directory: Path) -> None:
    call(directory, str(aim), "init")
    run_code(AIM_RECORDS, directory)


def call(directory: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {done.stdout.decode(errors='replace')[-2000:]}")


if __name__ == "__main__":
    main()
