"""What the meters of a stage know of each other, and where the others leave their journals.

The stage's meter names a folder in ``$SV_METER_NODES``. Who starts a process that is not below that
meter (on another machine, or by a daemon of this one, as Slurm does) announces it with `expect` and
starts it with `node_command`: a meter of its own, whose journal goes into the folder. The stage's
sidecar sums what it finds there (attempt.py). The folder is made when it is first needed: until
then ``$SV_METER_STAGE`` holds what becomes its stage.json.

Layout: ``<NN>_<name>.nodes/<attempt>/<label>.journal.jsonl``. A label that was started again (a
requeued job) has several starts in its journal.
"""

import itertools
import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sv.energy.command import STOPPING
from sv.energy.journal import SUFFIX, append_line, count_attempts, get_sidecar_path
from sv.errors import SvError
from sv.files import parse_json, read_json, write_json

VARIABLE, STAGE_VARIABLE = "SV_METER_NODES", "SV_METER_STAGE"
SCHEMA = "energy-stage/1"
STAGE_FILE, EXPECTED_FILE = "stage.json", "expected.jsonl"
LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
SIBLING = re.compile(r"(?P<job>.+)\.node\d+")  # a job of several machines
SETTLE_S = 45.0  # an NFS client looks at a folder again after 30 s (acdirmin, nfs(5))
TAIL_BYTES = 4096  # an end line has some 200


def node_command(label: str) -> list[str]:
    """Return the words to be put before a command that runs out of the stage's meter's sight.

    Args:
        label: Tells it from the other processes of the stage; a file name. The processes of one
            job on several machines are ``<job>.node0``, ``<job>.node1``, ...
    """
    return [sys.executable, "-m", "sv.bin.meter", "--node", label, "--"]


def expect(environ: Mapping[str, str], labels: Sequence[str]) -> None:
    """Announce which labels will run; one of them that leaves no journal makes the total partial.

    Args:
        environ: Of this process; without ``$SV_METER_NODES`` there is no meter.
        labels: As in `node_command`; empty where this stage only waits for what the meters of an
            earlier attempt count.

    Raises:
        ValueError: A label is no file name.
        SvError: The folder cannot be written.
    """
    for label in labels:
        if not LABEL.fullmatch(label):
            raise ValueError(f"not a label of letters, digits, '.', '_', '-': '{label}'")
    folder = make_folder(environ)
    if folder is None:
        return
    path = folder / EXPECTED_FILE
    try:
        append_line(path, {"labels": list(labels), "time_unix": time.time()}, sync=True)
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


def list_secrets(environ: Mapping[str, str]) -> list[str]:
    """List the variables that the stage's other meters need for the sensor of their own machine."""
    stage = json.loads(environ.get(STAGE_VARIABLE) or "{}")
    config = stage.get("config", {})
    if config.get("node_power") != "redfish":
        return []
    return [config["redfish_user_variable"], config["redfish_password_variable"]]


def read_stage(folder: Path) -> dict[str, Any]:
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


def get_nodes_root(journal: Path) -> Path:
    """Return the folder of the other meters, next to the stage's journal: one an attempt in it."""
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
            named = parse_json(line)["labels"]
            labels |= dict.fromkeys(label for label in named if LABEL.fullmatch(label))
        except (ValueError, KeyError, TypeError):
            continue
    return list(labels)


def list_jobs(labels: Iterable[str]) -> tuple[set[str], set[str]]:
    """Return the jobs of several machines, and those whose machine 0 has a meter of its own.

    The machine 0 of another one has its processes below the stage's own meter.
    """
    matches = [match for label in labels if (match := SIBLING.fullmatch(label))]
    jobs = {match["job"] for match in matches}
    return jobs, {match["job"] for match in matches if match[0] == f"{match['job']}.node0"}


def list_folders(journal: Path) -> list[Path]:
    """List the folders of a stage's other meters, by attempt; empty without any."""
    root = get_nodes_root(journal)
    if not root.is_dir():
        return []
    return sorted(
        (path for path in root.iterdir() if path.name.isdecimal() and path.is_dir()),
        key=lambda path: int(path.name),
    )


def is_stale(journal: Path) -> bool:
    """Return whether a journal's sidecar is missing or damaged, or not of all that was written.

    It is older than the meters' files, or has another number of attempts: file times are of the
    wall clock, which may have been set.
    """
    sidecar = get_sidecar_path(journal)
    try:
        sidecar_ns = os.stat(sidecar).st_mtime_ns
        attempts = len(read_json(sidecar)["attempts"])
    except (FileNotFoundError, SvError, KeyError, TypeError):
        return True
    written = [journal]
    for folder in list_folders(journal):
        written += [*folder.glob(f"*{SUFFIX}"), *folder.glob(EXPECTED_FILE)]
    if any(os.stat(path).st_mtime_ns > sidecar_ns for path in written):
        return True
    return attempts != count_attempts(journal)


def set_aside(journal: Path, attempt: int) -> list[Path]:
    """Rename folders of other meters that a new attempt would take for its own or a later one's.

    They are left where the stage's journal was removed and they were not.

    Args:
        journal: Of the stage.
        attempt: Number of the attempt that begins.

    Returns:
        The folders as they are called now, which `list_folders` does not list.

    Raises:
        OSError: One cannot be renamed.
    """
    moved = []
    for folder in list_folders(journal):
        if int(folder.name) >= attempt:
            names = (folder.with_name(f"{folder.name}.old{i}") for i in itertools.count(1))
            moved.append(folder.rename(next(path for path in names if not path.exists())))
    return moved


def wait_for_ends(folder: Path) -> None:
    """Wait, at most `SETTLE_S`, until the meters of an attempt have written their last lines.

    A job can be seen to have ended before its last lines are seen: a shared disk shows what others
    write a little later. A signal, which the meter holds back, ends the wait.
    """
    deadline_s = time.monotonic() + SETTLE_S
    while time.monotonic() < deadline_s and not signal.sigpending() & STOPPING:
        labels = {path.name.removesuffix(SUFFIX) for path in folder.glob(f"*{SUFFIX}")}
        labels |= set(read_expected(folder))
        if all(_has_ended(folder / f"{label}{SUFFIX}") for label in labels):
            return
        time.sleep(0.2)


def _has_ended(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            return file.read().rstrip(b"\n").rpartition(b"\n")[2].startswith(b'{"line":"end"')
    except OSError:
        return False
