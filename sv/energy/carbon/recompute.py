"""The emissions of an old energy at another provider's carbon factor; no energy is changed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sv.config import build_config
from sv.energy.carbon.factor import CarbonFactor
from sv.energy.carbon.intervals import apply_factors
from sv.energy.carbon.providers import ask_providers, check_providers
from sv.energy.carbon.utc import parse_utc
from sv.energy.config import NETWORK, EnergyConfig, build_energy_config, list_providers
from sv.energy.journal import SUFFIX
from sv.energy.record import Carbon, Sidecar
from sv.energy.series import read_energy_series
from sv.energy.units import j_from_kwh
from sv.errors import SvError

SAME = 1e-6  # relative: a journal gives the energy of its sidecar
Points = list[tuple[float, float]]


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
    if sidecar.energy_kwh is not None:
        points = _read_points(path, sidecar) if provider in NETWORK else _span_run(sidecar)
    values = apply_factors(points, _ask(provider, config, environ, points), sidecar.pue.value)
    return build_config(values, Carbon, where=str(path))


def _span_run(sidecar: Sidecar) -> Points:
    last = sidecar.attempts[-1]
    start_s, end_s = parse_utc(sidecar.started_utc), parse_utc(last.started_utc) + last.duration_s
    return [(start_s, 0.0), (max(end_s, start_s), j_from_kwh(sidecar.energy_kwh or 0.0))]


def _read_points(path: Path, sidecar: Sidecar) -> Points:
    journal = path.with_name(path.stem + SUFFIX)
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


def _ask(
    provider: str, config: EnergyConfig, environ: Mapping[str, str], points: Points
) -> list[CarbonFactor]:
    if provider not in NETWORK:
        factor = ask_providers(config, environ, 0.0)
        if factor.g_per_kwh is None:
            raise SvError(f"{provider}: {factor.reason}")
        return [factor]
    if not points:
        return [CarbonFactor(provider, reason="the energy is not known")]
    span = (points[0][0], points[-1][0])
    try:
        if provider == "rte":
            from sv.energy.carbon import rte  # noqa: PLC0415 - an HTTP client

            return rte.fetch_history(config, *span)
        from sv.energy.carbon import electricity_maps  # noqa: PLC0415 - as above

        return electricity_maps.fetch_history(config, environ, *span)
    except SvError as error:
        raise type(error)(f"{provider}: {error}") from error
