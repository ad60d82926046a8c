"""Energy above idle: a machine's idle power, measured once, taken away from its stages' energy.

`sv.energy.calibrate` measures it.
"""

from pathlib import Path
from typing import Any

from sv.energy.total import MEASURED_KINDS
from sv.energy.units import kwh_from_j
from sv.errors import SvError, UsageError
from sv.files import read_json

Fields = dict[str, Any]
SCHEMA = "energy-baseline/1"


def read_baseline(path: Path) -> Fields:
    """Read a baseline that the config names.

    Raises:
        UsageError: There is none, or it is something else.
    """
    try:
        baseline = read_json(path)
    except SvError as error:
        raise UsageError(
            f"idle_baseline: {error}; make it with --calibrate, or remove idle_baseline"
        ) from error
    if not isinstance(baseline, dict) or baseline.get("schema") != SCHEMA:
        raise UsageError(f"idle_baseline: {path} is not a baseline ({SCHEMA})")
    return baseline


def compute_above_idle(
    channels: list[Fields], awake_s: float, host: str, baseline: Fields | None, rule: str
) -> tuple[float | None, str | None]:
    """Take the idle energy of an attempt's total away from it.

    Returns:
        Energy above idle in kWh, and why there is none or what is in it all the same.
    """
    total = [ch for ch in channels if ch["in_total"] and ch["energy_j"] is not None]
    measured = [channel for channel in total if channel["kind"] in MEASURED_KINDS]
    if not measured:
        return None, "nothing was measured, and an estimate from CPU time has no idle part"
    if baseline is None:
        return None, "no idle_baseline in energy.toml (python3 -m sv.bin.meter --calibrate)"
    if rule != "exclusive":
        return None, f"a job has no idle power of its own (attribution {rule})"
    if baseline["host"] != host:
        return None, f"the baseline is of host {baseline['host']}, the attempt ran on {host}"
    missing = [ch["id"] for ch in measured if ch["id"] not in baseline["channels"]]
    if missing:
        return None, f"the baseline lacks {', '.join(missing)}"
    idle_j = sum(baseline["channels"][ch["id"]]["power_w"] for ch in measured) * awake_s
    above_j = sum(channel["energy_j"] for channel in total) - idle_j
    estimates = [channel["id"] for channel in total if channel["kind"] == "estimated"]
    note = f"{', '.join(estimates)} whole: an estimate has no idle part" if estimates else None
    return kwh_from_j(above_j), note


def sum_above_idle(attempts: list[Fields]) -> tuple[float | None, str | None]:
    """Add up the energy above idle of a run's attempts; None if one is not known."""
    known = [attempt["energy_above_idle_kwh"] for attempt in attempts]
    reasons = dict.fromkeys(a["above_idle_reason"] for a in attempts if a["above_idle_reason"])
    return None if None in known else sum(known), "; ".join(reasons) or None
