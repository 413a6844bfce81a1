"""What is found out about user, machine, command and commit."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from keepsake.capture import environment
from keepsake.capture.environment import capture_environment

CAPTURE = "from keepsake.capture.environment import capture_environment as c; from pathlib import Path; print(c(Path()).command)"


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project directory; the working directory too."""
    directory = tmp_path / "hotdog"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


def command_of(*arguments: str, cwd: Path | None = None, **variables: str) -> str:
    """Return what a process that is started like this records as its command."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env={**os.environ, **variables}, capture_output=True, text=True, check=True
    )
    return done.stdout.rstrip("\n")


class TestMachine:
    def test_user_host_python_and_system(self, directory: Path) -> None:
        found = capture_environment(directory)
        assert found.user
        assert found.host
        assert found.python_version == ".".join(str(part) for part in sys.version_info[:3])
        assert found.pid == os.getpid()
        assert set(found.system) == {"os", "cpus", "memory_bytes", "gpus"}
        assert found.system["os"].split()[0] in ("Linux", "Darwin", "Windows")
        assert 1 <= found.system["cpus"] <= (os.cpu_count() or 1)
        assert found.system["memory_bytes"] > 2**20
        json.dumps(found.system)

    def test_user_and_host_can_be_said(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KEEPSAKE_USER", "ana")
        monkeypatch.setenv("KEEPSAKE_HOST", "node7")
        found = capture_environment(directory)
        assert (found.user, found.host) == ("ana", "node7")

    def test_a_user_without_a_name_is_no_error(self, directory: Path) -> None:
        """As in containers that run under an arbitrary number."""
        code = (
            "import getpass, os, pwd; from keepsake import log; from keepsake.capture.environment import _guarded\n"
            "os.geteuid() == 0 and os.setuid(123456)\n"
            "print(repr(_guarded('the name', getpass.getuser, '')))"
        )
        variables = dict.fromkeys(("LOGNAME", "USER", "LNAME", "USERNAME"), "")
        assert command_of("-c", code, **variables).startswith("'")

    def test_cpus_are_those_that_this_process_may_use(self) -> None:
        """Where a process can be bound to some of them, as on Linux."""
        code = (
            "import os; from keepsake.capture.environment import _cpus\n"
            "can_be_bound = hasattr(os, 'sched_setaffinity')\n"
            "can_be_bound and os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
            "print(_cpus() == 1 or not can_be_bound)"
        )
        assert command_of("-c", code) == "True"

    def test_control_groups_limit_cpus_and_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        values = {"cpu.max": ["max 100000", "150000 100000"], "memory.max": ["max", "1048576"]}
        monkeypatch.setattr(environment, "_control_group_values", lambda name: iter(values.get(name, [])))
        assert environment._cpus() == min(2, os.cpu_count() or 1)
        assert environment._memory_bytes() == 1048576

    @pytest.mark.parametrize(
        ("visible", "expected"),
        [(None, [0, 1]), ("", []), ("-1", []), ("1", [1]), ("1,0", [0, 1]), ("GPU-bbb", [1]), ("0,-1,1", [0]), ("MIG-x", [0, 1])],
    )
    def test_gpus_are_those_that_this_process_may_use(
        self, monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: list[int]
    ) -> None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        uuids = ["GPU-aaaa-1", "GPU-bbbb-2"]
        assert [index for index, uuid in enumerate(uuids) if environment._is_visible(index, uuid)] == expected


class FakeDriver:
    """Answers like NVIDIA's library, which comes with a driver that test machines lack."""

    def __init__(self, status: int = 0) -> None:
        self.status = status
        self.is_open = True

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:
        count._obj.value = 2
        return self.status

    def nvmlSystemGetDriverVersion(self, text: Any, length: int) -> int:
        text.value = b"550.54"
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, device: Any) -> int:
        device._obj.value = 1000 + index
        return 0

    def nvmlDeviceGetName(self, device: Any, text: Any, length: int) -> int:
        text.value = f"NVIDIA H{device.value}".encode()
        return 0

    def nvmlDeviceGetUUID(self, device: Any, text: Any, length: int) -> int:
        text.value = f"GPU-{device.value}".encode()
        return 0

    def nvmlDeviceGetMemoryInfo(self, device: Any, memory: Any) -> int:
        memory._obj.total = 80 * 2**30
        return 0

    def nvmlShutdown(self) -> int:
        self.is_open = False
        return 0


