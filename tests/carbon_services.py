"""What the two carbon services on the network answer, and a config that asks them here."""

from sv.energy.config import EnergyConfig
from sv.energy.units import format_utc, parse_utc

TOKEN = "k3ep-me-s3cret"
NOW = "2026-11-22T10:15:00Z"


def rte_answer(*values, at=NOW):
    """What Opendatasoft answers: a quarter of an hour between two values."""
    times = [format_utc(parse_utc(at) + 900 * n).replace("Z", "+00:00") for n in range(len(values))]
    results = [{"taux_co2": v, "date_heure": t} for v, t in zip(values, times, strict=True)]
    return 200, {"total_count": len(values), "results": results}


def zone_answer(value, **more):
    facts = {"zone": "FR", "datetime": "2026-11-22T10:00:00.000Z", "isEstimated": True}
    return 200, {**facts, "emissionFactorType": "lifecycle", "carbonIntensity": value, **more}


def france(url, *names, **more):
    urls = {"rte_url": url, "electricity_maps_url": url}
    return EnergyConfig(country="FRA", carbon=names, **{**urls, **more})
