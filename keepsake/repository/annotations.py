"""What people say of an experiment after it was recorded: its name, tags and notes. Kept beside the record, which its writer owns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Annotation:
    """What people say of one experiment.

    Args:
        name: What they call it; empty for nothing.
        tags: Words that group experiments, sorted.
        notes: Free text.
        raw: The JSON that it was read from: keys that this version does not know survive.
    """

    name: str = ""
    tags: tuple[str, ...] = ()
    notes: str = ""
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
