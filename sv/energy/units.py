"""Every unit conversion of the meter; a figure changes its unit here and nowhere else.

Timestamps are UTC as text, the way that journals, sidecars and carbon providers write them.
"""

from collections.abc import Iterable
from datetime import UTC, datetime

J_PER_KWH = 3_600_000
UNITS_PER_J = {"uJ": 1_000_000, "mJ": 1_000, "J": 1}  # units in which counters count energy
UNITS_PER_W = {"uW": 1_000_000, "mW": 1_000, "W": 1}  # units in which sensors give power
US_PER_S = 1_000_000
S_PER_HOUR = 3_600


def j_from_count(count: float, unit: str) -> float:
    """Convert a count of ``unit`` (a key of `UNITS_PER_J`) to joules."""
    return count / UNITS_PER_J[unit]


def kwh_from_j(energy_j: float) -> float:
    """Convert joules to kilowatt-hours."""
    return energy_j / J_PER_KWH


def j_from_kwh(energy_kwh: float) -> float:
    """Convert kilowatt-hours to joules."""
    return energy_kwh * J_PER_KWH


def w_from_count(count: float, unit: str) -> float:
    """Convert a power in ``unit`` (a key of `UNITS_PER_W`) to watts."""
    return count / UNITS_PER_W[unit]


def s_from_us(time_us: float) -> float:
    """Convert microseconds to seconds."""
    return time_us / US_PER_S


def us_from_s(time_s: float) -> int:
    """Convert seconds to whole microseconds."""
    return round(time_s * US_PER_S)


def hours_from_s(time_s: float) -> float:
    """Convert seconds to hours."""
    return time_s / S_PER_HOUR


def format_utc(unix_s: float) -> str:
    """Format ``2026-11-22T10:15:00Z``, with milliseconds where there are any."""
    time = datetime.fromtimestamp(unix_s, UTC)
    spec = "milliseconds" if round(unix_s % 1, 3) else "seconds"
    return time.isoformat(timespec=spec).replace("+00:00", "Z")


def parse_utc(text: str) -> float:
    """Return the Unix time of a timestamp; one without a zone is UTC.

    Raises:
        ValueError: It is no date and time of ISO 8601.
    """
    time = datetime.fromisoformat(text)
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def format_figure(value: float) -> str:
    """Format with three figures, without an exponent for what a person writes without one."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def format_measured(fraction: float) -> str:
    """Format how much of an energy was measured: ``measured``, ``estimated``, ``42% measured``."""
    return {0.0: "estimated", 1.0: "measured"}.get(fraction, f"{fraction:.0%} measured")


def sum_known(values: Iterable[float | None]) -> float | None:
    """Add up the figures that are known; None where none is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
