"""Configs and records: a TOML or JSON file checked against a frozen dataclass, key by key.

A key that is not a field, a wrong type and a missing required key are refused with the nearest
right spelling, because a silently ignored ``leaning_rate`` costs a training. The same type hints
give the JSON Schema of a record, so that nothing describes a file a second time.
"""

import dataclasses
import difflib
import functools
import math
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from sv.errors import SvError, UsageError
from sv.files import read_toml, validate_name

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Minimum:
    """Lowest value of a number, as in ``Annotated[float, Minimum(0)]``; NaN, infinity: refused."""

    value: float


@dataclasses.dataclass(frozen=True)
class Name:
    """Of a string that files or folders are called after, as in ``Annotated[str, Name()]``."""


FileName = typing.Annotated[str, Name()]


def read_config(path: Path, cls: type[T]) -> T:
    """Read a TOML file into the dataclass ``cls``; nested dataclasses are TOML tables.

    Args:
        path: TOML file.
        cls: A dataclass whose fields are int, float, str, bool, list, tuple, dict, Any, Literal,
            ``X | None``, ``Annotated[X, Minimum(n)]`` or dataclasses. A field with a default may
            be absent.

    Raises:
        UsageError: Not TOML, an unknown key, a wrong type, a missing key, or a value that the
            dataclass's own ``__post_init__`` refuses with ``ValueError``.
    """
    return build_config(read_toml(path), cls, where=str(path))


def build_config(values: dict[str, Any], cls: type[T], *, where: str) -> T:
    """Build ``cls`` from a mapping; ``where`` begins every error message. See `read_config`."""
    hints = _get_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    kwargs = {}
    for key, value in values.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f" (did you mean '{near[0]}'?)" if near else f" (known: {', '.join(fields)})"
            raise UsageError(f"{where}: unknown key '{key}'{hint}")
        kwargs[key] = _convert(value, hints[key], where, key)
    for name, field in fields.items():
        if name not in kwargs and _is_required(field):
            raise UsageError(f"{where}: missing key '{name}'")
    try:
        return cls(**kwargs)
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from error


def _is_required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


@functools.cache
def _get_hints(cls: type) -> dict[str, Any]:
    """Return the types of a dataclass's fields; a sidecar builds thousands of one class."""
    return typing.get_type_hints(cls, include_extras=True)


def build_record(values: Any, cls: type[T], *, where: str) -> T:
    """Build ``cls`` of a JSON file, as `build_config` does; an error is the file's, not the user's.

    Raises:
        SvError: Not an object, or see `read_config`; the message begins with ``where``.
    """
    if not isinstance(values, dict):
        raise SvError(f"{where}: not a JSON object")
    try:
        return build_config(values, cls, where=where)
    except UsageError as error:
        raise SvError(str(error)) from error


def _convert(value: Any, hint: Any, where: str, key: str) -> Any:  # noqa: PLR0911, PLR0912 - one case a kind of type
    origin, args, what = typing.get_origin(hint), typing.get_args(hint), f"{where}: {key}"
    if hint is Any:
        return value
    if origin is typing.Literal:
        if value not in args:
            known = ", ".join(str(arg) for arg in args)
            raise UsageError(f"{what} must be one of {known}, not {value!r}")
        return value
    if origin is typing.Annotated:
        value = _convert(value, args[0], where, key)
        if isinstance(args[1], Name):
            try:
                return validate_name(value, what)
            except SvError as error:
                raise UsageError(str(error)) from error
        if not args[1].value <= value < math.inf:
            raise UsageError(f"{what} must be at least {args[1].value:g}, not {value}")
        return value
    if origin in (typing.Union, types.UnionType):
        hint = next(arg for arg in args if arg is not type(None))
        return None if value is None else _convert(value, hint, where, key)
    if origin is dict or dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise UsageError(f"{what} must be a table")
        if origin is dict:
            keys = {k: _convert(k, args[0], where, key) for k in value}
            return {keys[k]: _convert(v, args[1], where, f"{key}.{k}") for k, v in value.items()}
        return build_config(value, typing.cast(type, hint), where=f"{where}: [{key}]")
    if origin in (list, tuple):
        if not isinstance(value, list | tuple):
            raise UsageError(f"{what} must be a list")
        item = args[0]
        kinds = set(typing.get_args(item)) if isinstance(item, types.UnionType) else {item}
        if not set(map(type, value)) <= kinds:  # else right as they are, thousands of numbers
            value = (_convert(one, item, where, key) for one in value)
        return origin(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # bool is an int in Python, not in a config.
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        raise UsageError(f"{what} must be {hint.__name__}, not {value!r}")
    return value


def build_json_schema(cls: type) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of what `build_config` accepts for a dataclass."""
    definitions: dict[str, Any] = {}
    schema = _describe_class(cls, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": cls.__name__,
        **schema,
        "$defs": dict(sorted(definitions.items())),
    }


def _describe_class(cls: type, definitions: dict[str, Any]) -> dict[str, Any]:
    hints = _get_hints(cls)
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    return {
        "description": (cls.__doc__ or "").strip().splitlines()[0],
        "type": "object",
        "properties": {field.name: _describe(hints[field.name], definitions) for field in fields},
        "required": [field.name for field in fields if _is_required(field)],
        "additionalProperties": False,
    }


JSON_TYPES = {int: "integer", float: "number", str: "string", bool: "boolean"}


def _describe(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:  # noqa: PLR0911 - as above
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return {}
    if origin is typing.Literal:
        return {"enum": list(args)}
    if origin is typing.Annotated and isinstance(args[1], Name):
        return _describe(args[0], definitions)
    if origin is typing.Annotated:
        return {**_describe(args[0], definitions), "minimum": args[1].value}
    if origin in (typing.Union, types.UnionType):
        inner = next(arg for arg in args if arg is not type(None))
        return {"anyOf": [_describe(inner, definitions), {"type": "null"}]}
    if origin in (list, tuple):
        return {"type": "array", "items": _describe(args[0], definitions)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _describe(args[1], definitions)}
    if dataclasses.is_dataclass(hint):
        name = typing.cast(type, hint).__name__
        if name not in definitions:
            definitions[name] = {}  # a class that refers to itself ends here
            definitions[name] = _describe_class(typing.cast(type, hint), definitions)
        return {"$ref": f"#/$defs/{name}"}
    return {"type": JSON_TYPES[hint]}
