"""Who runs what, on which machine, from which commit: what an experiment records of its surroundings.

Each part may fail by itself: then it is left out, and the training goes on. Nothing here asks the network, and environment
variables are read one by one by name, never all.
"""

from __future__ import annotations

import contextlib
import ctypes
import getpass
import math
import os
import platform
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from keepsake import messages
from keepsake.capture.git import Git
from keepsake.capture.redaction import redact_command, redact_params, redact_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_T = TypeVar("_T")

GIT_TIMEOUT_S = 2.0
"""Longest time that Git may take in all: repositories on a network's file system can take minutes."""

MAX_CODE_LENGTH = 1_000
"""Longest text of ``python -c`` that is recorded, in characters."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What was found out.

    Args:
        user: Name of the user.
        host: Name of the machine.
        command: The command line, quoted for a shell, without secrets.
        python_version: Such as ``"3.11.7"``.
        pid: ID of the process.
        system: ``os``, ``cpus`` and ``memory_bytes`` that this process may use, ``gpus`` with their names and memory, ``env`` with the
            variables that were asked for.
        git: ``commit``, ``branch``, ``dirty``, how many files are ``modified``, and ``remote``; None outside Git.
    """

    user: str
    host: str
    command: str
    python_version: str
    pid: int
    system: dict[str, Any]
    git: dict[str, Any] | None


def capture_environment(
    directory: Path, *, git: bool = True, gpu: bool = True, argv: bool = True, env: Sequence[str] = ()
) -> Environment:
    """Find out in which surroundings this process runs; never raises.

    Args:
        directory: The project directory.
        git: Whether to ask Git.
        gpu: Whether to look for GPUs; ``system`` has no ``gpus`` otherwise.
        argv: Whether the command has its arguments, and the code of ``python -c``.
        env: Names of environment variables to take, without what looks like a secret; ``system`` has no ``env`` if none of them is set.
    """
    variables = _guarded("variables", lambda: _variables(env), dict[str, Any]())
    return Environment(
        user=_guarded("the user's name", lambda: os.environ.get("KEEPSAKE_USER") or getpass.getuser(), ""),
        host=_guarded("the host's name", lambda: os.environ.get("KEEPSAKE_HOST") or platform.node(), ""),
        command=_guarded("the command", lambda: _command(directory, with_arguments=argv), ""),
        python_version=sys.version.split()[0],
        pid=os.getpid(),
        system={
            "os": _guarded("the system", lambda: f"{platform.system()} {platform.release()} {platform.machine()}", ""),
            "cpus": _guarded("the CPUs", _cpus, None),
            "memory_bytes": _guarded("the memory", _memory_bytes, None),
            **({"gpus": _guarded("the GPUs", _gpus, list[dict[str, Any]]())} if gpu else {}),
            **({"env": variables} if variables else {}),
        },
        git=_guarded("the Git commit", lambda: _git(directory), None) if git else None,
    )


def _guarded(what: str, find_out: Callable[[], _T], otherwise: _T) -> _T:
    try:
        return find_out()
    except Exception as err:  # noqa: BLE001 - whatever is odd about a machine must not stop a training
        messages.debug(f"cannot find out {what}: {err!r}")
        return otherwise


def _variables(names: Sequence[str]) -> dict[str, Any]:
    redacted, _ = redact_params({name: os.environ[name] for name in names if name in os.environ})
    return redacted


# --- the command ------------------------------------------------------------------------------------------------------


def _command(directory: Path, *, with_arguments: bool) -> str:
    argv, _ = redact_command(sys.argv)
    argv = argv if with_arguments else argv[:1]
    name, arguments = (argv[0], argv[1:]) if argv else ("", [])
    notebook = _notebook(name)
    if notebook is not None:
        return shlex.join(notebook)
    module = _main_module()
    if name == "-c":
        code, _ = redact_command(_code_of_command() if with_arguments else [])
        return shlex.join(["python", "-c", *code, *arguments])
    if module is not None:
        return shlex.join(["python", "-m", module, *arguments])
    if name in ("", "-"):
        return shlex.join(["python", *argv]).removesuffix(" ''")
    return shlex.join([_script(name, directory), *arguments])


def _code_of_command() -> list[str]:
    """Return the code that followed ``python -c``."""
    given = sys.orig_argv
    with contextlib.suppress(ValueError, IndexError):
        code = given[given.index("-c") + 1]
        return [code if len(code) <= MAX_CODE_LENGTH else code[:MAX_CODE_LENGTH] + "…"]
    return []


def _main_module() -> str | None:
    """Return the module that was run by ``python -m``; None where a script was."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return spec.name.removesuffix(".__main__") if spec is not None and "-m" in sys.orig_argv else None


def _notebook(name: str) -> list[str] | None:
    """Return a command for a notebook: its own is the kernel's, which says nothing."""
    if not Path(name).name.startswith(("ipykernel_launcher", "colab_kernel_launcher")) and "ipykernel" not in Path(name).parts:
        return None
    file = os.environ.get("JPY_SESSION_NAME") or getattr(sys.modules.get("__main__"), "__vsc_ipynb_file__", None)
    return ["jupyter", Path(file).name] if file else ["jupyter"]


def _script(name: str, directory: Path) -> str:
    """Return a script's name without the machine's directories."""
    path = Path(name)
    if not path.is_absolute():
        return name
    for base in (directory.absolute(), Path(os.path.realpath(directory))):
        if path.is_relative_to(base):
            return path.relative_to(base).as_posix()
    return path.name


