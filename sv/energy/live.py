"""The live view of a running stage: a small file that the meter renames into place at each sample.

The meter names the file in ``$SV_METER_LIVE``; a command that wants to know its own energy (a
budget, a progress line) reads it with `read_live`.
"""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from sv.energy.host import read_boot_id, read_start_ticks

VARIABLE = "SV_METER_LIVE"
SCHEMA = "energy-live/1"
PATTERN = ".[0-9][0-9]_*.live.json"
Fields = dict[str, Any]


def read_live(path: str | os.PathLike[str] | None) -> Fields | None:
    """Read a live file.

    Args:
        path: Value of ``$SV_METER_LIVE``; None or empty outside a meter.

    Returns:
        ``energy_kwh`` of this attempt so far (None: not known yet) and what else the meter
        writes; None where there is no meter, or no readable file.
    """
    if not path:
        return None
    try:
        with open(path, encoding="utf-8") as file:
            live = json.load(file)
    except (OSError, ValueError):
        return None
    return live if isinstance(live, dict) and live.get("schema") == SCHEMA else None


def get_live_path(journal: Path) -> Path:
    """Give the live file of a stage, a hidden file beside its journal."""
    return journal.with_name(f".{journal.name.split('.journal.')[0]}.live.json")


def write_live(path: Path, live: Fields) -> None:
    """Rename a live file into place; where that fails there is none, rather than an old one."""
    tmp = path.with_suffix(".tmp")
    try:
        tmp.write_text(json.dumps({"schema": SCHEMA, **live}) + "\n", encoding="utf-8")
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
        left behind. Of a meter on another machine nobody here knows whether it still runs: it
        counts as running, and its ``elsewhere`` says so.
    """
    running, stale = [], []
    for path in sorted(folder.rglob(PATTERN)):
        live = read_live(path)
        if live is None:
            continue  # it ended this moment
        elsewhere = live["host"] != os.uname().nodename
        if elsewhere or _is_running(live):
            running.append({**live, "path": str(path), "elsewhere": elsewhere})
        else:
            stale.append(path)
    return running, stale


def _is_running(live: Fields) -> bool:
    same_boot = live["boot_id"] == read_boot_id()
    return same_boot and read_start_ticks(live["meter_pid"]) == live["meter_start_ticks"]


def format_live(live: Fields) -> str:
    """Format ``stage 5 train resnet18_d: 212 W, 0.0123 kWh (measured), 0.54 gCO2e, 1:02:03``."""
    parts = [
        _format(live["power_w"], "W"),
        _format(live["energy_kwh"], "kWh"),
        _format(live["co2_g"], "gCO2e"),
    ]
    fraction = live["measured_fraction"]
    if fraction is not None:
        share = {0.0: "estimated", 1.0: "measured"}.get(fraction, f"{fraction:.0%} measured")
        parts[1] += f" ({share})"
    minutes, seconds = divmod(int(live["elapsed_s"]), 60)
    parts.append(f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}")
    if live["attempt"] > 1 and live["run_energy_kwh"] is not None:
        parts.append(f"attempt {live['attempt']}, run {_format(live['run_energy_kwh'], 'kWh')}")
    if live.get("elsewhere"):
        parts.append(f"on {live['host']}, which cannot be asked")
    owner = f" {live['model']}" if live["model"] else ""
    return f"stage {live['stage']} {live['name']}{owner}: {', '.join(parts)}"


def _format(value: float | None, unit: str) -> str:
    if value is None:
        return f"? {unit}"
    return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
