"""Every error that keepsake raises on purpose, and nothing else.

::

    KeepsakeError(Exception)
    ├── ConfigNotFound                      (+ FileNotFoundError)
    ├── ConfigInvalid                       (+ ValueError)
    ├── MissingDependency                   (+ ImportError)
    ├── DoesNotExist                        (+ LookupError)
    ├── AmbiguousID                         (+ ValueError)
    ├── InvalidQuery                        (+ ValueError)
    ├── InvalidName                         (+ ValueError)
    ├── NotConfirmed
    ├── UnsavedFiles                        (+ FileExistsError)
    ├── RepositoryError
    │   ├── RepositoryConfigurationError    bad URL, unknown scheme, missing bucket
    │   ├── IncompatibleRepositoryVersion   written by a newer keepsake
    │   ├── CorruptedRepositorySpec         repository.json is unreadable
    │   └── CorruptedRecord                 an experiment's record is unreadable
    └── StorageError                        .url .key
        ├── ObjectNotFound                  (+ FileNotFoundError)
        ├── AccessDenied                    (+ PermissionError)
        ├── ReadError                       also: an unsafe or truncated archive
        │   └── MissingFiles                a record names files that are not there
        ├── WriteError
        └── StorageUnavailable              unreachable for now; trying again is safe

A message says what failed and where. What else is known stands in ``facts``, and the command that mends it in ``hint``;
the command line prints the three in this order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class KeepsakeError(Exception):
    """Base class of all errors that keepsake raises on purpose.

    Args:
        message: What failed and where, in one line, lower case, without a full stop.
        facts: Further lines that help to understand it.
        hint: A command that mends it, ready to be pasted.

    Example:
        >>> error = KeepsakeError("no repository", hint="keepsake init")
        >>> error.hint
        'keepsake init'
    """

    def __init__(self, message: str, *, facts: Sequence[str] = (), hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.facts = tuple(facts)
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.message, *self.facts]
        if self.hint:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)

    # Several of these classes also derive from OSError or ImportError, whose own pickling drops our attributes.
    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.__dict__.copy())


def _rebuild(cls: type[KeepsakeError], state: dict[str, object]) -> KeepsakeError:
    error = cls.__new__(cls)
    error.__dict__.update(state)
    error.args = (state["message"],)
    return error


class ConfigNotFound(KeepsakeError, FileNotFoundError):
    """No keepsake.yaml was found in the directory or above, and no repository was named."""


class ConfigInvalid(KeepsakeError, ValueError):
    """A configuration file cannot be parsed, or says nothing usable."""


class MissingDependency(KeepsakeError, ImportError):
    """An optional package is needed; the hint is the exact install line."""


class DoesNotExist(KeepsakeError, LookupError):
    """No experiment or checkpoint has that ID."""


class AmbiguousID(KeepsakeError, ValueError):
    """An ID prefix matches several experiments or checkpoints."""


class InvalidQuery(KeepsakeError, ValueError):
    """A filter or a sort key cannot be understood, or names what no experiment has."""


class InvalidName(KeepsakeError, ValueError):
    """Something cannot be a name, a tag or an alias, or another experiment has that name."""


class NotConfirmed(KeepsakeError):
    """Something that cannot be undone was not confirmed; the hint is the flag that does."""


class UnsavedFiles(KeepsakeError, FileExistsError):
    """A checkout would overwrite files whose content is saved nowhere else."""


class RepositoryError(KeepsakeError):
    """Something is wrong with the repository itself."""


class RepositoryConfigurationError(RepositoryError):
    """The repository's URL is malformed, of an unknown scheme, or names a bucket that does not exist."""


class IncompatibleRepositoryVersion(RepositoryError):
    """The repository was written by a newer keepsake."""


class CorruptedRepositorySpec(RepositoryError):
    """``repository.json`` cannot be understood."""


class CorruptedRecord(RepositoryError):
    """An experiment's record cannot be understood; the message names its key."""


class StorageError(KeepsakeError):
    """A store could not do what was asked.

    Args:
        message: What failed.
        url: The store, without credentials.
        key: The object concerned, if it is one.
        facts: Further lines that help to understand it.
        hint: A command that mends it.
    """

    def __init__(
        self,
        message: str,
        *,
        url: str = "",
        key: str | None = None,
        facts: Sequence[str] = (),
        hint: str | None = None,
    ) -> None:
        super().__init__(message, facts=facts, hint=hint)
        self.url = url
        self.key = key


class ObjectNotFound(StorageError, FileNotFoundError):
    """No object has that key."""


class AccessDenied(StorageError, PermissionError):
    """The store refused the credentials, or the file system the user."""


class ReadError(StorageError):
    """Reading failed, or what was read is damaged, cut short or unsafe."""


class MissingFiles(ReadError):
    """Files that a record names are not in the repository."""


class WriteError(StorageError):
    """Writing failed; the old value, if there was one, is intact."""


class StorageUnavailable(StorageError):
    """The store cannot be reached for the moment, or asks for patience; trying again later is safe and may help."""
