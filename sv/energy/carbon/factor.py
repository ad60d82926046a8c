"""From energy to carbon: yearly factors of a country's electricity, or one fixed factor.

The factors are life-cycle emissions of the electricity produced in the country in a year. They
are another quantity than a grid operator's live figure (direct emissions) or a flow-traced one
(consumption), and must not be put into one column with these.
"""

import csv
import difflib
from dataclasses import dataclass
from pathlib import Path

from sv.energy.config import EnergyConfig
from sv.errors import UsageError

FACTORS_CSV = Path(__file__).with_name("carbon_intensity.csv")


@dataclass(frozen=True)
class CarbonFactor:
    """A carbon factor and where it is from; ``g_per_kwh`` is None where it is not known."""

    provider: str
    zone: str | None
    year: int | None
    vintage: str | None
    scope: str | None
    basis: str | None
    g_per_kwh: float | None
    source: str | None
    reason: str | None = None


def choose_factor(config: EnergyConfig) -> CarbonFactor:
    """Give the factor that the config asks for: fixed, of a country, or none.

    Raises:
        UsageError: The table does not have the country.
    """
    if config.g_per_kwh is not None:
        return CarbonFactor(
            "fixed", config.country, None, None, None, None, config.g_per_kwh,
            config.g_per_kwh_source,
        )  # fmt: skip
    if config.country is None:
        reason = "no country given: set country in energy.toml or use --country ISO3"
        return CarbonFactor("none", None, None, None, None, None, None, None, reason)
    return find_factor(config.country)


def find_factor(country: str) -> CarbonFactor:
    """Give the newest yearly factor of a country.

    Args:
        country: ISO 3166 code of three letters in either case, or OWID_WRL for the world.

    Raises:
        UsageError: The table does not have the country; the message has the nearest codes.
    """
    with open(FACTORS_CSV, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    zone = country.upper()
    found = [row for row in rows if row["zone"] == zone]
    if not found:
        zones = sorted({row["zone"] for row in rows})
        near = difflib.get_close_matches(zone, zones, n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}?" if near else f"known: {' '.join(zones)}"
        raise UsageError(
            f"no carbon factor for country '{country}' ({hint}); "
            "for another grid set g_per_kwh and g_per_kwh_source in energy.toml"
        )
    row = max(found, key=lambda row: int(row["year"]))
    return CarbonFactor(
        provider="owid",
        zone=zone,
        year=int(row["year"]),
        vintage=row["vintage"],
        scope="lifecycle",
        basis="production",
        g_per_kwh=float(row["g_per_kwh"]),
        source=row["source"],
    )


def compute_co2_g(energy_kwh: float | None, pue: float, g_per_kwh: float | None) -> float | None:
    """Give the emissions of the site for a machine's energy; None where a factor is unknown."""
    if energy_kwh is None or g_per_kwh is None:
        return None
    return energy_kwh * pue * g_per_kwh
