"""Configs: a TOML file checked against a frozen dataclass, key by key and type by type.

A key that is not a field, a wrong type and a missing required key are refused with the nearest
right spelling, because a silently ignored ``leaning_rate`` costs a training.
"""

import dataclasses
import difflib
import math
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from sv.errors import UsageError
from sv.files import read_toml

T = TypeVar("T")


def read_config(path: Path, cls: type[T]) -> T:
    """Read a TOML file into the dataclass ``cls``; nested dataclasses are TOML tables.

    Args:
        path: TOML file.
        cls: A dataclass whose fields are int, float, str, bool, list, tuple, dict, ``X | None``
            or dataclasses. A field with a default may be absent.

    Raises:
        UsageError: Not TOML, an unknown key, a wrong type, a missing key, or a value that the
            dataclass's own ``__post_init__`` refuses with ``ValueError``.
    """
    return build_config(read_toml(path), cls, where=str(path))


def build_config(values: dict[str, Any], cls: type[T], *, where: str) -> T:
    """Build ``cls`` from a mapping; ``where`` begins every error message. See `read_config`."""
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    kwargs = {}
    for key, value in values.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f" (did you mean '{near[0]}'?)" if near else f" (known: {', '.join(fields)})"
            raise UsageError(f"{where}: unknown key '{key}'{hint}")
        kwargs[key] = _convert(value, hints[key], f"{where}: {key}", where)
    for name, field in fields.items():
        no_default = (
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        )
        if name not in kwargs and no_default:
            raise UsageError(f"{where}: missing key '{name}'")
    try:
        return cls(**kwargs)
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from error


def at_least(config: Any, lowest: float, *names: str) -> None:
    """Check fields in a dataclass's ``__post_init__``: finite and at least ``lowest``.

    Raises:
        ValueError: One is not; NaN never is.
    """
    for name in names:
        value = getattr(config, name)
        if not lowest <= value < math.inf:
            raise ValueError(f"{name} must be at least {lowest}, not {value}")


def _convert(value: Any, hint: Any, what: str, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        hint = next(arg for arg in args if arg is not type(None))
        return None if value is None else _convert(value, hint, what, where)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise UsageError(f"{what} must be a table")
        return build_config(
            value, typing.cast(type, hint), where=f"{where}: [{what[len(where) + 2 :]}]"
        )
    if origin in (list, tuple):
        if not isinstance(value, list | tuple):
            raise UsageError(f"{what} must be a list")
        return origin(_convert(item, args[0], what, where) for item in value)
    if origin is dict:
        if not isinstance(value, dict):
            raise UsageError(f"{what} must be a table")
        return {k: _convert(v, args[1], f"{what}.{k}", where) for k, v in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # bool is an int in Python, not in a config.
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        raise UsageError(f"{what} must be {hint.__name__}, not {value!r}")
    return value
