"""What the page says about one sidecar: how each kWh came about, in words and short tables."""

import dataclasses
import os
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sv.energy.record import Attempt, Attribution, Carbon, Channel, Crosscheck, Meter
from sv.energy.sidecar import get_journal_path
from sv.energy.units import kwh_from_j
from sv.report.results import Results, Stage
from sv.report.tables.cells import UNKNOWN, format_duration, format_significant
from sv.report.tables.evidence import (
    describe_boundaries,
    describe_carbon,
    describe_energy,
    describe_pue,
    describe_quality,
    format_kwh,
    show_tried,
)

# Columns of the small tables; those in WORDS are text, the others numbers.
TITLES = {
    "Channels": (
        "Channel", "Boundary", "Kind", "Method", "kWh", "± (k = 2)", "Samples", "Longest gap (s)",
        "In total",
    ),
    "Attempts": ("No", "Started", "Status", "Resumed", "Duration", "kWh", "Host"),
    "Machines": ("Meter", "Host", "Status", "kWh", "Counted"),
}  # fmt: skip
WORDS = (
    "Channel", "Boundary", "Kind", "Method", "In total", "Started", "Status", "Resumed", "Host",
    "Meter",
)  # fmt: skip


@dataclass(frozen=True)
class Line:
    """A row of a small table; ``notes`` stand below it, ``muted`` ones are in no sum."""

    texts: tuple[str, ...]
    notes: tuple[str, ...] = ()
    command: str = ""
    muted: bool = False


@dataclass(frozen=True)
class Provenance:
    """One sidecar for the page.

    Attributes:
        key: Its id there.
        link, journal: Paths from the page's folder; ``journal`` is empty where there is none.
        facts: Terms with what is known of them.
        tables: Lines by the title of their table, a key of `TITLES`.
    """

    key: str
    owner: str
    title: str
    link: str
    journal: str
    quality: str
    energy: str
    facts: tuple[tuple[str, str], ...]
    tables: dict[str, list[Line]]
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
    """Return the relative link from a folder to a file."""
    return Path(os.path.relpath(path, directory)).as_posix()


def _describe(stage: Stage, owner: str, key: str, directory: Path) -> Provenance:
    path, sidecar = stage.path, stage.sidecar
    journal = get_journal_path(path)
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
        facts=tuple(_list_facts(stage)),
        tables={
            "Channels": [_describe_channel(channel) for channel in sidecar.channels],
            "Attempts": [_describe_attempt(attempt) for attempt in sidecar.attempts],
            "Machines": [_describe_meter(meter) for meter in meters],
        },
        hosts=tuple(dict.fromkeys([sidecar.host, *(item.host for item in found if item.host)])),
        boards=tuple(dict.fromkeys(_list_boards(sidecar.attempts))),
        commits=tuple(dict.fromkeys(filter(None, map(_get_code, sidecar.attempts)))),
    )


def _list_facts(stage: Stage) -> Iterable[tuple[str, str]]:
    """List what a sidecar says of the run that made the result; what is unknown is left out."""
    sidecar = stage.sidecar
    whole_kwh = sidecar.energy_node_kwh
    phases = [f"{phase.name} {format_kwh(phase.energy_kwh)}" for phase in sidecar.phases]
    gaps = [channel.samples.max_gap_s for channel in sidecar.channels]
    longest_s = max((gap for gap in gaps if gap is not None), default=None)
    facts = [
        ("Energy", _describe_figure(stage)),
        ("All attempts", _describe_tried(show_tried(stage))),
        ("Status", sidecar.status),
        ("Reason", sidecar.reason),
        ("Started", sidecar.started_utc),
        ("Duration", format_duration(sidecar.duration_s)),
        ("Covers", describe_boundaries(stage)),
        ("Attribution", _describe_attribution(sidecar.attribution)),
        ("Whole machine", whole_kwh != sidecar.energy_kwh and whole_kwh and format_kwh(whole_kwh)),
        ("Longest gap", longest_s and f"{format_significant(longest_s)} s between two samples"),
        ("CO2", sidecar.co2_g is not None and f"{format_significant(sidecar.co2_g / 1000)} kg"),
        ("Carbon factor", _describe_carbon(sidecar.carbon)),
        ("Recorded factor", stage.recorded_carbon and _describe_carbon(stage.recorded_carbon)),
        ("PUE", describe_pue(stage)),
        ("Crosschecks", "; ".join(_describe_check(check) for check in sidecar.crosschecks)),
        ("Phases", "; ".join(phases)),
    ]
    return ((term, text) for term, text in facts if text)


