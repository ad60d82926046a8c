"""The small file that shows the figures of a running stage.

The meter renames it into place at each sample (`sv.energy.tracker`). It is named in
``$SV_METER_LIVE``: a command that wants to know its own energy (a budget, a progress line) reads it
with `read_live`, which adds up the files of a job's machines. `watch` shows all stages that run
below a folder.
"""

import json
import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from sv.config import Minimum, build_record
from sv.energy.nodes import list_jobs, read_expected
from sv.energy.processes import get_machine, read_boot_id, read_start_ticks
from sv.energy.units import format_figure, format_measured
from sv.errors import SvError
from sv.files import parse_json

VARIABLE = "SV_METER_LIVE"
SCHEMA = "energy-live/1"
SUFFIX = ".live.json"
SILENT_S = 60.0  # a meter that has written nothing for so long has gone
GONE_S = 3600.0  # a machine may be suspended, a disk away: longer than that is not waited
REFRESH_S = 2.0  # of what `watch` shows
HOME_AND_CLEAR = "\x1b[H\x1b[J"  # ECMA-48: cursor to the top, erase to the end
Fields = dict[str, Any]
Amount = Annotated[float, Minimum(0)]
Count = Annotated[int, Minimum(0)]


@dataclass(frozen=True)
class Live:
    """What a live file holds: those of the head that say whose it is, then its figures."""

    schema: Literal["energy-live/1"]
    stage: Count
    name: str
    model: str | None
    label: str | None
    started_utc: str
    attempt: Count
    host: str
    boot_id: str
    meter_pid: Count
    meter_start_ticks: Count | None
    elapsed_s: Amount
    power_w: Amount | None
    energy_kwh: Amount | None
    measured_fraction: Amount | None
    co2_g: Amount | None
    run_energy_kwh: Amount | None
    before_kwh: Amount = 0.0


# What a live file says before two samples were added up.
NOTHING_YET: Fields = {
    "elapsed_s": 0.0, "power_w": None, "energy_kwh": None, "measured_fraction": None, "co2_g": None,
}  # fmt: skip


def read_live(path: str | os.PathLike[str] | None) -> Fields | None:
    """Read how much energy the running attempt has used.

    Args:
        path: Value of ``$SV_METER_LIVE``; None or empty outside a meter.

    Returns:
        ``energy_kwh`` of this attempt so far (None: not known yet) and what else the meter
        writes; on one machine of several the energy is the sum of all that run, or None with
        ``energy_reason``. None where there is no meter, or no readable file.
    """
    live = read_live_file(path) if path else None
    return None if live is None else _add_nodes(live, Path(path or ""))


def read_live_file(path: str | os.PathLike[str]) -> Fields | None:
    """Read one meter's live file; None if there is none, or something else."""
    try:
        with open(path, encoding="utf-8") as file:
            live = parse_json(file.read())
        build_record(live, Live, where=str(path))
    except (OSError, ValueError, SvError):
        return None
    return live


def _add_nodes(live: Fields, path: Path) -> Fields:
    """Add up the live files of a stage's meters; what one machine measured counts once."""
    label = live.get("label")
    root = path.with_name(f"{path.name.removesuffix(SUFFIX)[1:]}.nodes")
    folder = path.parent if label else root / str(live.get("attempt"))
    if not folder.is_dir():
        return live
    expected = read_expected(folder)
    jobs, begun = list_jobs([label] if label else expected)
    if not label:  # machine 0 of a job whose other machines have meters of their own
        jobs -= begun
        if not jobs:
            return live
    by_machine: dict[str, list[Fields]] = {}
    unknown, labels = [], set()
    files = sorted({*folder.glob(f".*{SUFFIX}"), path})
    for file in files:
        other = live if file == path else read_live_file(file)
        if other is None:
            continue
        name = other["label"] or "the stage's own meter"
        labels.add(name)
        by_machine.setdefault(get_machine(other["boot_id"], other["host"]), []).append(other)
        if other["energy_kwh"] is None or _get_age(file) - _get_age(path) > SILENT_S:
            unknown.append(f"{name} on {other['host']}")
    unknown += [name for name in expected if list_jobs([name])[0] & jobs and name not in labels]
    nodes = {"nodes": sorted(labels)}
    if unknown:
        reason = f"not known of {', '.join(unknown)}"
        return {**live, **nodes, "energy_kwh": None, "energy_reason": reason}
    measured_kwh = estimated_kwh = 0.0
    for others in by_machine.values():
        parts = [other["energy_kwh"] * (other["measured_fraction"] or 0.0) for other in others]
        measured_kwh += max(parts)
        estimated_kwh += sum(other["energy_kwh"] for other in others) - sum(parts)
    energy_kwh = measured_kwh + estimated_kwh
    fraction = measured_kwh / energy_kwh if energy_kwh else None
    # A requeued job's earlier starts are of the same attempt of the stage.
    energy_kwh += sum(o.get("before_kwh", 0.0) for others in by_machine.values() for o in others)
    return {**live, **nodes, "energy_kwh": energy_kwh, "measured_fraction": fraction}


