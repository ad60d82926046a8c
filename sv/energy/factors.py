"""Carbon factors and who provides them.

Providers publish different quantities: a year's life-cycle emissions of what a country produces
(owid), the direct emissions of its production now (rte), life-cycle emissions of what is consumed
there (electricity_maps). ``scope`` and ``basis`` keep them apart. The two on the network are in
`sv.energy.carbon_web`, imported only when one is asked: the meter of a stage that needs none must
not pay for an HTTP client.
"""

import csv
import difflib
import signal
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from sv.energy.config import MAX_G_PER_KWH, NETWORK, EnergyConfig, list_providers
from sv.energy.units import format_utc, parse_utc
from sv.errors import SvError, UsageError

FACTORS_CSV = Path(__file__).with_name("carbon_intensity.csv")
# As people write them: the European Union's own codes, where ISO's are GB and GR.
ALIASES = {"UK": "GBR", "EL": "GRC"}
NO_COUNTRY = "no country given: set country in energy.toml or use --country ISO3"


@dataclass(frozen=True)
class CarbonFactor:
    """A carbon factor and where it is from.

    Attributes:
        provider: Who published it; ``none`` where none answered.
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
        age_s: How old the observation was at ``valid_from_utc``; None: as these two say.
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
    age_s: float | None = None

    @property
    def observed_s(self) -> float | None:
        """Unix time of the observation, by the clock of ``valid_from_utc``."""
        if self.observed_utc is None:
            return None
        if self.age_s is None or self.valid_from_utc is None:
            return parse_utc(self.observed_utc)
        return parse_utc(self.valid_from_utc) - self.age_s


def parse_factor(record: Mapping[str, Any]) -> CarbonFactor:
    """Return the factor of a journal's line; older journals lack the newer keys."""
    known = {field.name for field in fields(CarbonFactor)}
    values = {key: value for key, value in record.items() if key in known}
    return CarbonFactor(**{**values, "fallback_from": tuple(values.get("fallback_from") or ())})


def is_usable(g_per_kwh: object) -> bool:
    """Return whether a provider's value can be a grid's factor: above 0, and not in other units."""
    is_number = isinstance(g_per_kwh, int | float) and not isinstance(g_per_kwh, bool)
    return is_number and 0 < g_per_kwh <= MAX_G_PER_KWH


def compute_co2_g(energy_kwh: float | None, pue: float, g_per_kwh: float | None) -> float | None:
    """Return the emissions of the site for a machine's energy; None where a factor is unknown."""
    if energy_kwh is None or g_per_kwh is None:
        return None
    return energy_kwh * pue * g_per_kwh


# The providers of the config, asked in order until one answers


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


def ask_providers(
    config: EnergyConfig, environ: Mapping[str, str], now_s: float, *, silent: str | None = None
) -> CarbonFactor:
    """Return the factor of the first provider that answers.

    Args:
        config: Settings, checked by `check_providers`.
        environ: Has the token of Electricity Maps.
        now_s: Unix time: from then on the factor is applied.
        silent: Why those on the network are not asked, as if they had failed; None: they are.

    Returns:
        The factor; its ``fallback_from`` has those that failed. Provider ``none`` if all did.
    """
    failures: list[str] = []
    providers = list_providers(config)
    for name in providers:
        try:
            if silent is not None and name in NETWORK:
                raise SvError(silent)
            factor = _ask(name, config, environ)
        except SvError as error:
            failures.append(f"{name}: {error}")
        else:
            since = format_utc(now_s) if providers[0] in NETWORK else None
            return replace(factor, valid_from_utc=since, fallback_from=tuple(failures))
    return CarbonFactor("none", reason="; ".join(failures), fallback_from=tuple(failures))


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


