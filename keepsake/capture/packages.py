"""Which installed distributions a program has imported, and in which versions.

By distribution and not by module, because they are named differently: scikit-learn is imported as ``sklearn``.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from keepsake import messages

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from importlib.metadata import Distribution

_FIRST_PART = re.compile(r'^"?([^/.,"\n]+)', re.MULTILINE)
"""What a line of a list of files begins with, up to the first slash or dot."""


def imported_packages() -> dict[str, str]:
    """Return the versions of the distributions of which something is imported, by name, sorted.

    Example:
        >>> "scikit-learn" in imported_packages()  # nothing has imported sklearn here
        False
    """
    versions: dict[str, str] = {}
    try:
        modules = _Modules()
        for distribution in importlib.metadata.distributions():
            _add(distribution, modules, versions)
    except Exception as err:  # noqa: BLE001 - an installation may be broken in any way, and a training runs with it
        messages.debug(f"cannot tell which packages are imported: {err!r}")
    return dict(sorted(versions.items(), key=lambda item: item[0].casefold()))


def _add(distribution: Distribution, modules: _Modules, versions: dict[str, str]) -> None:
    try:
        if _is_imported(distribution, modules):
            name, version = _name_and_version(distribution)
            if name and version:
                # The first one on sys.path is the one that is imported.
                versions.setdefault(str(name), str(version))
    except Exception as err:  # noqa: BLE001 - see imported_packages
        messages.debug(f"cannot read the metadata of a package: {err!r}")


def _name_and_version(distribution: Distribution) -> tuple[str | None, str | None]:
    # Parsed as a whole, as mail, the descriptions of a hundred packages take longer than all the rest of a start.
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    head = dict(line.partition(": ")[::2] for line in reversed(text.partition("\n\n")[0].splitlines()))
    if "Name" in head and "Version" in head:
        return head["Name"].strip(), head["Version"].strip()
    return distribution.metadata["Name"], distribution.version


class _Modules:
    """The imported modules, and where the topmost ones lie."""

    def __init__(self) -> None:
        self.names = set(sys.modules)
        # setuptools puts this one into every process, where it is not a use of setuptools.
        self.tops = {name.partition(".")[0] for name in self.names} - {"_distutils_hack"}
        self._places = {top: tuple(_places(sys.modules.get(top))) for top in self.tops}
        self._real_places: dict[str, tuple[str, ...]] = {}

    def is_in(self, top: str, directory: str) -> bool:
        """Tell whether a topmost module lies in a directory, or below it."""
        return any(_is_below(place, directory) for place in self._places[top]) or any(
            _is_below(place, os.path.realpath(directory)) for place in self._real(top)
        )

    def any_in(self, directory: str) -> bool:
        """Tell whether some topmost module lies in a directory, or below it."""
        return any(self.is_in(top, directory) for top in self.tops)

    def is_namespace(self, top: str) -> bool:
        """Tell whether several distributions may share a topmost module."""
        return getattr(sys.modules.get(top), "__file__", None) is None or len(self._places[top]) > 2

    def _real(self, top: str) -> tuple[str, ...]:
        if top not in self._real_places:
            self._real_places[top] = tuple(os.path.realpath(place) for place in self._places[top])
        return self._real_places[top]


def _places(module: Any) -> Iterator[str]:
    file = getattr(module, "__file__", None)
    if isinstance(file, str):
        yield _absolute(file)
    try:
        paths: Iterable[Any] = list(getattr(module, "__path__", None) or ())
    except Exception:  # noqa: BLE001 - modules replace themselves by objects of all sorts
        return
    yield from (_absolute(path) for path in paths if isinstance(path, str))


def _absolute(path: str) -> str:
    # Path.resolve() would follow links, and cost a look at the disk for each of a thousand modules.
    return os.path.abspath(path)  # noqa: PTH100


def _is_below(path: str, directory: str) -> bool:
    return path.startswith(directory.rstrip(os.sep) + os.sep)


def _is_imported(distribution: Distribution, modules: _Modules) -> bool:
    directory = _absolute(str(distribution.locate_file("")))
    listed = distribution.read_text("top_level.txt")
    tops = set((listed or "").split()) or _tops(distribution, modules.tops)
    here = [top for top in tops & modules.tops if modules.is_in(top, directory)]
    if any(not modules.is_namespace(top) for top in here):
        return True
    if here and any(_module_name(path) in modules.names for path in _paths(distribution)):
        return True
    source = _source_directory(distribution)
    return source is not None and modules.any_in(source)


def _tops(distribution: Distribution, wanted: set[str]) -> set[str]:
    """Return those of the topmost modules that a distribution has files of."""
    text = _installed(distribution)
    # Some list ten thousand files, and few have any of a module that is wanted: those alone are looked at one by one.
    return {top for top in wanted.intersection(_FIRST_PART.findall(text)) if any(_top(path) == top for path in _modules_in(text))}


def _paths(distribution: Distribution) -> Iterator[str]:
    """Yield the installed files that may be modules."""
    return _modules_in(_installed(distribution))


def _installed(distribution: Distribution) -> str:
    return distribution.read_text("RECORD") or distribution.read_text("installed-files.txt") or ""


def _modules_in(text: str) -> Iterator[str]:
    for line in text.splitlines():
        path = line.partition(",")[0].strip('"')
        if path.endswith((".py", ".so", ".pyd")) and not path.startswith(".."):
            yield path


def _top(path: str) -> str:
    return path.partition("/")[0].partition(".")[0]


def _module_name(path: str) -> str:
    directory, _, file = path.rpartition("/")
    stem = file.partition(".")[0]
    name = directory.replace("/", ".")
    return name if stem == "__init__" else f"{name}.{stem}".lstrip(".")


def _source_directory(distribution: Distribution) -> str | None:
    """Return where the sources of an editable installation lie; None for others."""
    text = distribution.read_text("direct_url.json")
    if not text:
        return None
    origin = json.loads(text)
    if not origin.get("dir_info", {}).get("editable"):
        return None
    return str(Path(url2pathname(urlsplit(origin["url"]).path)))
