"""Electricity Maps: emissions of the electricity consumed in a zone, flows between zones traced.

The token goes into a header of the question and nowhere else.
Source: Electricity Maps API v3, https://portal.electricitymaps.com/docs, 2026-11.
"""

from collections.abc import Mapping
from typing import Any

from sv.energy.carbon.factor import CarbonFactor, is_usable
from sv.energy.carbon.utc import format_utc, parse_utc
from sv.energy.config import EnergyConfig
from sv.energy.web import FetchError, fetch_json
from sv.errors import UsageError

STEP_S = 3_600.0
WINDOW_S = 10 * 86_400.0  # past-range gives at most ten days of hours
# ISO 3166 codes of two letters of the countries in carbon_intensity.csv.
ZONES = {
    "AUS": "AU", "AUT": "AT", "BEL": "BE", "BRA": "BR", "CAN": "CA", "CHE": "CH", "CHN": "CN",
    "CZE": "CZ", "DEU": "DE", "DNK": "DK", "ESP": "ES", "FIN": "FI", "FRA": "FR", "GBR": "GB",
    "IND": "IN", "IRL": "IE", "ITA": "IT", "JPN": "JP", "KOR": "KR", "MAR": "MA", "NLD": "NL",
    "NOR": "NO", "POL": "PL", "PRT": "PT", "SGP": "SG", "SWE": "SE", "USA": "US", "ZAF": "ZA",
}  # fmt: skip


def choose_zone(config: EnergyConfig) -> str:
    """Give the zone that the config means.

    Raises:
        UsageError: There is none, or it lies in another country than the config's.
    """
    country, zone = (config.country or "").upper(), config.electricity_maps_zone
    if zone is None:
        if country not in ZONES:
            raise UsageError("carbon names electricity_maps: set electricity_maps_zone")
        return ZONES[country]
    if country in ZONES and zone.split("-")[0] != ZONES[country]:
        raise UsageError(f"electricity_maps_zone '{zone}' does not lie in {country}")
    return zone


def fetch_latest(config: EnergyConfig, environ: Mapping[str, str]) -> CarbonFactor:
    """Give the newest value.

    Raises:
        FetchError: No token, no answer or no usable value in it.
    """
    return _read_value(_ask(config, environ, "latest", {}), config)


def fetch_history(
    config: EnergyConfig, environ: Mapping[str, str], start_s: float, end_s: float
) -> list[CarbonFactor]:
    """Give the values of a span of Unix time, in order; each holds from its hour on.

    Raises:
        FetchError: No token, no answer, or no value in the span.
    """
    factors: dict[str | None, CarbonFactor] = {}
    at_s = start_s - STEP_S
    while at_s < end_s:
        to_s = min(at_s + WINDOW_S, end_s + STEP_S)
        span = {"start": format_utc(int(at_s)), "end": format_utc(int(to_s))}
        answer = _ask(config, environ, "past-range", span)
        entries = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(entries, list):
            raise FetchError("no list of data in the answer")
        for entry in entries:
            if isinstance(entry, dict) and entry.get("carbonIntensity") is None:
                continue  # an hour that is not known: the value before it grows old
            factor = _read_value(entry, config)
            factors[factor.observed_utc] = factor
        at_s = to_s
    if not factors:
        raise FetchError(f"no value between {format_utc(start_s)} and {format_utc(end_s)}")
    return sorted(factors.values(), key=lambda factor: parse_utc(factor.observed_utc or ""))


def _ask(
    config: EnergyConfig, environ: Mapping[str, str], path: str, more: Mapping[str, str]
) -> Any:
    variable = config.electricity_maps_token_variable
    token = environ.get(variable, "").strip()
    if not token:
        raise FetchError(f"no token in the environment variable {variable}")
    query = {
        "zone": choose_zone(config),
        "emissionFactorType": config.electricity_maps_scope,
        "disableEstimations": "false" if config.electricity_maps_estimates else "true",
        # Else an unknown zone would be answered for the place of the caller's address.
        "shouldUseFallbackCallerLookup": "false",
        **more,
    }
    url = f"{config.electricity_maps_url.rstrip('/')}/v3/carbon-intensity/{path}"
    return fetch_json(url, query, {"auth-token": token})


def _read_value(answer: Any, config: EnergyConfig) -> CarbonFactor:
    if not isinstance(answer, dict):
        raise FetchError("no object in the answer")
    value, zone = answer.get("carbonIntensity"), choose_zone(config)
    if not is_usable(value):
        raise FetchError(f"carbonIntensity is {value!r}"[:80])
    if answer.get("zone", zone) != zone:
        raise FetchError(f"the answer is for another zone than {zone}")
    scope = answer.get("emissionFactorType", config.electricity_maps_scope)
    if scope != config.electricity_maps_scope:
        raise FetchError(f"the answer is not of {config.electricity_maps_scope} emissions")
    estimated = answer.get("isEstimated")
    if estimated is True and not config.electricity_maps_estimates:
        raise FetchError("only an estimate, and estimates are refused")
    try:
        at_s = parse_utc(answer["datetime"])
    except (KeyError, TypeError, ValueError):
        raise FetchError("an answer without a datetime") from None
    return CarbonFactor(
        provider="electricity_maps",
        zone=zone,
        scope=config.electricity_maps_scope,
        basis="consumption",
        g_per_kwh=float(value),
        source="Electricity Maps, carbon intensity of consumption, flow-traced",
        valid_from_utc=format_utc(at_s),
        valid_to_utc=format_utc(at_s + STEP_S),
        observed_utc=format_utc(at_s),
        estimated=estimated if isinstance(estimated, bool) else None,
    )
