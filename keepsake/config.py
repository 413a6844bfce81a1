"""Finding and reading the configuration: which directory the project is, and what is set for it.

It stands in ``keepsake.yaml``, then in ``[tool.keepsake]`` of ``pyproject.toml``, in the directory or its nearest parent, then in the
user's own file, which holds for all projects. What can be set says `keepsake.settings`, what a repository's URL means `keepsake.storage`.
"""

from __future__ import annotations

import os
import re
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from keepsake import messages
from keepsake.exceptions import ConfigInvalid, ConfigNotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

CONFIG_FILE_NAMES = ("keepsake.yaml", "keepsake.yml", "replicate.yaml")
"""Names of the configuration file, the one that counts first. The last one is deprecated."""

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


class Said(NamedTuple):
    """The value of a setting, and who said it.

    Args:
        value: The value; that of `keepsake.settings` where nobody said one.
        source: A variable, the path of a file as people read it, or ``"default"``.
        line: The line of the file, if that is known.
    """

    value: Any
    source: str
    line: int | None = None

    @property
    def place(self) -> str:
        """The source with its line, as people read it."""
        return _place(self.source, self.line)


class Table(NamedTuple):
    """What one file says.

    Args:
        file: Its path.
        values: The values by key.
        locate: Returns the line of a key, and of a key below it; None if it is not known.
    """

    file: Path
    values: Mapping[str, Any]
    locate: Callable[[Sequence[str]], int | None]

    def place(self, *keys: str) -> str:
        """Return where a key stands, as people read it; without a key, where all of it does."""
        line = self.locate(keys) if keys else None
        shown = shown_path(self.file)
        return f"{shown} [tool.keepsake]" if line is None and self.file.name == _PYPROJECT else _place(shown, line)


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
    return _nearest(start) or start


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
    nearest = _nearest(start)
    base = nearest or start
    read: list[Table] = []
    for table in _tables(base):
        if table.file == _user_file() and _misspelt(read):
            # What was meant for this project must not go where the user's other projects live.
            break
        read.append(table)
        found = _repository_of(table)
        if found is not None:
            for one in read:
                _warn_of_unknown_keys(one)
            return Config(found, _absolute_url(found, base, shown_path(table.file)), named or base, str(table.file))
    unknown = _misspelt(read) or [text for table in read for text in _unknown_keys(table)]
    if unknown or nearest is not None:
        problem = unknown[0] if unknown else f"{read[0].place()} names no repository"
        raise ConfigInvalid(problem, hint='add the line   repository: "file://.keepsake"   or run   keepsake init')
    raise ConfigNotFound(
        f"no repository: found no keepsake.yaml in {shown_path(start)} or above",
        hint="keepsake init   or   keepsake ls -R s3://bucket/path",
    )


class Settings:
    """What files and variables set for a project. Files are read at the first question that needs them.

    Args:
        directory: The project directory, absolute.

    Example:
        >>> Settings(Path("/")).get("capture.git")
        Said(value=True, source='default', line=None)
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @cached_property
    def tables(self) -> list[Table]:
        """The files, that which counts first.

        Raises:
            ConfigInvalid: One cannot be understood.
        """
        tables = list(_tables(_nearest(self._directory) or self._directory))
        for table in tables:
            _warn_of_unknown_keys(table)
        return tables

    def get(self, name: str) -> Said:
        """Return the value of a setting, and who said it.

        Args:
            name: Its dotted name; see `keepsake.settings.SETTINGS`.

        Raises:
            ConfigInvalid: A file cannot be understood, or says something that it cannot be.
        """
        from keepsake.settings import SETTINGS

        setting = SETTINGS[name]
        said = os.environ.get(setting.variable, "").strip() if setting.variable else ""
        if said:
            is_list = isinstance(setting.default, tuple)
            return Said(tuple(filter(None, map(str.strip, said.split(",")))) if is_list else said, setting.variable)
        return next((said for _, said in self._in_files(name)), Said(setting.default, "default"))

    def remotes(self) -> dict[str, Said]:
        """Return the URLs of other repositories by name, for `keepsake.storage.from_url`: local ones are absolute.

        Raises:
            ConfigInvalid: A file cannot be understood, or says something that is no URL.
        """
        base = _nearest(self._directory) or self._directory
        found: dict[str, Said] = {}
        for table, said in self._in_files("remotes"):
            for name, url in said.value.items():
                line = table.locate(("remotes", name))
                found.setdefault(name, Said(_absolute_url(url, base, _place(said.source, line)), said.source, line))
        return found

    def _in_files(self, name: str) -> Iterator[tuple[Table, Said]]:
        from keepsake.settings import OLD_NAMES, SETTINGS

        names = [name, *(old for old, new in OLD_NAMES.items() if new == name)]
        for table in self.tables:
            for keys in (one.split(".") for one in names):
                value = _value_at(table, keys)
                if value is None:
                    continue
                try:
                    checked = SETTINGS[name].check(value)
                except ValueError as err:
                    raise ConfigInvalid(f"{table.place(*keys)}: {'.'.join(keys)} must be {err}, not {_quoted(value)}") from err
                yield table, Said(checked, shown_path(table.file), table.locate(keys))
                break


def _value_at(table: Table, keys: Sequence[str]) -> Any:
    value: Any = table.values
    for index, key in enumerate(keys):
        if not isinstance(value, dict):
            from keepsake.settings import known_keys

            above = ".".join(keys[:index])
            inner = " and ".join(known_keys(above) or ())
            raise ConfigInvalid(f"{table.place(*keys[:index])}: {above} must hold {inner}, not {_quoted(value)}")
        value = value.get(key)
        if value is None:
            return None
    return value


def _tables(directory: Path) -> Iterator[Table]:
    """Read the files for a directory one after the other, that which counts first; the directory is the project's."""
    file = _config_file(directory)
    if file is not None:
        values, lines = _parsed_yaml(_read(file, shown_path(file)), shown_path(file))
        yield Table(file, values, lambda keys: lines.get(tuple(keys)))
    pyproject = _pyproject_table(directory)
    if pyproject is not None:
        yield pyproject
    of_user = _user_table()
    if of_user is not None:
        yield of_user


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


