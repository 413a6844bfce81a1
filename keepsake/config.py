"""Finding and reading the configuration: which repository a project uses, and which directory the project is.

It stands in ``keepsake.yaml``, or ``[tool.keepsake]`` of ``pyproject.toml``, in the directory or its nearest parent, or else in the
user's own file, which holds for all projects. What a repository's URL means is `keepsake.storage`'s business.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from keepsake import messages
from keepsake.exceptions import ConfigInvalid, ConfigNotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

CONFIG_FILE_NAMES = ("keepsake.yaml", "keepsake.yml", "replicate.yaml")
"""Names of the configuration file, the one that counts first. The last one is deprecated."""

KNOWN_KEYS = ("repository", "storage", "primary_metric", "remotes", "ls", "capture", "redact", "keep")
"""Keys that may stand in the configuration; ``storage`` is the old name of ``repository``."""

COLUMNS_VARIABLE = "KEEPSAKE_COLUMNS"
"""What says which columns ``keepsake ls`` shows, separated by commas."""

_PYPROJECT = "pyproject.toml"

_USUAL_YAML = re.compile(
    r"""
    (?P<before> (?: [ ]* (?: \#[ -~]* )? \n )* )
    repository: [ ]+ (?: (?P<quote> ["'] ) (?P<quoted> [\w.:/~@+-]+ ) (?P=quote) | (?P<bare> [a-z]\w* :// [\w./-]+ ) )
    (?: [ ]+ \#[ -~]* | [ ]* )
    (?: \n [ ]* (?: \#[ -~]* )? )*
    """,
    re.VERBOSE | re.ASCII,
)
"""A file with nothing but a repository: it is read without the YAML parser, whose import takes longer than all else here."""


class Config(NamedTuple):
    """What was found.

    Args:
        repository: The repository as the user wrote it; may contain credentials.
        url: The same for `keepsake.storage.from_url`: a local one is absolute.
        directory: The project directory, absolute.
        source: What named the repository: ``"argument"``, ``"KEEPSAKE_REPOSITORY"``, or the path of a file.
    """

    repository: str
    url: str
    directory: Path
    source: str


class Setting(NamedTuple):
    """A setting, and who made it.

    Args:
        value: The value; None where nobody said one.
        source: A variable, the path of a file as people read it, or ``"default"``.
    """

    value: Any
    source: str


def find_directory(directory: str | os.PathLike[str] | None = None) -> Path:
    """Return the project directory, absolute.

    Args:
        directory: The directory if it is known. Otherwise it is what ``KEEPSAKE_DIRECTORY`` says, or the nearest one with a
            configuration from the working directory upwards, or the working directory.

    Raises:
        ConfigNotFound: The directory does not exist.
    """
    named = _named_directory(directory)
    if named is not None:
        return named
    start = _working_directory()
    return next((candidate for candidate in (start, *start.parents) if _has_config(candidate)), start)


def load(repository: str | None = None, directory: str | os.PathLike[str] | None = None) -> Config:
    """Find out which repository is meant.

    Args:
        repository: URL of the repository if it is known. Otherwise it is what ``KEEPSAKE_REPOSITORY`` says, or the nearest
            configuration from the project directory upwards.
        directory: The project directory if it is known; see `find_directory`.

    Raises:
        ConfigNotFound: Nobody said which repository, or the directory does not exist.
        ConfigInvalid: A configuration file cannot be understood, or names no repository.
    """
    if repository is not None:
        return _said_by("argument", repository, directory)
    if os.environ.get("KEEPSAKE_REPOSITORY"):
        return _said_by("KEEPSAKE_REPOSITORY", os.environ["KEEPSAKE_REPOSITORY"], directory)
    named = _named_directory(directory)
    start = named or _working_directory()
    for candidate in (start, *start.parents):
        found = _repository_in(candidate)
        if found is not None:
            value, source = found
            return Config(value, _absolute_url(value, candidate, shown_path(source)), named or candidate, str(source))
    in_user_file = (_user_table() or {}).get("repository")
    if in_user_file is not None:
        file = _user_file()
        if not isinstance(in_user_file, str) or not in_user_file.strip():
            raise ConfigInvalid(f"{shown_path(file)}: repository must be a URL as text, not {_quoted(in_user_file)}")
        return Config(in_user_file.strip(), _absolute_url(in_user_file, start, shown_path(file)), start, str(file))
    raise ConfigNotFound(
        f"no repository: found no keepsake.yaml in {shown_path(start)} or above",
        hint="keepsake init   or   keepsake ls -R s3://bucket/path",
    )


def ls_columns(directory: Path) -> Setting:
    """Return the columns that ``keepsake ls`` shows where it is not told otherwise, as a tuple of names.

    Args:
        directory: The project directory, absolute.

    Raises:
        ConfigInvalid: What a file says is not a list of names.
    """
    said = os.environ.get(COLUMNS_VARIABLE, "").strip()
    if said:
        return Setting(tuple(name.strip() for name in said.split(",") if name.strip()), COLUMNS_VARIABLE)
    value, source = _ls_setting("columns", directory)
    if value is None:
        return Setting((), source)
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ConfigInvalid(f"{source}: ls.columns must be a list of names, not {_quoted(value)}")
    return Setting(tuple(value), source)


def ls_limit(directory: Path) -> Setting:
    """Return how many experiments ``keepsake ls`` shows on a terminal where it is not told otherwise; 0 for all.

    Args:
        directory: The project directory, absolute.

    Raises:
        ConfigInvalid: What a file says is not such a number.
    """
    value, source = _ls_setting("limit", directory)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise ConfigInvalid(f"{source}: ls.limit must be a number from 0 on, not {_quoted(value)}")
    return Setting(value, source)


def _ls_setting(key: str, directory: Path) -> Setting:
    for values, source in _tables(directory):
        section = values.get("ls")
        if section is None:
            continue
        if not isinstance(section, dict):
            raise ConfigInvalid(f"{source}: ls must hold columns and limit, not {_quoted(section)}")
        if section.get(key) is not None:
            return Setting(section[key], source)
    return Setting(None, "default")


def _tables(directory: Path) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Return what the files say, that which counts first, with their paths as people read them.

    A file that cannot be understood says nothing here: `load` tells people where it is needed.
    """
    nearest = next((candidate for candidate in (directory, *directory.parents) if _has_config(candidate)), directory)
    file = _config_file(nearest)
    readers: list[tuple[Path, Callable[[], Mapping[str, Any] | None]]] = [
        (nearest / _PYPROJECT, lambda: _pyproject_table(nearest)),
        (_user_file(), _user_table),
    ]
    if file is not None:
        readers.insert(0, (file, lambda: _parse_yaml(file)[0]))
    for path, read in readers:
        try:
            values = read()
        except ConfigInvalid:
            continue
        if values is not None:
            yield values, shown_path(path)


def _said_by(source: str, repository: str, directory: str | os.PathLike[str] | None) -> Config:
    said_in = f"the {source}" if source == "argument" else source
    url = _absolute_url(repository, _working_directory(), f"{said_in} for the repository" if source == "argument" else source)
    return Config(repository, url, find_directory(directory), source)


# --- directories ------------------------------------------------------------------------------------------------------


def _named_directory(directory: str | os.PathLike[str] | None) -> Path | None:
    named = directory if directory is not None else os.environ.get("KEEPSAKE_DIRECTORY") or None
    if named is None:
        return None
    path = Path(os.path.abspath(Path(named).expanduser()))  # noqa: PTH100 - resolve() would follow links
    if not path.is_dir():
        raise ConfigNotFound(f'no such directory: "{os.fspath(named)}"')
    return path


def _working_directory() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError as err:
        raise ConfigNotFound("the working directory does not exist any more") from err


def _has_config(directory: Path) -> bool:
    try:
        return _config_file(directory) is not None or _pyproject_table(directory) is not None
    except ConfigInvalid:
        return True


def shown_path(path: Path) -> str:
    """Return a path as people read it: relative if it is in the working directory, or from the home directory.

    Args:
        path: An absolute path.
    """
    for base, prefix in ((_safe(Path.cwd), ""), (_safe(Path.home), "~/")):
        if base is not None and path != base and path.is_relative_to(base):
            return prefix + path.relative_to(base).as_posix()
    return "~" if path == _safe(Path.home) else str(path)


def _safe(directory: Callable[[], Path]) -> Path | None:
    try:
        return directory()
    except (OSError, RuntimeError):
        return None


# --- files ------------------------------------------------------------------------------------------------------------


def _repository_in(directory: Path) -> tuple[str, Path] | None:
    """Return the repository that a directory's files name, and the file that does.

    Raises:
        ConfigInvalid: There is a configuration, but it names none.
    """
    file = _config_file(directory)
    problem = None
    if file is not None:
        values, lines = _parse_yaml(file)
        repository, problem = _repository_of(values, lines, shown_path(file))
        if repository is not None:
            return repository, file
    table = _pyproject_table(directory)
    if table is not None:
        pyproject = directory / _PYPROJECT
        repository, pyproject_problem = _repository_of(table, {}, f"{shown_path(pyproject)} [tool.keepsake]")
        if repository is not None:
            return repository, pyproject
        problem = problem or pyproject_problem
    if problem is not None:
        raise ConfigInvalid(problem, hint='add the line   repository: "file://.keepsake"   or run   keepsake init')
    return None


def _config_file(directory: Path) -> Path | None:
    # os.path.isfile, unlike Path.is_file, is quiet about directories that may not be looked into.
    found = next((directory / name for name in CONFIG_FILE_NAMES if os.path.isfile(directory / name)), None)  # noqa: PTH113
    if found is not None and found.name == CONFIG_FILE_NAMES[-1]:
        text = f"{shown_path(found)} is an old name, please rename the file to {CONFIG_FILE_NAMES[0]}"
        messages.warn_once(f"config name {found}", text)
    return found


def _repository_of(values: Mapping[str, Any], lines: Mapping[str, int], shown: str) -> tuple[str | None, str | None]:
    """Return the repository that a configuration names, or what is wrong with it."""
    unknown = [
        f"{_place(shown, lines.get(key))}: unknown key {_quoted(key)}{_suggestion(key)}"
        for key in values
        if key not in KNOWN_KEYS
    ]
    key = next((key for key in ("repository", "storage") if values.get(key) is not None), None)
    if key is None:
        return None, unknown[0] if unknown else f"{shown} names no repository"
    repository = values[key]
    if not isinstance(repository, str) or not repository.strip():
        raise ConfigInvalid(f"{_place(shown, lines.get(key))}: {key} must be a URL as text, not {_quoted(repository)}")
    if key == "storage":
        text = f'{_place(shown, lines.get(key))}: "storage" is the old name of "repository", please rename it'
        messages.warn_once(f"config storage {shown}", text)
    for text in unknown:
        messages.warn_once(text, text)
    return repository.strip(), None


def _quoted(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else f"{value!r:.80}"


def _suggestion(key: object) -> str:
    import difflib

    close = difflib.get_close_matches(str(key).lower(), KNOWN_KEYS, n=1)
    return f', did you mean "{close[0]}"?' if close else ""


def _place(shown: str, line: int | None) -> str:
    return f"{shown} line {line}" if line else shown


# --- YAML and TOML ----------------------------------------------------------------------------------------------------


def _parse_yaml(file: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the mapping in a file, and the line of each of its keys."""
    shown = shown_path(file)
    text = _read(file, shown)
    usual = _USUAL_YAML.fullmatch(text)
    if usual is not None:
        return {"repository": usual["quoted"] or usual["bare"]}, {"repository": usual["before"].count("\n") + 1}
    import yaml

    loader = None
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return {}, {}
        values = loader.construct_document(node)
        if values is None:
            return {}, {}
        if not isinstance(values, dict):
            line = node.start_mark.line + 1
            raise ConfigInvalid(f'{_place(shown, line)}: expected lines such as   repository: "file://.keepsake"')
        return values, {key.value: key.start_mark.line + 1 for key, _ in node.value if isinstance(key.value, str)}
    except yaml.MarkedYAMLError as err:
        mark = err.problem_mark or err.context_mark
        raise ConfigInvalid(f"{_place(shown, mark.line + 1 if mark else None)}: not valid YAML: {err.problem}") from err
    except (yaml.YAMLError, ValueError, RecursionError) as err:
        if isinstance(err, ConfigInvalid):
            raise
        cause = " ".join(str(err).split())
        raise ConfigInvalid(f"{shown}: not valid YAML: {cause}") from err
    finally:
        if loader is not None:
            loader.dispose()


def _pyproject_table(directory: Path) -> dict[str, Any] | None:
    """Return ``[tool.keepsake]``; None where there is none."""
    file = directory / _PYPROJECT
    if not os.path.isfile(file):  # noqa: PTH113 - see _config_file
        return None
    import tomllib

    shown = shown_path(file)
    try:
        text = _read(file, shown)
        if "keepsake" not in text:
            return None
        parsed = tomllib.loads(text)
    except tomllib.TOMLDecodeError as err:
        if not re.search(r"^\s*\[\s*tool\s*\.\s*keepsake\b", text, re.MULTILINE):
            return None
        line = re.search(r"at line (\d+)", str(err))
        raise ConfigInvalid(f"{_place(shown, int(line[1]) if line else None)}: not valid TOML: {err}") from err
    except ConfigInvalid:
        # A file of other tools that cannot be read says nothing about us.
        return None
    tool = parsed.get("tool")
    table = tool.get("keepsake") if isinstance(tool, dict) else None
    if table is not None and not isinstance(table, dict):
        raise ConfigInvalid(f"{shown}: tool.keepsake must be a table")
    return table


def _user_file() -> Path:
    said = os.environ.get("XDG_CONFIG_HOME")
    home = Path(said) if said else (_safe(Path.home) or Path("/")) / ".config"
    return home / "keepsake" / "config.toml"


def _user_table() -> dict[str, Any] | None:
    """Return what the user's own file says; None where there is none."""
    file = _user_file()
    if not os.path.isfile(file):  # noqa: PTH113 - see _config_file
        return None
    import tomllib

    shown = shown_path(file)
    try:
        return tomllib.loads(_read(file, shown))
    except tomllib.TOMLDecodeError as err:
        raise ConfigInvalid(f"{shown}: not valid TOML: {err}") from err


def _read(file: Path, shown: str) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as err:
        raise ConfigInvalid(f"{shown}: not a text file in UTF-8") from err
    except OSError as err:
        raise ConfigInvalid(f"cannot read {shown}: {err.strerror}") from err


# --- URLs -------------------------------------------------------------------------------------------------------------


def _absolute_url(repository: str, base: Path, said_by: str) -> str:
    """Make the path of a local repository absolute; other URLs stay as they are."""
    repository = repository.strip()
    scheme, separator, rest = repository.partition("://")
    if separator and scheme.lower() != "file":
        return repository
    if not separator and repository.partition(":")[0].lower() in ("file", "gs", "s3") and ":" in repository:
        # Not a directory of that name: the storage says which slashes are missing.
        return repository
    path = rest if separator else repository
    if not path:
        raise ConfigInvalid(f'{said_by}: "{repository}" names no directory', hint='write, for example, "file://.keepsake"')
    try:
        absolute = base / Path(path).expanduser()
    except RuntimeError as err:
        raise ConfigInvalid(f'{said_by}: "{repository}": {err}', hint="write the whole path") from err
    return f"file://{absolute.resolve() if '..' in absolute.parts else absolute}"
