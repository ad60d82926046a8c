"""Carbon factors from services on the network, and old energies at another factor.

RTE's eCO2mix: the direct emissions of the electricity that France produces, every 15 minutes.
Imports, building and fuel supply of the plants are not in the figure. The real-time data set goes
from about a month back to about two hours ago; older days are in the consolidated one.
Source: https://odre.opendatasoft.com, data sets eco2mix-national-tr and -cons-def, 2026-11; asked
by Opendatasoft's Explore API 2.1, whose exports have no limit of records.

Electricity Maps: emissions of the electricity consumed in a zone, flows between zones traced. The
token goes into a header of the question and nowhere else.
Source: Electricity Maps API v3, https://portal.electricitymaps.com/docs, 2026-11.

It imports an HTTP client: a meter loads it only where its config names one of the two.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sv.energy.carbon import apply_factors, note_pues
from sv.energy.config import (
    MAX_G_PER_KWH,
    NETWORK,
    EnergyConfig,
    build_energy_config,
    list_providers,
)
from sv.energy.factors import (
    CarbonFactor,
    ask_providers,
    check_providers,
    is_usable,
    read_table,
)
from sv.energy.journal import get_journal_path
from sv.energy.record import Carbon, Sidecar
from sv.energy.sidecar import read_energy_series
from sv.energy.units import format_utc, j_from_kwh, parse_utc
from sv.energy.web import FetchError, fetch_json
from sv.errors import SvError, UsageError

RTE_REAL_TIME, RTE_CONSOLIDATED = "eco2mix-national-tr", "eco2mix-national-cons-def"
RTE_STEP_S = 900.0
RTE_EARLIER_S = 3_600.0  # the first value must cover the beginning also where one is missing
ZONE_STEP_S = 3_600.0
ZONE_WINDOW_S = 10 * 86_400.0  # past-range returns at most ten days of hours
# What temporalGranularity says; an answer without it is of an hour.
STEPS_S = {"5_minutes": 300.0, "15_minutes": 900.0, "hourly": 3_600.0, "daily": 86_400.0}
SAME = 1e-6  # relative: a journal gives the energy of its sidecar
Points = list[tuple[float, float]]


def fetch_latest(provider: str, config: EnergyConfig, environ: Mapping[str, str]) -> CarbonFactor:
    """Return the newest value of ``rte`` or ``electricity_maps``.

    Args:
        provider: Which of them.
        config: Settings.
        environ: Holds the token of Electricity Maps.

    Raises:
        FetchError: No token, no answer or no usable value in it.
    """
    if provider == "electricity_maps":
        zone = choose_zone(config)
        return _parse_zone(_ask_zone(zone, config, environ, "latest", {}), zone, config)
    newest = {"where": "taux_co2 is not null", "order_by": "date_heure desc", "limit": "1"}
    records = _ask_rte(config, RTE_REAL_TIME, newest)
    if not records:
        raise FetchError("no value at all")
    return _parse_rte(records[0], RTE_REAL_TIME)


def fetch_history(
    provider: str, config: EnergyConfig, environ: Mapping[str, str], start_s: float, end_s: float
) -> list[CarbonFactor]:
    """Return the values of a span of Unix time, in order.

    Each holds from its own time on: a quarter hour (rte), or as long as electricity_maps says.

    Raises:
        FetchError: No token, no answer, or no value in the span.
    """
    if provider == "electricity_maps":
        factors = _fetch_zone_history(config, environ, start_s, end_s)
    else:
        factors = _fetch_rte_history(config, start_s, end_s)
    if not factors:
        raise FetchError(f"no value between {format_utc(start_s)} and {format_utc(end_s)}")
    by_time = {parse_utc(factor.observed_utc or ""): factor for factor in factors}
    return [by_time[at_s] for at_s in sorted(by_time)]


def _build_factor(
    provider: str,
    answer: Mapping[str, Any],
    value_key: str,
    key: str,
    step_s: float | None,
    **values: Any,
) -> CarbonFactor:
    """Build the factor of an answer, whose value and time are in its keys.

    Raises:
        FetchError: No value that a grid can have, or no time.
    """
    value = answer.get(value_key)
    if not is_usable(value):
        limits = f"a grid has over 0 and at most {MAX_G_PER_KWH:g} g/kWh"
        raise FetchError(f"{value_key} is {value!r}"[:80] + f"; {limits}")
    try:
        at_s = parse_utc(answer[key])
    except (KeyError, TypeError, ValueError):
        raise FetchError(f"an answer without a {key}") from None
    return CarbonFactor(
        provider=provider,
        valid_from_utc=format_utc(at_s),
        valid_to_utc=None if step_s is None else format_utc(at_s + step_s),
        observed_utc=format_utc(at_s),
        g_per_kwh=float(value),
        **values,
    )


# RTE


def _fetch_rte_history(config: EnergyConfig, start_s: float, end_s: float) -> list[CarbonFactor]:
    """Return the values of both sets; of a time that is in both, real time's is the last."""
    begin, end = format_utc(int(start_s - RTE_EARLIER_S)), format_utc(int(end_s) + 1)
    where = f"date_heure in [date'{begin}' TO date'{end}'] and taux_co2 is not null"
    return [
        _parse_rte(record, data_set)
        for data_set in (RTE_CONSOLIDATED, RTE_REAL_TIME)
        for record in _ask_rte(config, data_set, {"where": where})
    ]


