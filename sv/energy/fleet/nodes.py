"""What a stage's meter and the meters of its other machines know of each other.

The stage's meter names a folder in ``$SV_METER_NODES``. Who starts a process that is not below that
meter (on another machine, or by a daemon of this one, as Slurm does) says so with `expect` and
starts it with `node_command`: a meter of its own, whose journal goes into the folder. The stage's
sidecar sums what it finds there (attempt.py). The folder is made when it is first needed: until
then ``$SV_METER_STAGE`` holds what becomes its stage.json.
"""

import json
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sv.energy.journal import SUFFIX
from sv.errors import SvError
from sv.files import read_json, write_json

VARIABLE, STAGE_VARIABLE = "SV_METER_NODES", "SV_METER_STAGE"
SCHEMA = "energy-stage/1"
STAGE_FILE, EXPECTED_FILE = "stage.json", "expected.jsonl"
LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
SIBLING = re.compile(r"(?P<job>.+)\.node\d+")  # a job of several machines
Fields = dict[str, Any]


def node_command(label: str) -> list[str]:
    """Give the words to be put before a command that runs out of the stage's meter's sight.

    Args:
        label: Tells it from the other processes of the stage; a file name. The processes of one
            job on several machines are ``<job>.node0``, ``<job>.node1``, ...
    """
    return [sys.executable, "-m", "sv.bin.meter", "--node", label, "--"]


def expect(environ: Mapping[str, str], labels: Sequence[str]) -> None:
    """Say which labels will run; one of them that leaves no journal makes the total partial.

    Args:
        environ: Of this process; without ``$SV_METER_NODES`` there is no meter to tell.
        labels: As in `node_command`.

    Raises:
        ValueError: A label is no file name.
        SvError: The folder cannot be written.
    """
    for label in labels:
        if not LABEL.fullmatch(label):
            raise ValueError(f"not a label of letters, digits, '.', '_', '-': '{label}'")
    folder = make_folder(environ)
    if folder is None or not labels:
        return
    path = folder / EXPECTED_FILE
    line = json.dumps({"labels": list(labels), "time_unix": time.time()}) + "\n"
    try:
        # One write of one line in append mode: lines of several programs do not mix.
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise SvError(f"cannot write {path}: {error.strerror}") from error


def make_folder(environ: Mapping[str, str]) -> Path | None:
    """Make the folder of the stage's other meters, with its stage.json, if it is not there.

    Returns:
        The folder; None without ``$SV_METER_NODES``.

    Raises:
        SvError: It cannot be written.
    """
    if not environ.get(VARIABLE):
        return None
    folder = Path(environ[VARIABLE])
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SvError(f"cannot make {folder}: {error.strerror}") from error
    if environ.get(STAGE_VARIABLE) and not (folder / STAGE_FILE).exists():
        write_json(folder / STAGE_FILE, json.loads(environ[STAGE_VARIABLE]))
    return folder


def read_stage(folder: Path) -> Fields:
    """Read what the stage's meter wants its other meters to know.

    Raises:
        SvError: It is missing or something else.
    """
    stage = read_json(folder / STAGE_FILE)
    if not isinstance(stage, dict) or stage.get("schema") != SCHEMA:
        raise SvError(
            f"{folder / STAGE_FILE}: not of '{SCHEMA}'; it is written by the stage's meter"
        )
    return stage


def get_nodes_folder(journal: Path, attempt: int) -> Path:
    """Give the folder of the other meters of an attempt, beside the stage's journal."""
    return get_nodes_root(journal) / str(attempt)


def get_nodes_root(journal: Path) -> Path:
    """Give the folder of all attempts' other meters."""
    return journal.with_name(f"{journal.name.removesuffix(SUFFIX)}.nodes")


def read_expected(folder: Path) -> list[str]:
    """Read the labels that were expected, each once; a torn line is left out."""
    try:
        lines = (folder / EXPECTED_FILE).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    labels: dict[str, None] = {}
    for line in lines:
        try:
            labels |= dict.fromkeys(json.loads(line)["labels"])
        except (ValueError, KeyError, TypeError):
            continue
    return list(labels)
