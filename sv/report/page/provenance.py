"""What the page says of one sidecar: how each kWh came about, in words and short tables."""

import os
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sv.energy.record import Attempt, Channel, Meter
from sv.energy.units import kwh_from_j
from sv.report.page.facts import describe_quality, format_kwh, list_facts
from sv.report.results import Results, Stage
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
    """Describe every sidecar of the results; by the path of the sidecar.

    Args:
        results: What stage 8 found.
        directory: Of the page; links are relative to it.
    """
    taken: dict[str, int] = {}
    found = {}
    for owner, stage in results.stages:
        slug = re.sub(r"[^A-Za-z0-9]+", "-", f"energy-{owner}-{stage.path.stem}").lower()
        taken[slug] = taken.get(slug, 0) + 1
        key = slug if taken[slug] == 1 else f"{slug}--{taken[slug]}"
        found[stage.path] = _describe(stage, owner, key, directory)
    return found


def link_to(path: Path, directory: Path) -> str:
    """Give the relative link from a folder to a file."""
    return Path(os.path.relpath(path, directory)).as_posix()


def _describe(stage: Stage, owner: str, key: str, directory: Path) -> Provenance:
    path, sidecar = stage.path, stage.sidecar
    journal = path.with_name(f"{path.stem}.journal.jsonl")
    # The only meter of an attempt is the attempt itself.
    meters = [m for attempt in sidecar.attempts if len(attempt.meters) > 1 for m in attempt.meters]
    found = (*sidecar.attempts, *meters, *sidecar.channels)
    return Provenance(
        key=key,
        owner=owner,
        title=f"{stage.number:02d} {stage.name}",
        link=link_to(path, directory),
        journal=link_to(journal, directory) if journal.is_file() else "",
        quality=describe_quality(stage),
        energy=format_kwh(stage.energy_kwh),
        facts=list_facts(stage),
        channels=tuple(_channel_line(channel) for channel in sidecar.channels),
        attempts=tuple(_attempt_line(attempt) for attempt in sidecar.attempts),
        nodes=tuple(_meter_line(meter) for meter in meters),
        hosts=tuple(dict.fromkeys([sidecar.host, *(item.host for item in found if item.host)])),
        boards=tuple(dict.fromkeys(_list_boards(sidecar.attempts))),
        commits=tuple(dict.fromkeys(filter(None, map(_get_code, sidecar.attempts)))),
    )


def _channel_line(channel: Channel) -> Line:
    samples, error = channel.samples, channel.u_energy_j
    texts = (
        f"{channel.host or ''} {channel.id}".strip(),
        channel.boundary.replace("_", " "),
        channel.kind,
        (channel.method or UNKNOWN).replace("_", " "),
        _kwh(channel.energy_j),
        _kwh(error.total if error else None),
        f"{samples.n}" + (f", {samples.failed} failed" if samples.failed else ""),
        UNKNOWN if samples.max_gap_s is None else format_significant(samples.max_gap_s),
        "yes" if channel.in_total else "no",
    )
    basis = error and error.sensor_basis
    notes = (channel.source, channel.reason, basis and f"Uncertainty: {basis}")
    return Line(texts, tuple(note for note in notes if note), muted=not channel.in_total)


def _attempt_line(attempt: Attempt) -> Line:
    texts = (
        f"{attempt.attempt}",
        attempt.started_utc,
        attempt.status,
        "yes" if attempt.resumed else "no",
        format_duration(attempt.duration_s),
        UNKNOWN if attempt.energy_kwh is None else format_significant(attempt.energy_kwh),
        attempt.host,
    )
    code = _get_code(attempt)
    notes = (attempt.reason, code and f"git commit {code}")
    return Line(texts, tuple(note for note in notes if note), shlex.join(attempt.argv))


def _meter_line(meter: Meter) -> Line:
    texts = (
        meter.label or "the stage's own",
        meter.host or UNKNOWN,
        meter.status,
        UNKNOWN if meter.energy_kwh is None else format_significant(meter.energy_kwh),
        format_duration(meter.counted_s),
    )
    return Line(texts, (meter.reason,) if meter.reason else ())


def _get_code(attempt: Attempt) -> str:
    commit = attempt.git.get("commit") or ""
    return commit and commit + (" with uncommitted changes" if attempt.git.get("dirty") else "")


def _list_boards(attempts: Iterable[Attempt]) -> Iterable[str]:
    """List the names of the GPU boards that the attempts saw."""
    for attempt in attempts:
        for said in attempt.metadata:
            boards = (said.get("nvml") or {}).get("boards") or {}
            yield from (board["name"] for board in boards.values() if board.get("name"))


def _kwh(energy_j: float | None) -> str:
    return UNKNOWN if energy_j is None else format_significant(kwh_from_j(energy_j))