def _ask_rte(config: EnergyConfig, data_set: str, which: Mapping[str, str]) -> list[Any]:
    query = {"select": "taux_co2,date_heure", "timezone": "UTC", **which}
    records = fetch_json(f"{config.rte_url.rstrip('/')}/{data_set}/exports/json", query)
    if not isinstance(records, list):
        raise FetchError("no list of records in the answer")
    return records


def _parse_rte(record: Any, data_set: str) -> CarbonFactor:
    if not isinstance(record, dict):
        raise FetchError("no record in the answer")
    return _build_factor(
        "rte",
        record,
        "taux_co2",
        "date_heure",
        RTE_STEP_S,
        zone="FRA",
        scope="direct",
        basis="production",
        source=f"RTE eCO2mix, {data_set}, taux_co2",
    )


# Electricity Maps


def choose_zone(config: EnergyConfig) -> str:
    """Return the zone of Electricity Maps that the config means.

    Raises:
        UsageError: There is none, or it lies in another country than the config's.
    """
    country, zone = (config.country or "").upper(), config.electricity_maps_zone
    codes = {row["zone"]: row["iso2"] for row in read_table()}
    code = codes.get(country) or None
    if zone is None and code is None:
        raise UsageError("carbon names electricity_maps: set electricity_maps_zone")
    if zone is not None and code not in (None, zone.split("-")[0]):
        raise UsageError(f"electricity_maps_zone '{zone}' does not lie in {country}")
    return zone or code


def _fetch_zone_history(
    config: EnergyConfig, environ: Mapping[str, str], start_s: float, end_s: float
) -> list[CarbonFactor]:
    factors, zone = [], choose_zone(config)
    at_s = start_s - ZONE_STEP_S
    while at_s < end_s:
        to_s = min(at_s + ZONE_WINDOW_S, end_s + ZONE_STEP_S)
        span = {"start": format_utc(int(at_s)), "end": format_utc(int(to_s))}
        answer = _ask_zone(zone, config, environ, "past-range", span)
        entries = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(entries, list):
            raise FetchError("no list of data in the answer")
        said = {key: answer[key] for key in ("temporalGranularity",) if key in answer}
        factors += [
            _parse_zone(said | entry if isinstance(entry, dict) else entry, zone, config)
            for entry in entries
            # An hour that is not known is left out: the value before it grows old.
            if not (isinstance(entry, dict) and entry.get("carbonIntensity") is None)
        ]
        at_s = to_s
    return factors


def _ask_zone(
    zone: str, config: EnergyConfig, environ: Mapping[str, str], path: str, more: Mapping[str, str]
) -> Any:
    variable = config.electricity_maps_token_variable
    token = environ.get(variable, "").strip()
    if not token:
        raise FetchError(f"no token in the environment variable {variable}")
    query = {
        "zone": zone,
        "emissionFactorType": config.electricity_maps_scope,
        "disableEstimations": "false" if config.electricity_maps_estimates else "true",
        # Else an unknown zone would be answered for the place of the caller's address.
        "shouldUseFallbackCallerLookup": "false",
        **more,
    }
    url = f"{config.electricity_maps_url.rstrip('/')}/v3/carbon-intensity/{path}"
    return fetch_json(url, query, secrets={"auth-token": token})


