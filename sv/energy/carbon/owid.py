"""Yearly factors of a country's electricity, from the table beside this file.

Life-cycle emissions of the electricity produced in the country in a year.
"""

import csv
import difflib
from pathlib import Path

from sv.energy.carbon.factor import CarbonFactor
from sv.errors import UsageError

FACTORS_CSV = Path(__file__).with_name("carbon_intensity.csv")


def find_factor(country: str, year: int | None = None) -> CarbonFactor:
    """Give the yearly factor of a country.

    Args:
        country: ISO 3166 code of three letters in either case, or OWID_WRL for the world.
        year: None: the newest.

    Raises:
        UsageError: The table does not have the country (the message has the nearest codes), or
            not that year of it.
    """
    with open(FACTORS_CSV, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    zone = country.upper()
    found = {int(row["year"]): row for row in rows if row["zone"] == zone}
    if not found:
        zones = sorted({row["zone"] for row in rows})
        near = difflib.get_close_matches(zone, zones, n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}?" if near else f"known: {' '.join(zones)}"
        raise UsageError(
            f"no carbon factor for country '{country}' ({hint}); "
            "for another grid set g_per_kwh and g_per_kwh_source in energy.toml"
        )
    year = max(found) if year is None else year
    if year not in found:
        known = ", ".join(map(str, sorted(found)))
        raise UsageError(f"no carbon factor of {year} for {zone} (there are: {known})")
    row = found[year]
    return CarbonFactor(
        provider="owid",
        zone=zone,
        year=year,
        vintage=row["vintage"],
        scope="lifecycle",
        basis="production",
        g_per_kwh=float(row["g_per_kwh"]),
        source=row["source"],
    )
