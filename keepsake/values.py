"""Params and metrics as values that JSON can hold, whatever a training program has at hand.

No framework is imported: arrays and tensors are known by their attributes. Nothing here raises, and no callable among the
values is called, because a value that cannot be stored must not stop a training. Secrets are `keepsake.capture.redaction`'s
business.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import math
import os
import re
import types
import uuid
from collections.abc import Collection, Mapping, Sequence, Set, ValuesView
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Value: TypeAlias = bool | int | float | str | list["Value"] | dict[str, "Value"] | None
"""What a record holds for a param or a metric. NaN and the infinities are floats here; the record spells them out."""

_Item = TypeVar("_Item")

MAX_ARRAY_ELEMENTS = 1_000
"""Arrays become lists up to this number of elements, beyond it one line that says their shape."""

MAX_VALUES = 10_000
"""Most values in all that one conversion yields: a record is read and rewritten whole."""

MAX_DEPTH = 32
"""Deepest nesting of lists and dicts; what lies deeper becomes text."""

MAX_TEXT_LENGTH = 1_000
"""Longest text, in characters, that stands for an object that JSON cannot hold."""

MAX_STRING_LENGTH = 100_000
"""Longest string, in characters, that is stored whole."""

MAX_PROBLEMS = 10
"""Most warnings that one conversion gives; the last one counts the others."""


def convert(value: object) -> Value:
    """Return a value as JSON can hold it; text where it cannot.

    Example:
        >>> convert({"lr": decimal.Decimal("0.5"), "out": PurePath("runs"), "betas": (0.9, 0.999)})
        {'lr': 0.5, 'out': 'runs', 'betas': [0.9, 0.999]}
    """
    return _Conversion("value").one(value, "")


def convert_params(params: object) -> tuple[dict[str, Value], list[str]]:
    """Return hyperparameters as JSON can hold them, and what a person should be warned of.

    Args:
        params: A mapping, an ``argparse.Namespace``, a dataclass or another object with attributes; None for no params.

    Returns:
        The values by name, and one text for each value that could not be kept as it is; each text names the param.

    Example:
        >>> convert_params({"lr": 0.1, "activation": math.tanh})
        ({'lr': 0.1, 'activation': 'math.tanh'}, [])
    """
    return _Conversion("param").named(params)


def convert_metrics(metrics: object) -> tuple[dict[str, Value], list[str]]:
    """Return metrics as JSON can hold them, and what a person should be warned of.

    Unlike among params, an array of one element is a number.

    Args:
        metrics: Values by name: Python numbers, or scalars and one-element arrays of any framework; None for no metrics.

    Returns:
        The values by name, and one text for each value that could not be kept as it is; each text names the metric.

    Example:
        >>> convert_metrics({"loss": fractions.Fraction(1, 4)})
        ({'loss': 0.25}, [])
    """
    if _are_plain_numbers(metrics):
        return metrics.copy(), []
    return _Conversion("metric", single_element_is_number=True).named(metrics)


def _are_plain_numbers(metrics: object) -> TypeGuard[dict[str, Value]]:
    """Tell whether metrics are what most of them are, in each step of a training: as they are to be stored already."""
    return (
        type(metrics) is dict
        and len(metrics) <= MAX_VALUES
        and all(
            type(name) is str
            and len(name) <= MAX_TEXT_LENGTH
            and name.isascii()
            and (type(value) is float or (type(value) is int and -(2**63) <= value < 2**63))
            for name, value in metrics.items()
        )
    )


def flatten(values: Mapping[str, Value]) -> dict[str, Value]:
    """Return nested dicts as one, with dotted names; lists and empty dicts stay values.

    Example:
        >>> flatten({"lr": 0.1, "model": {"depth": 3, "head": {"bias": True}}})
        {'lr': 0.1, 'model.depth': 3, 'model.head.bias': True}
    """
    flat: dict[str, Value] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            flat |= {f"{name}.{inner}": item for inner, item in flatten(value).items()}
        else:
            flat[name] = value
    return flat


class _Conversion:
    """One call's limits and problems.

    Args:
        kind: What the values are called in warnings.
        single_element_is_number: Whether an array of one element becomes a number instead of a list.
    """

    def __init__(self, kind: str, *, single_element_is_number: bool = False) -> None:
        self._kind = kind
        self._single_element_is_number = single_element_is_number
        self._values_left = MAX_VALUES
        self._inside: set[int] = set()
        self._problems: list[str] = []
        self._further_problems = 0

    def named(self, values: object) -> tuple[dict[str, Value], list[str]]:
        """Convert what should be a mapping of names to values."""
        if values is None:
            return {}, []
        converted: Value = None
        try:
            items = _items(values)
            items = _attributes(values) if items is None else items
            if items is not None:
                converted = self._dict(values, items, "", 0)
        except Exception:  # noqa: BLE001 - the user's own class may raise anything
            converted = None
        if not isinstance(converted, dict):
            plural = f"{self._kind}s"
            self._problem(f"{plural} must be a dict of names and values, not {_article(values)}; stored as one text")
            converted = {plural: _text(values)}
        if self._further_problems:
            self._problems.append(f"{self._further_problems} more {self._kind}s could not be stored as they are")
        return converted, self._problems

    def one(self, value: object, name: str, depth: int = 0) -> Value:
        """Convert any value.

        Args:
            value: The value.
            name: Its name in warnings, dotted.
            depth: In how many lists and dicts it lies.
        """
        try:
            return self._one(value, name, depth)
        except Exception:  # noqa: BLE001 - the user's own class may raise anything
            return self._as_text(value, name)

    def _one(self, value: object, name: str, depth: int) -> Value:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, enum.Enum):
            return self.one(value.value, name, depth + 1) if depth < MAX_DEPTH else self._as_text(value, name)
        if isinstance(value, str):
            return self._string(value, name)
        if isinstance(value, int):
            return _integer(value)
        if isinstance(value, float):
            return float(value)
        if _is_array(value):
            return self._array(value, name, depth)
        plain = _plain(value)
        if plain is not None:
            return plain
        return self._container(value, name, depth)

    def _string(self, value: str, name: str) -> str:
        text = _valid(str.__str__(value))
        if len(text) > MAX_STRING_LENGTH:
            self._problem(f"{self._called(name)} has {len(text):,} characters, cut at {MAX_STRING_LENGTH:,}")
            text = text[:MAX_STRING_LENGTH] + "…"
        return text

    # --- containers -------------------------------------------------------------------------------------------------

    def _container(self, value: object, name: str, depth: int) -> Value:
        items = _items(value)
        if items is None and not isinstance(value, Sequence | Set | ValuesView):
            return self._as_text(value, name)
        if id(value) in self._inside:
            self._problem(f"{self._called(name)} contains itself, stored as text there")
            return "..."
        if depth >= MAX_DEPTH:
            self._problem(f"{self._called(name)} is nested more than {MAX_DEPTH} deep, stored as text there")
            return _text(value)
        size = len(cast("Collection[object]", value)) if items is None or isinstance(value, Collection) else 0
        if size > self._values_left:
            self._problem(f"{self._called(name)} is too large, stored as its type and length")
            return f"{_name_of(type(value))} of {size} items"
        self._inside.add(id(value))
        try:
            return self._dict(value, items, name, depth) if items is not None else self._list(value, name, depth)
        finally:
            self._inside.discard(id(value))

    def _list(self, value: object, name: str, depth: int) -> list[Value]:
        items = self._within_limit(cast("Iterable[object]", value), name)
        converted = [self.one(item, f"{name}[{number}]", depth + 1) for number, item in enumerate(items)]
        if isinstance(value, Set):
            # The order of a set differs between processes, a record of it must not.
            converted.sort(key=_order)
        return converted

    def _dict(self, whole: object, items: Iterable[tuple[object, object]], name: str, depth: int) -> dict[str, Value]:
        converted: dict[str, Value] = {}
        self._inside.add(id(whole))
        for key, item in self._within_limit(items, name):
            text = self._key(key)
            inner = f"{name}.{text}" if name else text
            if text in converted:
                self._problem(f"{self._called(inner)} is there twice (a key that is not text has the same spelling)")
            if isinstance(item, _Unreadable):
                self._problem(f"{self._called(inner)} cannot be read: {item.reason}")
                converted[text] = None
            else:
                converted[text] = self.one(item, inner, depth + 1)
        self._inside.discard(id(whole))
        return converted

    def _within_limit(self, items: Iterable[_Item], name: str) -> Iterator[_Item]:
        # Some objects yield more than their length says, or for ever.
        for item in items:
            if self._values_left <= 0:
                self._problem(f"{self._called(name)} is too large, its end is left out")
                return
            self._values_left -= 1
            yield item

    def _key(self, key: object) -> str:
        if isinstance(key, enum.Enum):
            key = key.value
        if isinstance(key, str):
            return _valid(str.__str__(key))[:MAX_TEXT_LENGTH]
        return _text(key)

    # --- arrays -----------------------------------------------------------------------------------------------------

    def _array(self, array: Any, name: str, depth: int) -> Value:
        shape = tuple(array.shape)
        # A symbolic tensor has dimensions that are not known.
        size = math.prod(shape) if all(isinstance(dimension, int) for dimension in shape) else None
        if size is None or size > MAX_ARRAY_ELEMENTS:
            self._problem(f"{self._called(name)} is an array of shape {shape}, stored as its shape and type")
            return _shape_text(array)
        try:
            if size == 1 and (shape == () or self._single_element_is_number):
                return self._scalar(_item(array), name, depth + 1)
            return self.one(_nested_list(array), name, depth + 1)
        except Exception:  # noqa: BLE001 - sparse, meta and symbolic tensors have no elements to give
            self._problem(f"{self._called(name)} is an array whose elements cannot be read, stored as its shape and type")
            return _shape_text(array)

    def _scalar(self, item: object, name: str, depth: int) -> Value:
        if _is_array(item):
            # Types that Python has no number for: long double, bfloat16 in NumPy.
            return float(cast("Any", item))
        return self.one(item, name, depth)

    # --- problems ---------------------------------------------------------------------------------------------------

    def _as_text(self, value: object, name: str) -> str:
        self._problem(f"{self._called(name)} is {_article(value)}, stored as text")
        return _text(value)

    def _problem(self, text: str) -> None:
        if len(self._problems) < MAX_PROBLEMS:
            # Names may hold anything, and what is said of them is one line.
            self._problems.append("".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text))
        else:
            self._further_problems += 1

    def _called(self, name: str) -> str:
        return f'{self._kind} "{name[:200]}"'


# --- one value, without context ---------------------------------------------------------------------------------------


def _plain(value: object) -> Value:
    """Return the text or number for types that have an obvious one; None for all others."""
    if isinstance(value, decimal.Decimal | fractions.Fraction):
        return float(value)
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, PurePath | uuid.UUID | complex):
        return _valid(str(value))
    if isinstance(value, bytes | bytearray):
        return _cut(repr(bytes(value[:MAX_TEXT_LENGTH])))
    if isinstance(value, re.Pattern):
        return _cut(str(value.pattern))
    if isinstance(value, range) and len(value) > MAX_ARRAY_ELEMENTS:
        return repr(value)
    if isinstance(value, types.GenericAlias | types.UnionType):
        return _cut(repr(value))
    if isinstance(value, functools.partial):
        return _partial(value)
    if isinstance(value, _NAMED) or (callable(value) and isinstance(getattr(value, "__qualname__", None), str)):
        return _name_of(value)
    if isinstance(value, os.PathLike):
        return _valid(os.fsdecode(value))
    if _is_model(value):
        return _name_of(type(value))
    if type(value).__name__.endswith(("dtype", "DType", "device")):
        return _cut(str(value))
    return None


_NAMED = (
    type,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.MethodDescriptorType,
    types.MethodWrapperType,
    types.WrapperDescriptorType,
    types.ModuleType,
)
"""Types whose instances have a name that says it all."""


def _integer(value: int) -> int | str:
    number = int(value)
    if -(2**63) <= number < 2**63:
        return number
    # Other readers hold integers in 64 bits. Python refuses to write very long ones in decimal.
    return str(number) if number.bit_length() < 10_000 else _cut(hex(number))


def _partial(value: functools.partial[Any]) -> str:
    arguments = [_short(argument) for argument in value.args]
    arguments += [f"{name}={_short(argument)}" for name, argument in value.keywords.items()]
    return _cut(f"functools.partial({', '.join([_short(value.func), *arguments])})")


def _short(value: object) -> str:
    converted = convert(value)
    return converted if callable(value) and isinstance(converted, str) else repr(converted)


def _name_of(value: object) -> str:
    """Return the qualified name of a class, function or module."""
    module = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if not isinstance(name, str):
        return _text(value)
    if not isinstance(module, str) or module == "builtins":
        return _cut(name)
    return _cut(f"{module}.{name}")


def _is_model(value: object) -> bool:
    """Tell whether a value is a model, layer or optimizer: their reprs list all their parts."""
    kind = type(value)
    return hasattr(kind, "state_dict") or (hasattr(kind, "get_config") and hasattr(kind, "from_config"))


def _article(value: object) -> str:
    name = _name_of(type(value))
    return f"an {name}" if name[:1].lower() in "aeiou" else f"a {name}"


def _text(value: object) -> str:
    """Return a text for any object."""
    kind = type(value)
    try:
        if kind.__repr__ is object.__repr__:
            # The default text is but an address, which differs in every process.
            return _name_of(kind)
        return _cut(_ADDRESS.sub("", repr(value)))
    except Exception:  # noqa: BLE001 - the user's own class may raise anything
        return f"<{_name_of(kind)}>"


_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def _cut(text: str) -> str:
    text = _valid(text)
    return text if len(text) <= MAX_TEXT_LENGTH else text[: MAX_TEXT_LENGTH - 1] + "…"


def _valid(text: str) -> str:
    """Return the text as valid Unicode: pairs of surrogates are joined, lone ones replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _order(value: Value) -> tuple[str, Any]:
    """Order values of several types: numbers first, then each type by itself."""
    if isinstance(value, int | float) and not math.isnan(value):
        return "", value
    return type(value).__name__, value if isinstance(value, str) else repr(value)


