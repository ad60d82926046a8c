"""What the page says of one sidecar: how each kWh came about, in words and short tables.

The sidecars are read again here: attempts, samples and commands are of no use to the tables, so
the records of `sv.report.records` do not carry them.
"""

import os
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sv.energy.units import kwh_from_j
from sv.report.fields import read_sidecar, take_number, take_part, take_text
from sv.report.page.facts import describe_quality, format_kwh, list_facts, take_objects
from sv.report.records import Results
from sv.report.stage_energy import StageEnergy
from sv.report.tables.cells import UNKNOWN, format_duration, format_significant

CHANNEL_TITLES = (
    "Channel", "Boundary", "Kind", "Method", "kWh", "± (k = 2)", "Samples", "Longest gap (s)",
    "In total",
)  # fmt: skip
ATTEMPT_TITLES = ("No", "Started", "Status", "Resumed", "Duration", "kWh", "Host")
# Columns of words; the others are numbers.
WORDS = (
    "Channel", "Boundary", "Kind", "Method", "In total", "Started", "Status", "Resumed", "Host",
    "Meter",
)  # fmt: skip
NODE_TITLES = ("Meter", "Host", "Status", "kWh", "Counted")


@dataclass(frozen=True)
class Line:
    """A row of a small table; ``notes`` are said below it, ``muted`` ones are in no sum."""

    texts: tuple[str, ...]
    notes: tuple[str, ...] = ()
    command: str = ""
    muted: bool = False


@dataclass(frozen=True)
class Provenance:
    """One sidecar for the page.

    ``key`` is its id there, ``link`` and ``journal`` are paths from the page's folder.
    ``quality`` says measured or estimated; ``facts`` are terms with what is known of them.
    """

    key: str
    owner: str
    title: str
    link: str
    journal: str
    quality: str
    energy: str
    facts: tuple[tuple[str, str], ...]
    channels: tuple[Line, ...]
    attempts: tuple[Line, ...]
    nodes: tuple[Line, ...]
    hosts: tuple[str, ...]
    boards: tuple[str, ...]
    commits: tuple[str, ...]


def collect_provenance(results: Results, directory: Path) -> dict[Path, Provenance]:
    """Read every sidecar of the results once more; by the path of the sidecar.

    Args:
        results: What stage 8 found.
        directory: Of the page; links are relative to it.

    Raises:
        SvError: A sidecar is not as agreed.
    """
    owned = [("shared", stage) for stage in results.shared]
    owned += [(system.name, stage) for system in results.systems for stage in system.stages]
    taken: dict[str, int] = {}
    found = {}
    for owner, stage in owned:
        slug = re.sub(r"[^A-Za-z0-9]+", "-", f"energy-{owner}-{stage.path.stem}").lower()
        taken[slug] = taken.get(slug, 0) + 1
        key = slug if taken[slug] == 1 else f"{slug}--{taken[slug]}"
        found[stage.path] = _describe(stage, owner, key, directory)
    return found


def link_to(path: Path, directory: Path) -> str:
    """Give the relative link from a folder to a file."""
    return Path(os.path.relpath(path, directory)).as_posix()


def _describe(stage: StageEnergy, owner: str, key: str, directory: Path) -> Provenance:
    path = stage.path
    record = read_sidecar(path)
    attempts, nodes, channels = (
        take_objects(record, part, path) for part in ("attempts", "nodes", "channels")
    )
    journal = path.with_name(f"{path.stem}.journal.jsonl")
    hosts = [stage.host, *(take_text(item, "host") for item in (*attempts, *nodes, *channels))]
    codes = [_code(attempt, path) for attempt in attempts]
    return Provenance(
        key=key,
        owner=owner,
        title=f"{stage.stage:02d} {stage.name}",
        link=link_to(path, directory),
        journal=link_to(journal, directory) if journal.is_file() else "",
        quality=describe_quality(stage),
        energy=format_kwh(stage.energy_kwh),
        facts=list_facts(stage, record),
        channels=tuple(_channel_line(channel, path) for channel in channels),
        attempts=tuple(_attempt_line(attempt, path) for attempt in attempts if attempt),
        nodes=tuple(_node_line(node, path) for node in nodes),
        hosts=tuple(dict.fromkeys(filter(None, hosts))),
        boards=tuple(dict.fromkeys(_boards(attempts, path))),
        commits=tuple(dict.fromkeys(filter(None, codes))),
    )