def find_factor(country: str, year: int | None = None) -> CarbonFactor:
    """Return the yearly factor of a country: life-cycle emissions of its production (owid).

    Args:
        country: ISO 3166 code of three letters in either case, or OWID_WRL for the world.
        year: None: the newest.

    Raises:
        UsageError: The table does not have the country (the message has the nearest codes), or
            not that year of it.
    """
    rows, zone = read_table(), country.upper()
    found = {int(row["year"]): row for row in rows if row["zone"] == zone}
    if not found:
        raise UsageError(
            f"no carbon factor for country '{country}' ({_suggest(zone, rows)}); "
            "for another grid set g_per_kwh and g_per_kwh_source in energy.toml"
        )
    year = max(found) if year is None else year
    if year not in found:
        known = ", ".join(map(str, sorted(found)))
        raise UsageError(f"no carbon factor of {year} for {zone} (there are: {known})")
    row = found[year]
    return CarbonFactor(
        "owid", zone, year, row["vintage"] or None, scope="lifecycle", basis="production",
        g_per_kwh=float(row["g_per_kwh"]), source=row["source"],
    )  # fmt: skip


def read_table() -> list[dict[str, str]]:
    """Read the yearly factors: zone, iso2, country, year, g_per_kwh, vintage, source."""
    with open(FACTORS_CSV, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _suggest(word: str, rows: Sequence[Mapping[str, str]]) -> str:
    """Say which codes may be meant by another code, in two letters too, or by a name."""
    zones = {row[key].upper(): row["zone"] for row in rows for key in ("iso2", "country", "zone")}
    zones |= ALIASES
    near = [word] if word in zones else difflib.get_close_matches(word, zones, n=3)
    codes = dict.fromkeys(zones[each] for each in near)
    names = {row["zone"]: row["country"] for row in rows}
    if codes:
        return f"did you mean {', '.join(f'{code}, {names[code]}' for code in codes)}?"
    return f"the {len(names)} codes are in sv/energy/{FACTORS_CSV.name}"


class FactorFeed:
    """Carbon factors as they come while a stage runs.

    Providers on the network are asked in a thread of their own, so that a slow one delays no
    sample; without one in the config there is no thread and nothing is asked.

    Args:
        config: Settings.
        environ: Has the token of Electricity Maps, which is kept nowhere else.

    Raises:
        UsageError: No provider could answer this config (`check_providers`).
    """

    def __init__(self, config: EnergyConfig, environ: Mapping[str, str]) -> None:
        check_providers(config)
        self._config, self._environ = config, environ
        self._factors: deque[CarbonFactor] = deque()  # from the thread to the meter
        self._network = list_providers(config)[0] in NETWORK  # the last one alone may not be
        self._answered, self._ended = threading.Event(), threading.Event()
        if not self._network:
            self._factors.append(ask_providers(config, {}, time.time()))

    def start(self) -> None:
        """Begin to ask the network, if the config says so; called once the command runs."""
        if not self._network:
            return
        # A new thread has its maker's mask: a signal must reach the meter, never this thread.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            threading.Thread(target=self._ask_repeatedly, name="carbon", daemon=True).start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def drain(self) -> list[CarbonFactor]:
        """Return the factors that came since the last call; never waits."""
        factors = []
        while self._factors:
            factors.append(self._factors.popleft())
        return factors

    def finish(self, timeout_s: float) -> list[CarbonFactor]:
        """Wait for the first answer, at most ``timeout_s``, and return what is left.

        Without an answer by then it is the factor that needs no network, or one that says why
        there is none.
        """
        if self._network and not self._answered.wait(timeout_s):
            why = f"no answer before the stage had ended and {timeout_s:g} s were over"
            self._factors.append(ask_providers(self._config, {}, time.time(), silent=why))
        self._ended.set()
        return self.drain()

    def _ask_repeatedly(self) -> None:
        last = None
        while not self._ended.is_set():
            factor = ask_providers(self._config, self._environ, time.time())
            # The same observation again is left out; so is the same failure.
            observation = replace(factor, valid_from_utc=None)
            if observation != last:
                self._factors.append(factor)
                last = observation
            self._answered.set()
            self._ended.wait(self._config.carbon_refresh_s)