class TestGPUs:
    def test_they_are_named_with_their_memory_and_driver(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        driver = FakeDriver()
        monkeypatch.setattr(environment, "_nvml", lambda: driver)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
        assert capture_environment(directory).system["gpus"] == [
            {"name": "NVIDIA H1001", "memory_bytes": 80 * 2**30, "driver": "550.54"},
        ]
        assert not driver.is_open

    def test_a_driver_that_fails_is_no_error(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        driver = FakeDriver(status=999)
        monkeypatch.setattr(environment, "_nvml", lambda: driver)
        assert capture_environment(directory).system["gpus"] == []
        assert not driver.is_open


class TestCommand:
    def test_a_script(self, directory: Path) -> None:
        script = directory / "my train.py"
        script.write_text(CAPTURE, encoding="utf-8")
        assert command_of("my train.py", "--lr", "0.1", "a b") == "'my train.py' --lr 0.1 'a b'"
        assert shlex.split(command_of("./my train.py")) == ["./my train.py"]
        # No directory of this machine.
        assert command_of(str(script)) == "'my train.py'"
        assert command_of("-O", str(script), cwd=directory.parent) == "'hotdog/my train.py'"
        (directory.parent / "elsewhere").mkdir()
        assert command_of(str(script), cwd=directory.parent / "elsewhere") == "'my train.py'"

    def test_secrets_are_hidden(self, directory: Path) -> None:
        (directory / "train.py").write_text(CAPTURE, encoding="utf-8")
        command = command_of("train.py", "--api-key", "abc", "--max-tokens=5", "TOKEN=xyz")
        assert shlex.split(command) == ["train.py", "--api-key", "[redacted]", "--max-tokens=5", "TOKEN=[redacted]"]

    def test_a_module(self, directory: Path) -> None:
        (directory / "pkg").mkdir()
        for name in ("__init__", "__main__", "train"):
            (directory / "pkg" / f"{name}.py").write_text("" if name == "__init__" else CAPTURE, encoding="utf-8")
        assert command_of("-m", "pkg.train", "--lr", "1") == "python -m pkg.train --lr 1"
        assert command_of("-m", "pkg") == "python -m pkg"

    def test_code_on_the_command_line(self, directory: Path) -> None:
        assert shlex.split(command_of("-c", CAPTURE, "--lr", "1")) == ["python", "-c", CAPTURE, "--lr", "1"]
        assert "hunter2" not in command_of("-c", f"password = 'hunter2'\n{CAPTURE}")
        assert len(command_of("-c", f"{CAPTURE}\n{'#' * 10_000}")) < 1200

    def test_code_from_a_pipe_and_an_interpreter(self, directory: Path) -> None:
        done = subprocess.run([sys.executable, "-"], input=CAPTURE, capture_output=True, text=True, check=True)
        assert done.stdout == "python -\n"
        done = subprocess.run([sys.executable], input=CAPTURE, capture_output=True, text=True, check=True)
        assert done.stdout == "python\n"

    def test_a_notebook(self, directory: Path) -> None:
        kernel = directory.parent / "ipykernel_launcher.py"
        kernel.write_text(CAPTURE, encoding="utf-8")
        assert command_of(str(kernel), "-f", "/run/kernel-1.json") == "jupyter"
        command = command_of(str(kernel), "-f", "/run/kernel-1.json", JPY_SESSION_NAME="/home/ana/my notes.ipynb")
        assert command == "jupyter 'my notes.ipynb'"


class TestGit:
    def git(self, *arguments: str, cwd: Path) -> str:
        who = ["-c", "user.name=Ana", "-c", "user.email=ana@example.com", "-c", "init.defaultBranch=main"]
        done = subprocess.run(["git", *who, *arguments], cwd=cwd, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def found(self, directory: Path) -> dict[str, Any] | None:
        return capture_environment(directory).git

    @pytest.fixture
    def repository(self, directory: Path) -> Path:
        self.git("init", "--quiet", cwd=directory)
        (directory / "train.py").write_text("1", encoding="utf-8")
        self.git("add", ".", cwd=directory)
        self.git("commit", "--quiet", "-m", "one", cwd=directory)
        return directory

    def test_outside_git(self, directory: Path) -> None:
        assert self.found(directory) is None

    def test_no_commits_yet(self, directory: Path) -> None:
        self.git("init", "--quiet", cwd=directory)
        assert self.found(directory) == {"commit": None, "branch": "main", "dirty": False, "modified": 0, "remote": None}

    def test_commit_branch_and_changes(self, repository: Path) -> None:
        commit = self.git("rev-parse", "HEAD", cwd=repository)
        clean = {"commit": commit, "branch": "main", "dirty": False, "modified": 0, "remote": None}
        (repository / "untracked.txt").write_text("1", encoding="utf-8")
        (repository / "sub").mkdir()
        assert self.found(repository) == self.found(repository / "sub") == clean
        (repository / "train.py").write_text("2", encoding="utf-8")
        assert self.found(repository) == {**clean, "dirty": True, "modified": 1}

    def test_a_commit_that_is_on_no_branch(self, repository: Path) -> None:
        self.git("checkout", "--quiet", "--detach", cwd=repository)
        found = self.found(repository)
        assert found is not None
        assert found["branch"] is None
        assert found["commit"]

    def test_a_worktree(self, repository: Path) -> None:
        worktree = repository.parent / "other"
        self.git("worktree", "add", "--quiet", "-b", "side", str(worktree), cwd=repository)
        found = self.found(worktree)
        assert found is not None
        assert (found["branch"], found["dirty"]) == ("side", False)

    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("https://github.com/acme/hotdog.git", "https://github.com/acme/hotdog.git"),
            ("https://ana:hunter2@github.com/acme/hotdog", "https://ana:[redacted]@github.com/acme/hotdog"),
            ("https://ghp_16C7e42F292c6912E7710c838347@github.com/a/b", "https://[redacted]@github.com/a/b"),
            ("git@github.com:acme/hotdog.git", "git@github.com:acme/hotdog.git"),
            ("/home/ana/hotdog.git", None),
            ("file:///home/ana/hotdog.git", None),
            ("../hotdog.git", None),
        ],
    )
    def test_the_remote(self, repository: Path, url: str, expected: str | None) -> None:
        self.git("remote", "add", "upstream", "https://example.com/other", cwd=repository)
        self.git("remote", "add", "origin", url, cwd=repository)
        found = self.found(repository)
        assert found is not None
        assert found["remote"] == expected

    def test_another_remote_where_there_is_no_origin(self, repository: Path) -> None:
        self.git("remote", "add", "upstream", "https://example.com/other", cwd=repository)
        found = self.found(repository)
        assert found is not None
        assert found["remote"] == "https://example.com/other"

    def test_a_hooks_variables_do_not_lead_astray(
        self, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected = self.found(repository)
        monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
        assert self.found(repository) == expected

    def test_programs_named_in_the_repository_are_not_run(self, repository: Path) -> None:
        program = repository.parent / "evil"
        program.write_text(f"#!/bin/sh\ntouch {repository.parent}/ran\n", encoding="utf-8")
        program.chmod(0o755)
        self.git("config", "core.fsmonitor", str(program), cwd=repository)
        assert self.found(repository) is not None
        assert not (repository.parent / "ran").exists()

    def test_no_git_at_all(self, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert self.found(repository) is None

    @pytest.mark.parametrize("hangs", ["always", "at status"])
    def test_a_git_that_hangs_is_given_up(
        self, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hangs: str
    ) -> None:
        """It hangs together with a process that it started; else this test would not end."""
        commit = self.git("rev-parse", "HEAD", cwd=repository)
        real = subprocess.run(["which", "git"], capture_output=True, text=True, check=True).stdout.strip()
        program = tmp_path / "bin" / "git"
        program.parent.mkdir()
        condition = 'case "$*" in *status*) ;; *) exec "$REAL" "$@" ;; esac' if hangs == "at status" else ""
        program.write_text(f"#!/bin/sh\nREAL={real}\n{condition}\nsleep 1000 &\nwait\n", encoding="utf-8")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setattr(environment, "GIT_TIMEOUT_S", 0.5)
        found = self.found(repository)
        if hangs == "always":
            assert found is None
        else:
            assert found == {"commit": commit, "branch": "main", "dirty": None, "modified": None, "remote": None}


class TestSwitches:
    def test_git_and_gpus_are_left_out_and_not_said_to_be_absent(self, directory: Path) -> None:
        subprocess.run(["git", "init", "-q", "."], check=True)
        assert capture_environment(directory).git is not None
        found = capture_environment(directory, git=False, gpu=False)
        assert found.git is None
        assert "gpus" not in found.system

    def test_a_command_without_arguments(self, directory: Path) -> None:
        (directory / "train.py").write_text(CAPTURE.replace("c(Path())", "c(Path(), argv=False)"), encoding="utf-8")
        assert command_of("train.py", "--lr", "0.1") == "train.py"
        assert command_of("-c", CAPTURE.replace("c(Path())", "c(Path(), argv=False)"), "--lr", "0.1") == "python -c"

    def test_variables_are_taken_by_name_and_without_secrets(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SLURM_JOB_ID", "88123")
        monkeypatch.setenv("WANDB_API_KEY", "hunter2")
        monkeypatch.setenv("PROXY", "http://ana:hunter2@proxy:80")
        found = capture_environment(directory, env=["SLURM_JOB_ID", "WANDB_API_KEY", "PROXY", "NOT_SET", "SLURM_*"])
        assert found.system["env"] == {
            "SLURM_JOB_ID": "88123",
            "WANDB_API_KEY": "[redacted]",
            "PROXY": "http://ana:[redacted]@proxy:80",
        }
        assert "env" not in capture_environment(directory, env=["NOT_SET"]).system
        assert "env" not in capture_environment(directory).system