# --- the system -------------------------------------------------------------------------------------------------------


def _cpus() -> int | None:
    """Return how many CPUs this process may use."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quotas = [math.ceil(quota) for quota in _cpu_quotas()]
    return min([*([count] if count else []), *quotas], default=None)


def _cpu_quotas() -> Iterator[float]:
    for text in _control_group_values("cpu.max"):
        quota, _, period = text.partition(" ")
        if quota.isdigit() and period.isdigit():
            yield int(quota) / int(period)
    quotas, periods = (list(_control_group_values(f"cpu.cfs_{name}_us")) for name in ("quota", "period"))
    for quota, period in zip(quotas, periods, strict=False):
        if quota.isdigit() and period.isdigit() and int(period):
            yield int(quota) / int(period)


def _memory_bytes() -> int | None:
    """Return how much memory this process may use."""
    limits = [
        int(text) for name in ("memory.max", "memory.limit_in_bytes") for text in _control_group_values(name) if text.isdigit()
    ]
    if hasattr(os, "sysconf"):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min(limits, default=None)


def _control_group_values(name: str) -> Iterator[str]:
    """Yield a setting of this process's control groups, of both versions, from its own group upwards."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        mount = Path("/sys/fs/cgroup") / controllers
        own = mount / group.lstrip("/")
        for directory in (own, *own.parents):
            with contextlib.suppress(OSError):
                yield (directory / name).read_text(encoding="utf-8").strip()
            if directory == mount:
                break


# --- GPUs -------------------------------------------------------------------------------------------------------------


def _gpus() -> list[dict[str, Any]]:
    library = _nvml()
    return _gpus_of_nvml(library) if library is not None else _gpus_of_torch()


def _nvml() -> ctypes.CDLL | None:
    """Return NVIDIA's management library, which comes with the driver.

    It is asked directly because asking a framework would initialise CUDA here, and processes forked later could not use it.
    """
    try:
        library = ctypes.CDLL("nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1")
    except OSError:
        return None
    return library if library.nvmlInit_v2() == 0 else None


def _gpus_of_nvml(library: ctypes.CDLL) -> list[dict[str, Any]]:
    try:
        count = ctypes.c_uint()
        _check(library.nvmlDeviceGetCount_v2(ctypes.byref(count)))
        driver = ctypes.create_string_buffer(96)
        _check(library.nvmlSystemGetDriverVersion(driver, len(driver)))
        found = []
        for index in range(count.value):
            device = ctypes.c_void_p()
            _check(library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)))
            name, uuid, memory = ctypes.create_string_buffer(96), ctypes.create_string_buffer(96), _Memory()
            _check(library.nvmlDeviceGetName(device, name, len(name)))
            _check(library.nvmlDeviceGetUUID(device, uuid, len(uuid)))
            _check(library.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory)))
            if _is_visible(index, uuid.value.decode()):
                found.append({"name": name.value.decode(), "memory_bytes": memory.total, "driver": driver.value.decode()})
        return found
    finally:
        library.nvmlShutdown()


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def _check(status: int) -> None:
    if status != 0:
        raise OSError(f"NVML answered {status}")


def _is_visible(index: int, uuid: str) -> bool:
    """Tell whether this process may use a GPU."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return True
    for device in (part.strip() for part in visible.split(",")):
        if device.startswith("MIG-"):
            # A slice of some GPU; which one cannot be told from its name.
            return True
        if device == "-1" or not device:
            return False
        if device == str(index) or (len(device) > 4 and uuid.startswith(device)):
            return True
    return False


def _gpus_of_torch() -> list[dict[str, Any]]:
    """Ask PyTorch for GPUs of other makers, if it has looked for them already."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return []
    properties = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [{"name": one.name, "memory_bytes": one.total_memory} for one in properties]


# --- Git --------------------------------------------------------------------------------------------------------------


def _git(directory: Path) -> dict[str, Any] | None:
    git = Git.at(directory, timeout_s=GIT_TIMEOUT_S)
    if git is None:
        return None
    status, branch = git.ask("symbolic-ref", "--quiet", "--short", "HEAD")
    # 1 means that HEAD is a commit and not a branch; anything else that this is not a repository, or that Git does not answer.
    if status not in (0, 1):
        return None
    _, commit = git.ask("rev-parse", "--quiet", "--verify", "HEAD")
    _, remotes = git.ask("config", "--get-regexp", r"^remote\..*\.url$")
    status, changes = git.ask("status", "--porcelain", "--untracked-files=no")
    return {
        "commit": commit or None,
        "branch": branch or None,
        "dirty": bool(changes) if status == 0 else None,
        "modified": len(changes.splitlines()) if status == 0 else None,
        "remote": _remote(remotes),
    }


def _remote(lines: str) -> str | None:
    """Choose one of the remotes, ``origin`` if there is one; one on this machine is nobody else's business."""
    urls = dict(line.split(" ", 1) for line in lines.splitlines() if " " in line)
    url = urls.get("remote.origin.url") or next(iter(urls.values()), None)
    return redact_url(url) if url is not None and _is_elsewhere(url) else None


def _is_elsewhere(url: str) -> bool:
    if "://" in url:
        return not url.lower().startswith("file:")
    host, separator, _ = url.partition(":")
    return bool(separator) and len(host) > 1 and "/" not in host and "\\" not in host
