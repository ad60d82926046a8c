"""RTE's eCO2mix: the direct emissions of the electricity that France produces, every 15 minutes.

Imports, building and fuel supply of the plants are not in the figure. The real-time data set goes
from about a month back to about two hours ago; older days are in the consolidated one.
Source: https://odre.opendatasoft.com, data sets eco2mix-national-tr and -cons-def, 2026-11.
"""

from typing import Any

from sv.energy.carbon.factor import CarbonFactor, is_usable
from sv.energy.carbon.utc import format_utc, parse_utc
from sv.energy.config import EnergyConfig
from sv.energy.web import FetchError, fetch_json

REAL_TIME, CONSOLIDATED = "eco2mix-national-tr", "eco2mix-national-cons-def"
PAGE = 100  # Opendatasoft Explore API 2.1: limit of records an answer, 2026-11
WINDOW_S = 30 * 86_400.0  # 2,880 quarter hours: an offset must stay below 10,000
MAX_RECORDS = 6_000  # twice as many: the service does not turn the pages
STEP_S = 900.0
EARLIER_S = 3_600.0  # the first value must cover the beginning also where one is missing


def fetch_latest(config: EnergyConfig) -> CarbonFactor:
    """Give the newest value.

    Raises:
        FetchError: There is no answer or no usable value in it.
    """
    results = _ask(config, REAL_TIME, "taux_co2 is not null", "date_heure desc", limit=1)
    if not results:
        raise FetchError("no value at all")
    return _read_record(results[0], REAL_TIME)


def fetch_history(config: EnergyConfig, start_s: float, end_s: float) -> list[CarbonFactor]:
    """Give the values of a span of Unix time, in order; each holds from its quarter hour on.

    Raises:
        FetchError: There is no answer, or no value in the span.
    """
    factors: dict[float, CarbonFactor] = {}
    at_s = start_s - EARLIER_S
    while at_s < end_s:
        to_s = min(at_s + WINDOW_S, end_s)
        found = _fetch_window(config, REAL_TIME, at_s, to_s)
        if len(found) < (to_s - at_s) / STEP_S / 2:
            # Mostly not there (any more): days that are consolidated leave the real-time set.
            older = _fetch_window(config, CONSOLIDATED, at_s, to_s)
            found = older if len(older) > len(found) else found
        factors |= found
        at_s = to_s
    if not factors:
        raise FetchError(f"no value between {format_utc(start_s)} and {format_utc(end_s)}")
    return [factors[at_s] for at_s in sorted(factors)]


def _fetch_window(
    config: EnergyConfig, data_set: str, start_s: float, end_s: float
) -> dict[float, CarbonFactor]:
    """Give the values by Unix time; a moment that is there twice counts once."""
    span = f"date'{format_utc(int(start_s))}' TO date'{format_utc(int(end_s) + 1)}'"
    where = f"date_heure in [{span}] and taux_co2 is not null"
    records: list[Any] = []
    while True:
        page = _ask(config, data_set, where, "date_heure", limit=PAGE, offset=len(records))
        records += page
        if len(page) < PAGE:
            break
        if len(records) >= MAX_RECORDS:
            raise FetchError(f"more than {MAX_RECORDS} records for {WINDOW_S / 86_400:.0f} days")
    factors = [_read_record(record, data_set) for record in records]
    return {parse_utc(factor.observed_utc or ""): factor for factor in factors}


def _ask(
    config: EnergyConfig, data_set: str, where: str, order: str, *, limit: int, offset: int = 0
) -> list[Any]:
    query = {
        "select": "taux_co2,date_heure",
        "where": where,
        "order_by": order,
        "limit": str(limit),
        "offset": str(offset),
        "timezone": "UTC",
    }
    answer = fetch_json(f"{config.rte_url.rstrip('/')}/{data_set}/records", query)
    results = answer.get("results") if isinstance(answer, dict) else None
    if not isinstance(results, list):
        raise FetchError("no list of results in the answer")
    return results


def _read_record(record: Any, data_set: str) -> CarbonFactor:
    value = record.get("taux_co2") if isinstance(record, dict) else None
    if not is_usable(value):
        raise FetchError(f"taux_co2 is {value!r}"[:80])
    try:
        at_s = parse_utc(record["date_heure"])
    except (KeyError, TypeError, ValueError):
        raise FetchError("a record without a date_heure") from None
    return CarbonFactor(
        provider="rte",
        zone="FRA",
        scope="direct",
        basis="production",
        g_per_kwh=float(value),
        source=f"RTE eCO2mix, {data_set}, taux_co2",
        valid_from_utc=format_utc(at_s),
        valid_to_utc=format_utc(at_s + STEP_S),
        observed_utc=format_utc(at_s),
    )