def _channel_line(channel: dict[str, Any], path: Path) -> Line:
    samples = take_part(channel, "samples", dict, path)
    error = take_part(channel, "u_energy_j", dict, path)
    count, failed = (take_number(samples, key, path) for key in ("n", "failed"))
    gap_s = take_number(samples, "max_gap_s", path)
    basis = take_text(error, "sensor_basis")
    source = channel.get("source")
    if isinstance(source, dict):
        source = " ".join(str(value) for value in source.values() if value)
    texts = (
        f"{take_text(channel, 'host')} {take_text(channel, 'id')}".strip(),
        take_text(channel, "boundary").replace("_", " "),
        take_text(channel, "kind"),
        take_text(channel, "method").replace("_", " ") or UNKNOWN,
        _kwh(take_number(channel, "energy_j", path)),
        _kwh(take_number(error, "total", path)),
        UNKNOWN if count is None else f"{count:g}" + (f", {failed:g} failed" if failed else ""),
        UNKNOWN if gap_s is None else format_significant(gap_s),
        "yes" if channel.get("in_total") else "no",
    )
    notes = (str(source or ""), take_text(channel, "reason"), basis and f"Uncertainty: {basis}")
    return Line(texts, tuple(filter(None, notes)), muted=not channel.get("in_total"))


def _attempt_line(attempt: dict[str, Any], path: Path) -> Line:
    duration_s, energy_kwh = (
        take_number(attempt, key, path) for key in ("duration_s", "energy_kwh")
    )
    texts = (
        *(take_text(attempt, key) or UNKNOWN for key in ("attempt", "started_utc", "status")),
        "yes" if attempt.get("resumed") else "no",
        UNKNOWN if duration_s is None else format_duration(duration_s),
        UNKNOWN if energy_kwh is None else format_significant(energy_kwh),
        take_text(attempt, "host") or UNKNOWN,
    )
    command = shlex.join(str(word) for word in take_part(attempt, "argv", list, path))
    code = _code(attempt, path)
    notes = (take_text(attempt, "reason"), code and f"git commit {code}")
    return Line(texts, tuple(filter(None, notes)), command)


def _node_line(node: dict[str, Any], path: Path) -> Line:
    energy_kwh, counted_s = (take_number(node, key, path) for key in ("energy_kwh", "counted_s"))
    texts = (
        take_text(node, "label") or "the stage's own",
        *(take_text(node, key) or UNKNOWN for key in ("host", "status")),
        UNKNOWN if energy_kwh is None else format_significant(energy_kwh),
        UNKNOWN if counted_s is None else format_duration(counted_s),
    )
    return Line(texts, tuple(filter(None, [take_text(node, "reason")])))


def _code(attempt: dict[str, Any], path: Path) -> str:
    git = take_part(attempt, "git", dict, path)
    commit = take_text(git, "commit")
    return commit and commit + (" with uncommitted changes" if git.get("dirty") else "")


def _boards(attempts: Iterable[dict[str, Any]], path: Path) -> Iterable[str]:
    """Give the names of the GPU boards that the attempts saw."""
    for attempt in attempts:
        for facts in take_objects(attempt, "facts", path):
            boards = take_part(take_part(facts, "nvml", dict, path), "boards", dict, path)
            for uuid in boards:
                name = take_text(take_part(boards, uuid, dict, path), "name")
                if name:
                    yield name


def _kwh(energy_j: float | None) -> str:
    return UNKNOWN if energy_j is None else format_significant(kwh_from_j(energy_j))