def _parse_zone(answer: Any, zone: str, config: EnergyConfig) -> CarbonFactor:
    if not isinstance(answer, dict):
        raise FetchError("no object in the answer")
    if answer.get("zone", zone) != zone:
        raise FetchError(f"the answer is for another zone than {zone}")
    scope = answer.get("emissionFactorType", config.electricity_maps_scope)
    if scope != config.electricity_maps_scope:
        raise FetchError(f"the answer is not of {config.electricity_maps_scope} emissions")
    estimated = answer.get("isEstimated")
    if estimated is True and not config.electricity_maps_estimates:
        raise FetchError("only an estimate, and estimates are refused")
    return _build_factor(
        "electricity_maps",
        answer,
        "carbonIntensity",
        "datetime",
        STEPS_S.get(str(answer.get("temporalGranularity", "hourly"))),
        zone=zone,
        scope=config.electricity_maps_scope,
        basis="consumption",
        source="Electricity Maps, carbon intensity of consumption, flow-traced",
        estimated=estimated if isinstance(estimated, bool) else None,
    )


# Old energies at another factor


def choose_carbon(
    provider: str,
    *,
    country: str | None = None,
    year: int | None = None,
    g_per_kwh: float | None = None,
) -> EnergyConfig:
    """Return settings with one provider, as a command line chooses it.

    Raises:
        UsageError: No such provider, or the values do not go together.
    """
    values: dict[str, Any] = {"carbon": [provider], "country": country, "carbon_year": year}
    if g_per_kwh is not None:
        values |= {"g_per_kwh": g_per_kwh, "g_per_kwh_source": "the command line"}
    return build_energy_config(values, "carbon")


def recompute_carbon(
    path: Path, sidecar: Sidecar, config: EnergyConfig, environ: Mapping[str, str]
) -> Carbon:
    """Return the emissions of a sidecar at the factor of the one provider that the config names.

    Args:
        path: The sidecar's file. A factor that varies in time needs the journal next to it.
        sidecar: Its content.
        config: See `choose_carbon`.
        environ: Holds the token of Electricity Maps.

    Raises:
        SvError: The journal is missing or has another energy, or the provider did not answer. No
            other provider is asked instead.
        UsageError: The provider cannot know the country or the year.
    """
    check_providers(config)
    (provider,) = list_providers(config)
    points: Points = []
    if provider not in NETWORK:
        factor = ask_providers(config, environ, 0.0)
        if factor.g_per_kwh is None:
            raise SvError(f"{provider}: {factor.reason}")
        if sidecar.energy_kwh is not None:
            last, start_s = sidecar.run[-1], parse_utc(sidecar.started_utc)
            end_s = max(start_s, parse_utc(last.started_utc) + last.duration_s)
            points = [(start_s, 0.0), (end_s, j_from_kwh(sidecar.energy_kwh))]
        factors = [factor]
    elif sidecar.energy_kwh is None:
        factors = [CarbonFactor(provider, reason="the energy is not known")]
    else:
        points = _read_points(path, sidecar)
        try:
            factors = fetch_history(provider, config, environ, points[0][0], points[-1][0])
        except SvError as error:
            raise type(error)(f"{provider}: {error}") from error
    carbon = apply_factors(points, factors, sidecar.pue.value)
    return note_pues(carbon, (attempt.pue.value for attempt in sidecar.run if attempt.energy_kwh))


def _read_points(path: Path, sidecar: Sidecar) -> Points:
    journal = get_journal_path(path)
    if not journal.is_file():
        raise SvError(f"no such file {journal}: a factor that varies needs the journal")
    points = read_energy_series(journal)
    if not points:
        raise SvError(f"{journal}: no energy in it, and the sidecar has one")
    energy_j, series_j = j_from_kwh(sidecar.energy_kwh or 0.0), points[-1][1] - points[0][1]
    if abs(series_j - energy_j) > SAME * max(energy_j, series_j):
        raise SvError(
            f"{journal} gives {series_j:.6g} J and {path.name} {energy_j:.6g} J; write the sidecar "
            f"again: python3 -m sv.bin.meter --rebuild {path.parent}"
        )
    return points
