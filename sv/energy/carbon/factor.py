"""A carbon factor with its provenance, and emissions from energy.

Providers publish different quantities: a year's life-cycle emissions of what a country produces
(owid), the direct emissions of its production now (rte), life-cycle emissions of what is consumed
there (electricity_maps). ``scope`` and ``basis`` keep them apart.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class CarbonFactor:
    """A carbon factor and where it is from.

    Attributes:
        provider: Who gave it; ``none`` where nobody did.
        zone: Country or zone of the grid.
        year: Year of a yearly average.
        vintage: When the table was published.
        scope: ``direct`` or ``lifecycle`` emissions.
        basis: Of the electricity's ``production`` or ``consumption``.
        g_per_kwh: None where it is not known; ``reason`` says why.
        source: Who made the figure.
        reason: Why there is none.
        valid_from_utc: From when on it is applied; None: from the beginning.
        valid_to_utc: Until when it was observed to hold.
        observed_utc: Time of the observation; None for an average of the past.
        estimated: Whether the provider estimated it; None: it does not say.
        fallback_from: Those asked before that did not answer, ``"provider: why"``.
    """

    provider: str
    zone: str | None = None
    year: int | None = None
    vintage: str | None = None
    scope: str | None = None
    basis: str | None = None
    g_per_kwh: float | None = None
    source: str | None = None
    reason: str | None = None
    valid_from_utc: str | None = None
    valid_to_utc: str | None = None
    observed_utc: str | None = None
    estimated: bool | None = None
    fallback_from: tuple[str, ...] = ()


def parse_factor(record: Mapping[str, Any]) -> CarbonFactor:
    """Give the factor of a journal's line; older journals lack the newer keys."""
    known = {field.name for field in fields(CarbonFactor)}
    values = {key: value for key, value in record.items() if key in known}
    return CarbonFactor(**{**values, "fallback_from": tuple(values.get("fallback_from") or ())})


def is_usable(g_per_kwh: object) -> bool:
    """Tell whether a provider's value can be a grid's factor: a finite number above 0."""
    is_number = isinstance(g_per_kwh, int | float) and not isinstance(g_per_kwh, bool)
    return is_number and math.isfinite(g_per_kwh) and g_per_kwh > 0


def compute_co2_g(energy_kwh: float | None, pue: float, g_per_kwh: float | None) -> float | None:
    """Give the emissions of the site for a machine's energy; None where a factor is unknown."""
    if energy_kwh is None or g_per_kwh is None:
        return None
    return energy_kwh * pue * g_per_kwh