def _nearest(start: Path) -> Path | None:
    """Return the nearest directory with a configuration, from one upwards."""
    return next((candidate for candidate in (start, *start.parents) if _has_config(candidate)), None)


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


def _config_file(directory: Path) -> Path | None:
    # os.path.isfile, unlike Path.is_file, is quiet about directories that may not be looked into.
    found = next((directory / name for name in CONFIG_FILE_NAMES if os.path.isfile(directory / name)), None)  # noqa: PTH113
    if found is not None and found.name == CONFIG_FILE_NAMES[-1]:
        text = f"{shown_path(found)} is an old name, please rename the file to {CONFIG_FILE_NAMES[0]}"
        messages.warn_once(f"config name {found}", text)
    return found


def _repository_of(table: Table) -> str | None:
    """Return the repository that a file names; None if it names none."""
    # Not through `Settings`: most files say nothing else, and a listing of them must not wait for the table of settings.
    key = next((key for key in ("repository", "storage") if table.values.get(key) is not None), None)
    if key is None:
        return None
    repository = table.values[key]
    if not isinstance(repository, str) or not repository.strip():
        raise ConfigInvalid(f"{table.place(key)}: {key} must be a URL as text, not {_quoted(repository)}")
    if key == "storage":
        text = f'{table.place(key)}: "storage" is the old name of "repository", please rename it'
        messages.warn_once(f"config storage {table.file}", text)
    return repository.strip()


def _misspelt(tables: Sequence[Table]) -> list[str]:
    """Return what is to be said of keys that were meant to name the repository."""
    return [text for table in tables for text in _unknown_keys(table) if text.endswith(', did you mean "repository"?')]


def _warn_of_unknown_keys(table: Table) -> None:
    for text in _unknown_keys(table):
        messages.warn_once(text, text)


def _unknown_keys(table: Table) -> list[str]:
    """Return what is to be said of keys that mean nothing."""
    if table.values.keys() <= {"repository"}:
        return []
    from keepsake.settings import known_keys

    found = []
    for key, value in table.values.items():
        if key not in (known_keys() or ()):
            found.append(f"{table.place(key)}: unknown key {_quoted(key)}{_suggestion(key)}")
            continue
        inner = known_keys(key)
        for below in value if inner is not None and isinstance(value, dict) else ():
            if below not in (inner or ()):
                text = f"unknown key {_quoted(below)} in {_quoted(key)}{_suggestion(below, key)}"
                found.append(f"{table.place(key, below)}: {text}")
    return found


def _suggestion(key: object, section: str = "") -> str:
    from difflib import get_close_matches

    from keepsake.settings import SETTINGS, known_keys

    # What belongs elsewhere is suggested with all of its name.
    elsewhere = {name.rpartition(".")[2]: name for name in SETTINGS} if not section else {}
    candidates = {**elsewhere, **{name: name for name in known_keys(section) or ()}}
    close = get_close_matches(str(key).lower(), candidates, n=1)
    return f', did you mean "{candidates[close[0]]}"?' if close else ""