# --- containers by their attributes -----------------------------------------------------------------------------------


class _Unreadable:
    """Stands for an item that its own mapping refuses to give, such as a missing value of OmegaConf's."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


def _items(value: object) -> Iterable[tuple[object, object]] | None:
    """Return names and values of mappings, dataclasses, named tuples and namespaces; None for all others."""
    kind = type(value)
    if isinstance(value, type):
        return None
    if isinstance(value, dict):
        return list(dict.items(value))
    if isinstance(value, Mapping) or (hasattr(kind, "keys") and hasattr(kind, "__getitem__")):
        return _items_one_by_one(value)
    if dataclasses.is_dataclass(value):
        return [(field.name, getattr(value, field.name, None)) for field in dataclasses.fields(value)]
    if hasattr(kind, "__attrs_attrs__"):
        return [(field.name, getattr(value, field.name, None)) for field in kind.__attrs_attrs__]
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return list(zip(kind._fields, value, strict=False))
    if isinstance(value, types.SimpleNamespace) or (kind.__module__, "Namespace") in _names_in_mro(kind):
        return list(vars(value).items())
    if hasattr(kind, "__pydantic_fields__") or hasattr(kind, "model_fields"):
        return list(vars(value).items())
    return None


def _items_one_by_one(mapping: Any) -> Iterator[tuple[object, object]]:
    for key in mapping.keys():  # noqa: SIM118 - not every mapping iterates over its keys
        try:
            yield key, mapping[key]
        except Exception as err:  # noqa: BLE001 - one bad value must not lose the others
            yield key, _Unreadable(type(err).__name__)


def _names_in_mro(kind: type) -> set[tuple[str, str]]:
    return {(base.__module__, base.__name__) for base in kind.__mro__}


def _attributes(value: object) -> Iterable[tuple[object, object]] | None:
    """Return the attributes of an object that has nothing else, such as a configuration class of the user's."""
    if isinstance(value, _NAMED) or callable(value) or _is_array(value):
        return None
    attributes = getattr(value, "__dict__", None)
    return [(name, item) for name, item in attributes.items() if not name.startswith("_")] if attributes else None


# --- arrays by their attributes ---------------------------------------------------------------------------------------


def _is_array(value: object) -> bool:
    """Tell whether a value is an array, tensor or scalar of some framework."""
    return not isinstance(value, type) and hasattr(value, "dtype") and hasattr(value, "shape")


def _item(array: Any) -> object:
    """Return the only element of an array."""
    if _is_time(array):
        return str(array.reshape(()))
    return array.item() if hasattr(array, "item") else _on_host(array).item()


def _nested_list(array: Any) -> object:
    if _is_time(array):
        return array.astype(str).tolist()
    return array.tolist() if hasattr(array, "tolist") else _on_host(array).tolist()


def _on_host(array: Any) -> Any:
    return array.numpy()


def _is_time(array: Any) -> bool:
    # NumPy gives nanoseconds as bare integers.
    return getattr(array.dtype, "kind", None) in ("M", "m")


def _shape_text(array: Any) -> str:
    return _cut(f"array({tuple(array.shape)}, {getattr(array.dtype, 'name', None) or array.dtype})")
