"""Fields of JSON files: as agreed, or one line that names the file and the field."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sv.energy.record import SCHEMA, SCHEMA_1
from sv.energy.sidecar import find_run
from sv.errors import SvError
from sv.files import read_json


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object."""
    record = read_json(path)
    if not isinstance(record, dict):
        raise SvError(f"{path}: not a JSON object")
    return record


def read_sidecar(path: Path) -> dict[str, Any]:
    """Read a sidecar as the fields of energy-sidecar/1, which the tables take one by one."""
    record = read_object(path)
    if record.get("schema") == SCHEMA:
        attempts = record["attempts"]
        for attempt in attempts:
            attempt["facts"] = attempt["metadata"]
            attempt["marks"] = [{**mark, **mark["payload"]} for mark in attempt["marks"]]
        run = [a for a in attempts if a["attempt"] in record["run_attempts"]]
        if any(len(attempt["meters"]) > 1 for attempt in run):
            record["nodes"] = [meter for attempt in run for meter in attempt["meters"]]
    elif record.get("schema") != SCHEMA_1:
        raise SvError(f"{path}: schema is {record.get('schema')!r}, expected '{SCHEMA}'")
    return record


def find_first(attempts: list[dict[str, Any]]) -> int:
    """Return the index of the first attempt of the run that made a result."""
    known = [
        SimpleNamespace(
            status=attempt.get("status", ""),
            resumed=attempt.get("resumed", False),
            marks=[SimpleNamespace(mark=mark["mark"]) for mark in attempt.get("marks", ())],
        )
        for attempt in attempts
    ]
    return find_run(known)  # type: ignore[arg-type]


def take_number(record: dict[str, Any], key: str, path: Path) -> float | None:
    """Take a finite number of at least 0; absent and null are None."""
    return None if record.get(key) is None else take_required(record, key, path)


def take_required(record: dict[str, Any], key: str, path: Path) -> float:
    """Take a finite number of at least 0."""
    value = record.get(key)
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or not math.isfinite(value) or value < 0:
        raise SvError(f"{path}: {key} is {value!r}, expected a number of at least 0")
    return value


def take_whole(record: dict[str, Any], key: str, path: Path) -> int:
    """Take a whole number of at least 0."""
    value = take_required(record, key, path)
    if value != int(value):
        raise SvError(f"{path}: {key} is {value!r}, expected a whole number")
    return int(value)


def take_text(record: dict[str, Any], key: str, required_in: Path | None = None) -> str:
    """Take a text; absent and null are empty (an error where a path is given)."""
    value = record.get(key)
    if required_in is not None and (not isinstance(value, str) or not value):
        raise SvError(f"{required_in}: {key} is {value!r}, expected a text")
    return "" if value is None else str(value)


def take_part(record: dict[str, Any], key: str, kind: type, path: Path) -> Any:
    """Take an object or a list (``kind``); absent and null are empty."""
    value = record.get(key)
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise SvError(f"{path}: {key} is not a JSON {'object' if kind is dict else 'list'}")
    return value
