"""Every unit conversion of the meter; a figure changes its unit here and nowhere else."""

J_PER_KWH = 3_600_000
UNITS_PER_J = {"uJ": 1_000_000, "mJ": 1_000}  # units in which counters count energy
US_PER_S = 1_000_000
MW_PER_W = 1_000


def j_from_count(count: float, unit: str) -> float:
    """Convert a count of ``unit`` (``uJ`` or ``mJ``) to joules."""
    return count / UNITS_PER_J[unit]


def kwh_from_j(energy_j: float) -> float:
    """Convert joules to kilowatt-hours."""
    return energy_j / J_PER_KWH


def j_from_kwh(energy_kwh: float) -> float:
    """Convert kilowatt-hours to joules."""
    return energy_kwh * J_PER_KWH


def w_from_mw(power_mw: float) -> float:
    """Convert milliwatts to watts."""
    return power_mw / MW_PER_W


def s_from_us(time_us: float) -> float:
    """Convert microseconds to seconds."""
    return time_us / US_PER_S


def us_from_s(time_s: float) -> int:
    """Convert seconds to whole microseconds."""
    return round(time_s * US_PER_S)