def _describe_figure(stage: Stage) -> str:
    if stage.energy_kwh is None:
        return describe_quality(stage)
    reason = stage.sidecar.uncertainty_reason
    return describe_energy(stage) + (f"; uncertainty not known: {reason}" if reason else "")


def _describe_tried(tried: Stage) -> str:
    quality = describe_quality(tried)
    return quality if tried.energy_kwh is None else f"{format_kwh(tried.energy_kwh)}, {quality}"


def _describe_attribution(attribution: Attribution) -> str:
    inputs = dataclasses.asdict(attribution.inputs)
    words = [f"{key} {value:g}" for key, value in inputs.items() if value is not None]
    words += filter(None, [attribution.reason])
    return f"{attribution.rule} ({', '.join(words)})" if words else attribution.rule


def _describe_carbon(carbon: Carbon) -> str:
    count = len(carbon.intervals)
    facts = [
        describe_carbon(carbon),
        count and f"{count} {'interval' if count == 1 else 'intervals'}",
        carbon.estimated and "estimated by its provider",
        *(f"in place of {other}" for other in carbon.fallback_from),
        carbon.reason,
    ]
    return ", ".join(fact for fact in facts if fact)


def _describe_check(check: Crosscheck) -> str:
    text = f"{check.a} / {check.b} "
    text += "not known" if check.ratio is None else format_significant(check.ratio)
    # Sensors that disagree can make the rest negative.
    return text if check.rest_kwh is None else f"{text}, rest {format_kwh(check.rest_kwh)}"


def _describe_channel(channel: Channel) -> Line:
    samples, error = channel.samples, channel.u_energy_j
    energies_j = channel.energy_j, error and error.total
    texts = (
        f"{channel.host or ''} {channel.id}".strip(),
        channel.boundary.replace("_", " "),
        channel.kind,
        (channel.method or UNKNOWN).replace("_", " "),
        *(_format(None if j is None else kwh_from_j(j)) for j in energies_j),
        f"{samples.n}" + (f", {samples.failed} failed" if samples.failed else ""),
        _format(samples.max_gap_s),
        "yes" if channel.in_total else "no",
    )
    basis = error and error.sensor_basis
    notes = (channel.source, channel.reason, basis and f"Uncertainty: {basis}")
    return Line(texts, tuple(note for note in notes if note), muted=not channel.in_total)


def _describe_attempt(attempt: Attempt) -> Line:
    texts = (
        f"{attempt.attempt}",
        attempt.started_utc,
        attempt.status,
        "yes" if attempt.resumed else "no",
        format_duration(attempt.duration_s),
        _format(attempt.energy_kwh),
        attempt.host,
    )
    code = _get_code(attempt)
    notes = (attempt.reason, code and f"git commit {code}")
    return Line(texts, tuple(note for note in notes if note), shlex.join(attempt.argv))


def _describe_meter(meter: Meter) -> Line:
    texts = (
        meter.label or "the stage's own",
        meter.host or UNKNOWN,
        meter.status,
        _format(meter.energy_kwh),
        format_duration(meter.counted_s),
    )
    return Line(texts, (meter.reason,) if meter.reason else ())


def _get_code(attempt: Attempt) -> str:
    commit = attempt.git.get("commit") or ""
    return commit and commit + (" with uncommitted changes" if attempt.git.get("dirty") else "")


def _list_boards(attempts: Iterable[Attempt]) -> Iterable[str]:
    """List the names of the GPU boards that the attempts saw."""
    for attempt in attempts:
        for metadata in attempt.metadata:
            boards = (metadata.get("nvml") or {}).get("boards") or {}
            yield from (board["name"] for board in boards.values() if board.get("name"))


def _format(value: float | None) -> str:
    return UNKNOWN if value is None else format_significant(value)
