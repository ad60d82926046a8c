"""The providers of the config, asked in order until one answers.

The two on the network are imported only when one is asked: the meter of a stage that needs none
must not pay for an HTTP client.
"""

from collections.abc import Mapping
from dataclasses import replace

from sv.energy.carbon.factor import CarbonFactor
from sv.energy.carbon.owid import find_factor
from sv.energy.carbon.utc import format_utc
from sv.energy.config import NETWORK, EnergyConfig, list_providers
from sv.errors import SvError, UsageError

NO_COUNTRY = "no country given: set country in energy.toml or use --country ISO3"


def uses_network(config: EnergyConfig) -> bool:
    """Tell whether the config names a provider on the network."""
    return any(name in NETWORK for name in list_providers(config))


def check_providers(config: EnergyConfig) -> None:
    """Refuse, before anything runs, what no provider could answer.

    Raises:
        UsageError: The table lacks the country or the year, RTE is asked for another country
            than France, or Electricity Maps for no zone.
    """
    names = list_providers(config)
    if "owid" in names and config.country is not None:
        find_factor(config.country, config.carbon_year)
    if "rte" in names and (config.country or "FRA").upper() != "FRA":
        raise UsageError(
            f"carbon names rte, which knows France alone, and the country is {config.country}: "
            "take rte out of carbon in energy.toml"
        )
    if "electricity_maps" in names:
        from sv.energy.carbon_web import choose_zone  # noqa: PLC0415

        choose_zone(config)


def ask_providers(config: EnergyConfig, environ: Mapping[str, str], now_s: float) -> CarbonFactor:
    """Give the factor of the first provider that answers.

    Args:
        config: Settings, checked by `check_providers`.
        environ: Has the token of Electricity Maps.
        now_s: Unix time: from then on the factor is applied.

    Returns:
        The factor; its ``fallback_from`` has those that failed. Provider ``none`` if all did.
    """
    failures: list[str] = []
    for name in list_providers(config):
        try:
            factor = _ask(name, config, environ)
        except SvError as error:
            failures.append(f"{name}: {error}")
        else:
            return _apply_from(factor, now_s if uses_network(config) else None, failures)
    return _give_none(failures)


def give_up(config: EnergyConfig, now_s: float, why: str) -> CarbonFactor:
    """Give the factor that needs no network, because those on it did not answer (yet)."""
    names = list_providers(config)
    failures = [f"{name}: {why}" for name in names if name in NETWORK]
    rest = next((name for name in names if name not in NETWORK), None)
    if rest is None:
        return _give_none(failures)
    return _apply_from(_ask(rest, config, {}), now_s, failures)


def _give_none(failures: list[str]) -> CarbonFactor:
    return CarbonFactor("none", reason="; ".join(failures), fallback_from=tuple(failures))


def _apply_from(factor: CarbonFactor, now_s: float | None, failures: list[str]) -> CarbonFactor:
    since = None if now_s is None else format_utc(now_s)
    return replace(factor, valid_from_utc=since, fallback_from=tuple(failures))


def _ask(name: str, config: EnergyConfig, environ: Mapping[str, str]) -> CarbonFactor:
    if name in NETWORK:
        from sv.energy.carbon_web import fetch_latest  # noqa: PLC0415

        return fetch_latest(name, config, environ)
    if name == "fixed":
        return CarbonFactor(
            "fixed", config.country, g_per_kwh=config.g_per_kwh, source=config.g_per_kwh_source
        )
    if config.country is None:
        return CarbonFactor("none", reason=NO_COUNTRY)
    return find_factor(config.country, config.carbon_year)
