"""The journals of a stage's other meters, read for its sidecar.

Layout: ``<NN>_<name>.nodes/<attempt>/<label>.journal.jsonl``. A label that was started again (a
requeued job) has several attempts in its journal.
"""

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from sv.energy.command import STOPPING
from sv.energy.fleet.nodes import EXPECTED_FILE, get_nodes_root, read_expected
from sv.energy.journal import SUFFIX, BusyError, fold_leftover, open_journal, read_journal
from sv.energy.live import SILENT_S, get_live_path, read_live_file, remove_live
from sv.energy.samples import AttemptLines, split_attempts
from sv.errors import SvError

SETTLE_S = 45.0  # an NFS client looks at a folder again after 30 s (acdirmin, nfs(5))
TAIL_BYTES = 4096  # an end line has some 200


@dataclass(frozen=True)
class NodeJournals:
    """What the other meters of one attempt left.

    Attributes:
        expected: Labels that were to run.
        attempts: Label -> its attempts, at least one.
        unread: Label -> why its journal says nothing.
        torn: Lines that a crash tore.
    """

    expected: tuple[str, ...] = ()
    attempts: dict[str, list[AttemptLines]] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    torn: int = 0


def read_node_journals(journal: Path) -> dict[int, NodeJournals]:
    """Read what the other meters of a stage left, by its attempts; empty without any."""
    found = {}
    for folder in _list_folders(journal):
        expected = read_expected(folder)
        attempts, unread, torn = {}, {}, 0
        # A label is opened by its name too: on a shared disk a folder may be listed late.
        names = {path.name.removesuffix(SUFFIX) for path in folder.glob(f"*{SUFFIX}")}
        for label in sorted(names | set(expected)):
            path = folder / f"{label}{SUFFIX}"
            try:
                groups, torn_here = split_attempts(read_journal(path))
            except SvError as error:
                if path.exists():
                    unread[label] = str(error)
                continue
            torn += torn_here
            if groups:
                attempts[label] = groups
        if expected or attempts or unread:
            found[int(folder.name)] = NodeJournals(tuple(expected), attempts, unread, torn)
    return found


def _list_folders(journal: Path) -> list[Path]:
    root = get_nodes_root(journal)
    if not root.is_dir():
        return []
    return sorted(
        (path for path in root.iterdir() if path.name.isdecimal() and path.is_dir()),
        key=lambda path: int(path.name),
    )


def find_newest_ns(journal: Path) -> int:
    """Give when another meter of the stage, or who expected one, last wrote; 0: never."""
    newest_ns = 0
    for folder in _list_folders(journal):
        for path in (*folder.glob(f"*{SUFFIX}"), folder / EXPECTED_FILE):
            try:
                newest_ns = max(newest_ns, os.stat(path).st_mtime_ns)
            except FileNotFoundError:
                continue
    return newest_ns


def fold_node_leftovers(journal: Path) -> list[str]:
    """Clear up after killed meters: what their commands said last goes into the journals.

    Returns:
        The labels, with their hosts, whose meters are still running: they are left alone.
    """
    running = []
    for folder in _list_folders(journal):
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            label = path.name.removesuffix(SUFFIX)
            live = read_live_file(get_live_path(path))
            host = live["host"] if live else "its host"
            try:
                with open_journal(path, wait_s=0.0) as node:
                    if live is not None and _is_fresh(path, live):  # no locks on this disk
                        running.append(f"{label} on {host}")
                        continue
                    attempts = sum(line["line"] == "head" for line in read_journal(path))
                    if attempts:
                        fold_leftover(node, attempts)
                    remove_live(get_live_path(path))
            except BusyError:
                running.append(f"{label} on {host}")
    return running


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


def _is_fresh(path: Path, live: dict) -> bool:
    elsewhere = live["host"] != os.uname().nodename
    return elsewhere and time.time() - os.stat(path).st_mtime < SILENT_S