def _quoted(value: object) -> str:
    """Return a value as a message shows it; what is inside of lists and tables may be secret."""
    if isinstance(value, str):
        return f'"{value}"'
    return "a table" if isinstance(value, dict) else "a list" if isinstance(value, list) else f"{value!r:.80}"


def _place(shown: str, line: int | None) -> str:
    return f"{shown} line {line}" if line else shown


# --- YAML and TOML ----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _parsed_yaml(text: str, shown: str) -> tuple[dict[str, Any], dict[tuple[str, ...], int]]:
    """Return the mapping in a text, and the line of each of its keys and of those below them."""
    usual = _USUAL_YAML.fullmatch(text)
    if usual is not None:
        return {"repository": usual["quoted"] or usual["bare"]}, {("repository",): usual["before"].count("\n") + 1}
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
        return values, dict(_yaml_lines(node))
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


def _yaml_lines(node: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int]]:
    for key, value in node.value:
        if isinstance(key.value, str):
            yield (*above, key.value), key.start_mark.line + 1
            # No deeper: nothing of ours is, and a mapping may hold itself.
            if not above and value.id == "mapping":
                yield from _yaml_lines(value, (key.value,))


def _pyproject_table(directory: Path) -> Table | None:
    """Return ``[tool.keepsake]``; None where there is none."""
    file = directory / _PYPROJECT
    if not os.path.isfile(file):  # noqa: PTH113 - see _config_file
        return None
    shown = shown_path(file)
    try:
        text = _read(file, shown)
    except ConfigInvalid:
        # A file of other tools that cannot be read says nothing about us.
        return None
    if "keepsake" not in text:
        return None
    try:
        tool = _parsed_toml(text, shown).get("tool")
    except ConfigInvalid:
        if re.search(r"^\s*\[\s*tool\s*\.\s*keepsake\b", text, re.MULTILINE):
            raise
        return None
    values = tool.get("keepsake") if isinstance(tool, dict) else None
    if values is None:
        return None
    if not isinstance(values, dict):
        raise ConfigInvalid(f"{shown}: tool.keepsake must be a table")
    return Table(file, values, lambda keys: _toml_line(text, ("tool", "keepsake"), keys))


@lru_cache(maxsize=8)
def _parsed_toml(text: str, shown: str) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as err:
        line = re.search(r"at line (\d+)", str(err))
        raise ConfigInvalid(f"{_place(shown, int(line[1]) if line else None)}: not valid TOML: {err}") from err


def _toml_line(text: str, above: tuple[str, ...], keys: Sequence[str]) -> int | None:
    lines = _toml_lines(text)
    # A key in braces stands behind the one above it.
    return next((lines[place] for end in (len(keys), 1) if (place := (*above, *keys[:end])) in lines), None)


@lru_cache(maxsize=8)
def _toml_lines(text: str) -> dict[tuple[str, ...], int]:
    """Return the line of each key, as far as it can be told: the parser of the standard library does not say.

    A key that seems to stand twice, as in the example inside of a text of several lines, has no line.
    """
    found: dict[tuple[str, ...], int] = {}
    doubtful: set[tuple[str, ...]] = set()
    above: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[([^\[\]]+)\]", line)
        key = re.match(r"\s*([\w.\-\"' ]+?)\s*=", line) if header is None else None
        match = header or key
        if match is None:
            continue
        keys = tuple(part.strip(" \"'") for part in match[1].split("."))
        above, keys = (keys, keys) if header is not None else (above, (*above, *keys))
        doubtful |= {keys} & found.keys()
        for length in range(1, len(keys) + 1):
            found.setdefault(keys[:length], number)
    return {keys: number for keys, number in found.items() if keys not in doubtful}


def _user_file() -> Path:
    said = os.environ.get("XDG_CONFIG_HOME")
    home = Path(said) if said else (_safe(Path.home) or Path("/")) / ".config"
    return home / "keepsake" / "config.toml"


def _user_table() -> Table | None:
    """Return what the user's own file says; None where there is none."""
    file = _user_file()
    if not os.path.isfile(file):  # noqa: PTH113 - see _config_file
        return None
    shown = shown_path(file)
    text = _read(file, shown)
    return Table(file, _parsed_toml(text, shown), lambda keys: _toml_line(text, (), keys))


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