def _get_age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0  # it has just been replaced or removed


def get_live_path(journal: Path) -> Path:
    """Return the live file of a stage, a hidden file next to its journal."""
    return journal.with_name(f".{journal.name.split('.journal.')[0]}{SUFFIX}")


def write_live(path: Path, live: Fields) -> None:
    """Rename a live file into place; where that fails there is none, rather than an old one."""
    tmp = path.with_suffix(".tmp")
    try:
        tmp.unlink(missing_ok=True)  # a link would lead elsewhere
        with open(tmp, "x", encoding="utf-8") as file:
            file.write(json.dumps({"schema": SCHEMA, **live}) + "\n")
        os.replace(tmp, path)
    except OSError:
        remove_live(path)


def remove_live(path: Path) -> None:
    """Remove a live file, if it is there."""
    for file in (path, path.with_suffix(".tmp")):
        with suppress(OSError):
            file.unlink()


def find_running(folder: Path) -> tuple[list[Fields], list[Path]]:
    """Find the stages that run below a folder.

    Returns:
        Their live files' content, in order of their paths; and the files that a killed meter
        left behind. Whether a meter on another machine still runs cannot be known here: it
        counts as running until it has written nothing for `GONE_S`; its ``elsewhere`` and
        ``silent_s`` say so.
    """
    running, stale = [], []
    for path in sorted(folder.rglob(f".*{SUFFIX}")):
        live = read_live_file(path)
        if live is None:
            continue  # it has just ended
        elsewhere, silent_s = live["host"] != os.uname().nodename, _get_age(path)
        same_boot = live["boot_id"] == read_boot_id()
        ticks = read_start_ticks(live["meter_pid"]) if same_boot else None
        is_running = ticks is not None and ticks == live["meter_start_ticks"]
        if silent_s < GONE_S if elsewhere else is_running:
            more = {"path": str(path), "elsewhere": elsewhere, "silent_s": silent_s}
            running.append({**live, **more})
        else:
            stale.append(path)
    return running, stale


def format_live(live: Fields) -> str:
    """Format ``stage 5 train resnet18_d: 212 W, 0.0123 kWh (measured), 0.54 gCO2e, 1:02:03``."""
    parts = [format_figures(live)]
    if live["attempt"] > 1 and live["run_energy_kwh"] is not None:
        parts.append(f"attempt {live['attempt']}, run {_format(live['run_energy_kwh'], 'kWh')}")
    if live.get("elsewhere"):
        parts.append(
            f"on {live['host']}, which cannot be asked; heard {live['silent_s']:.0f} s ago"
        )
    owner = f" {live['model']}" if live["model"] else ""
    node = f", node {live['label']}" if live.get("label") else ""
    return f"stage {live['stage']} {live['name']}{owner}{node}: {', '.join(parts)}"


def format_figures(live: Fields) -> str:
    """Format power, energy, emissions and time of a live file."""
    parts = [
        _format(live.get("power_w"), "W"),
        _format(live.get("energy_kwh"), "kWh"),
        _format(live.get("co2_g"), "gCO2e"),
    ]
    fraction = live.get("measured_fraction")
    if fraction is not None:
        parts[1] += f" ({format_measured(fraction)})"
    minutes, seconds = divmod(int(live.get("elapsed_s", 0)), 60)
    parts.append(f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}")
    return ", ".join(parts)


def _format(value: float | None, unit: str) -> str:
    return f"{'?' if value is None else format_figure(value)} {unit}"


def watch(folder: Path) -> None:
    """Print the running stages; on a terminal every `REFRESH_S` until Ctrl-C, else once.

    Raises:
        SvError: There is no such folder.
    """
    if not folder.is_dir():
        raise SvError(f"no such folder {folder}")
    on_terminal = sys.stdout.isatty()
    try:
        while True:
            start = HOME_AND_CLEAR if on_terminal else ""
            print(start + "\n".join(describe(folder)), flush=True)
            if not on_terminal:
                return
            time.sleep(REFRESH_S)
    except KeyboardInterrupt:
        return


def describe(folder: Path) -> list[str]:
    """Return a line for each running stage; what killed meters left behind is only counted."""
    running, stale = find_running(folder)
    lines = [format_live(live) for live in running] or [f"no stage is running below {folder}"]
    if stale:
        lines.append(
            f"{len(stale)} killed before their end (first: {stale[0]}); "
            "run: python3 -m sv.bin.meter --rebuild <its folder>"
        )
    return lines
