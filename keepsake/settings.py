"""What can be set, in one table: names, values, defaults and environment variables. Files are read in `keepsake.config`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


class Setting(NamedTuple):
    """Something that configuration files may say.

    Args:
        meaning: What it does, in a few words.
        check: Called with what a file says; returns the value, or raises ValueError that tells what it must be.
        default: The value where nobody says one.
        variable: The environment variable that goes before the files; "" for none.
        parts: The keys inside it, where it is a table of fixed keys.
        is_open: Whether it is a table whose keys people choose.
    """

    meaning: str
    check: Callable[[Any], Any]
    default: Any = None
    variable: str = ""
    parts: tuple[str, ...] = ()
    is_open: bool = False


class Variable(NamedTuple):
    """An environment variable.

    Args:
        meaning: What it does, in a few words.
        default: What holds where it is not set; "" for nothing.
    """

    meaning: str
    default: str = ""


# --- values -----------------------------------------------------------------------------------------------------------


def _url(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a URL as text")
    return value.strip()


def _urls(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(url, str) and url.strip() for url in value.values()):
        raise ValueError("names with URLs, such as {lab: file:///mnt/lab/hotdog}")
    return {str(name): url.strip() for name, url in value.items()}


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) and name.strip() for name in value):
        raise ValueError("a list of names")
    return tuple(name.strip() for name in value)


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("a number from 0 on")
    return value


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _packages(value: Any) -> str:
    if value not in ("imported", "none"):
        raise ValueError('"imported" or "none"')
    return str(value)


def _metric(value: Any) -> tuple[str, str]:
    if isinstance(value, dict):
        name, goal = value.get("name"), value.get("goal")
        if isinstance(name, str) and name and isinstance(goal, str) and goal.lower() in ("minimize", "maximize"):
            return name, goal.lower()
    raise ValueError("a name and a goal, minimize or maximize, such as {name: val_loss, goal: minimize}")


# --- the tables -------------------------------------------------------------------------------------------------------

SETTINGS = {
    "repository": Setting("where experiments live", _url, variable="KEEPSAKE_REPOSITORY"),
    "primary_metric": Setting("the metric to choose the best checkpoint by", _metric, parts=("name", "goal")),
    "remotes": Setting("names of other repositories, for push, pull and copy", _urls, {}, is_open=True),
    "ls.columns": Setting("the columns of keepsake ls, like -c", _names, (), variable="KEEPSAKE_COLUMNS"),
    "ls.limit": Setting("how many experiments keepsake ls shows on a terminal; 0 for all", _count, 50),
    "capture.git": Setting("whether commit, branch and remote are recorded", _switch, True),
    "capture.packages": Setting("which versions of packages are recorded: imported, none", _packages, "imported"),
    "capture.gpu": Setting("whether the GPUs are recorded", _switch, True),
    "capture.argv": Setting("whether the arguments of the command are recorded", _switch, True),
    "capture.env": Setting("names of environment variables that are recorded", _names, ()),
    "redact.keys": Setting("patterns of further names whose values are hidden", _names, ()),
    "redact.allow": Setting("patterns of names whose values are not hidden", _names, ()),
}
"""What a configuration file may say, by dotted name: ``ls.limit`` is the key ``limit`` below ``ls``."""

OLD_NAMES = {"storage": "repository"}
"""Old names of keys."""

VARIABLES = {
    "KEEPSAKE_REPOSITORY": Variable("the repository, like -R"),
    "KEEPSAKE_DIRECTORY": Variable("the project directory, like -D"),
    "KEEPSAKE_MODE": Variable("disabled: recording calls do nothing; online (default), offline", "online"),
    "KEEPSAKE_EXPERIMENT": Variable("the experiment that a training goes on with: its ID, or a whole ID for a new one"),
    "KEEPSAKE_NAME": Variable("the name of experiments that begin; one that is taken gets a number"),
    "KEEPSAKE_TAGS": Variable("their tags, separated by commas"),
    "KEEPSAKE_NOTES": Variable("their notes"),
    "KEEPSAKE_LIGHTNING_VERSION": Variable("set by the Lightning logger for the processes that Lightning launches"),
    "KEEPSAKE_USER": Variable("recorded instead of the user's name"),
    "KEEPSAKE_HOST": Variable("recorded instead of the machine's name"),
    "KEEPSAKE_REDACT": Variable("further names of params whose values are hidden, separated by commas"),
    "KEEPSAKE_CACHE_DIR": Variable("where caches are kept, instead of the directory for caches of the user"),
    "KEEPSAKE_CACHE_SIZE": Variable("how much of saved files is kept there for use", "10 GB"),
    "KEEPSAKE_COLUMNS": Variable("the columns of keepsake ls, like -c"),
    "KEEPSAKE_PAGER": Variable("the pager that ls, ps, show and diff always use on a terminal, such as less"),
    "PAGER": Variable("the pager of --pager", "less"),
    "KEEPSAKE_LOG": Variable("least level of messages: debug, info (default), warning, error", "info"),
    "KEEPSAKE_DEBUG": Variable("1: show where errors come from, like -v"),
    "KEEPSAKE_NO_PROMPT": Variable("never ask: where an answer is needed, exit with 6"),
    "CI": Variable("the same"),
    "KEEPSAKE_NO_ANALYTICS": Variable("accepted; there is nothing to switch off"),
    "REPLICATE_NO_ANALYTICS": Variable("the same, by an older name"),
    "NO_COLOR": Variable("no colours on a terminal"),
    "FORCE_COLOR": Variable("colours also where the answer goes into a pipe or a file"),
    "CLICOLOR_FORCE": Variable("the same"),
    "TERM": Variable("dumb: no colours"),
    "COLUMNS": Variable("width of the terminal"),
    "XDG_CONFIG_HOME": Variable("where keepsake/config.toml of the user lies", "~/.config"),
    "XDG_CACHE_HOME": Variable("where keepsake's caches lie, unless KEEPSAKE_CACHE_DIR says so", "~/.cache"),
    "AWS_PROFILE": Variable("the profile for S3; all other variables of the AWS SDK count too", "default"),
    "AWS_ENDPOINT_URL_S3": Variable("another server than Amazon's, such as MinIO, Ceph or R2"),
    "GOOGLE_APPLICATION_CREDENTIALS": Variable("the file with credentials for Google Cloud"),
}
"""Environment variables."""


def known_keys(section: str = "") -> tuple[str, ...] | None:
    """Return the keys that may stand in a file, or below one of its keys; None where people choose them, or it holds none.

    Args:
        section: The key above them; "" for those of the file.

    Example:
        >>> known_keys("ls")
        ('columns', 'limit')
    """
    if not section:
        return (*dict.fromkeys(name.partition(".")[0] for name in SETTINGS), *OLD_NAMES)
    if section in SETTINGS:
        return SETTINGS[section].parts or None
    return tuple(key for above, _, key in (name.partition(".") for name in SETTINGS) if above == section) or None
