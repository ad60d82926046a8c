"""Emissions: carbon factors, who provides them, and the grams of an energy.

Providers publish different quantities: a year's life-cycle emissions of what a country produces
(owid), the direct emissions of its production now (rte), life-cycle emissions of what is consumed
there (electricity_maps). ``scope`` and ``basis`` keep them apart. The two on the network are in
`sv.energy.carbon_web`, imported only when one is asked: the meter of a stage that needs none must
not pay for an HTTP client.
"""

import csv
import difflib
import math
import signal
import threading
import time
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from sv.energy.config import NETWORK, EnergyConfig, list_providers
from sv.energy.record import Carbon, CarbonInterval, CarbonPart
from sv.energy.units import format_utc, kwh_from_j, parse_utc
from sv.errors import SvError, UsageError

FACTORS_CSV = Path(__file__).with_name("carbon_intensity.csv")
NO_COUNTRY = "no country given: set country in energy.toml or use --country ISO3"
# RTE publishes up to two hours late and is asked every half hour: this is twice as old, 2026-11.
MAX_AGE_S = 4 * 3_600.0
MIXED = "mixed"
_WHO = ("provider", "zone", "year", "vintage", "scope", "basis", "source")
Points = Sequence[tuple[float, float]]


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
    """Return the factor of a journal's line; older journals lack the newer keys."""
    known = {field.name for field in fields(CarbonFactor)}
    values = {key: value for key, value in record.items() if key in known}
    return CarbonFactor(**{**values, "fallback_from": tuple(values.get("fallback_from") or ())})


def is_usable(g_per_kwh: object) -> bool:
    """Return whether a provider's value can be a grid's factor: a finite number above 0."""
    is_number = isinstance(g_per_kwh, int | float) and not isinstance(g_per_kwh, bool)
    return is_number and math.isfinite(g_per_kwh) and g_per_kwh > 0


def compute_co2_g(energy_kwh: float | None, pue: float, g_per_kwh: float | None) -> float | None:
    """Return the emissions of the site for a machine's energy; None where a factor is unknown."""
    if energy_kwh is None or g_per_kwh is None:
        return None
    return energy_kwh * pue * g_per_kwh


# The grams of an energy. Between two samples it is taken to grow evenly. The first factor also
# covers the time before it came; the last one holds until the end, and its age is kept.


def apply_factors(points: Points, factors: Sequence[CarbonFactor], pue: float) -> Carbon:
    """Return the emissions of an attempt and where each gram is from.

    Args:
        points: Unix time and energy so far (J) of the samples, in order.
        factors: As they came; ``valid_from_utc`` is from when on each is applied.
        pue: Multiplies the grams and nothing else.

    Returns:
        ``g_per_kwh`` is weighted by energy where it varied; ``co2_g`` is None with a reason where
        the energy or every factor is unknown; ``parts`` are of one provider each, ``intervals`` of
        one factor.
    """
    known = [factor for factor in factors if factor.g_per_kwh is not None]
    failures = tuple(dict.fromkeys(why for factor in factors for why in factor.fallback_from))
    if not known or len(points) < 2:
        if known:
            head, reason = known[0], "the energy is not known"
        else:
            head = factors[-1] if factors else CarbonFactor("none")
            reason = head.reason or "no carbon factor"
        parts = (_build_part(head, None, None),)
        return _summarise(parts, (), failures, g_per_kwh=head.g_per_kwh, reason=reason)
    intervals, parts = [], []
    for start_s, end_s, factor in _cut(points[0][0], points[-1][0], known):
        energy_j = _interpolate(points, end_s) - _interpolate(points, start_s)
        co2_g = compute_co2_g(kwh_from_j(energy_j), pue, factor.g_per_kwh)
        intervals.append(_build_interval(start_s, end_s, factor, energy_j))
        parts.append(_build_part(factor, energy_j, co2_g))
    return _summarise(_join_parts(parts), tuple(intervals), failures)


def join_carbon(found: Sequence[Carbon], of: str = "attempts") -> Carbon:
    """Join what `apply_factors` returned for the attempts of a run, in order, or for machines.

    One without emissions is left out of the sum, and the reason says so.
    """
    known = [carbon for carbon in found if carbon.co2_g is not None]
    failures = tuple(dict.fromkeys(why for carbon in found for why in carbon.fallback_from))
    if not known:
        return replace(found[-1], fallback_from=failures)
    parts = _join_parts([part for carbon in known for part in carbon.parts])
    intervals = tuple(interval for carbon in known for interval in carbon.intervals)
    reason = None
    if len(known) < len(found):
        reason = f"without {len(found) - len(known)} of {len(found)} {of}: not known"
    return _summarise(parts, intervals, failures, reason=reason)


def _build_part(factor: CarbonFactor, energy_j: float | None, co2_g: float | None) -> CarbonPart:
    who = {key: getattr(factor, key) for key in _WHO}
    return CarbonPart(**who, energy_j=energy_j, co2_g=co2_g)


def _join_parts(parts: Sequence[CarbonPart]) -> tuple[CarbonPart, ...]:
    """Add up the parts of the same provider's factors of one kind."""
    joined: dict[tuple[Any, ...], CarbonPart] = {}
    for part in parts:
        who = tuple(getattr(part, key) for key in _WHO)
        same = joined.get(who, replace(part, energy_j=0.0, co2_g=0.0))
        energy_j = (same.energy_j or 0.0) + (part.energy_j or 0.0)
        co2_g = (same.co2_g or 0.0) + (part.co2_g or 0.0)
        joined[who] = replace(same, energy_j=energy_j, co2_g=co2_g)
    return tuple(joined.values())


def _cut(
    first_s: float, last_s: float, factors: Sequence[CarbonFactor]
) -> list[tuple[float, float, CarbonFactor]]:
    """Cut a span where the factor changes, and where it becomes stale."""
    begins: dict[float, CarbonFactor] = {}
    for number, factor in enumerate(sorted(factors, key=_get_start)):
        start_s = first_s if number == 0 else max(first_s, _get_start(factor))
        begins[start_s] = factor  # of two before the beginning, the later one
    starts = [start_s for start_s in begins if start_s < last_s] or [first_s]
    pieces = []
    for start_s, end_s in zip(starts, [*starts[1:], last_s], strict=True):
        edges = [start_s, end_s]
        if begins[start_s].observed_utc is not None:
            observed_s = parse_utc(begins[start_s].observed_utc or "")
            stale_s = (observed_s - MAX_AGE_S, observed_s + MAX_AGE_S)
            edges[1:1] = [at_s for at_s in stale_s if start_s < at_s < end_s]
        pieces += [(a, b, begins[start_s]) for a, b in zip(edges, edges[1:], strict=False)]
    return pieces


def _get_start(factor: CarbonFactor) -> float:
    return float("-inf") if factor.valid_from_utc is None else parse_utc(factor.valid_from_utc)


def _interpolate(points: Points, at_s: float) -> float:
    after = bisect_right(points, at_s, key=lambda point: point[0])
    if after == len(points):
        return points[-1][1]
    if after == 0:
        return points[0][1]
    (a_s, a_j), (b_s, b_j) = points[after - 1], points[after]
    return a_j + (b_j - a_j) * (at_s - a_s) / (b_s - a_s)


def _build_interval(
    start_s: float, end_s: float, factor: CarbonFactor, energy_j: float
) -> CarbonInterval:
    age_s = None
    if factor.observed_utc is not None:
        age_s = start_s - parse_utc(factor.observed_utc)
    middle_age_s = None if age_s is None else age_s + (end_s - start_s) / 2
    return CarbonInterval(
        t0=format_utc(start_s),
        t1=format_utc(end_s),
        provider=factor.provider,
        g_per_kwh=factor.g_per_kwh,
        observed=factor.observed_utc,
        age_s=age_s,
        stale=middle_age_s is not None and abs(middle_age_s) > MAX_AGE_S,
        estimated=factor.estimated,
        energy_j=energy_j,
    )


def _summarise(
    parts: tuple[CarbonPart, ...],
    intervals: tuple[CarbonInterval, ...],
    failures: tuple[str, ...],
    *,
    g_per_kwh: float | None = None,
    reason: str | None = None,
) -> Carbon:
    # A provider that covered no energy does not make the figure a mixed one.
    used = [part for part in parts if part.energy_j] or parts[:1]
    who = {key: _get_only({getattr(part, key) for part in used}) for key in _WHO}
    who["provider"] = " + ".join(dict.fromkeys(part.provider for part in used))
    who["source"] = "; ".join(dict.fromkeys(part.source for part in used if part.source)) or None
    reasons = [reason] if reason else []
    for key in ("scope", "basis"):
        if len({getattr(part, key) for part in used}) > 1:
            who[key] = MIXED
    if MIXED in (who["scope"], who["basis"]):
        reasons.append(f"grams of different quantities are added: {_format_shares(used)}")
    stale_j = sum(interval.energy_j for interval in intervals if interval.stale)
    energy_j = sum(interval.energy_j for interval in intervals)
    if stale_j:
        hours = MAX_AGE_S / 3_600
        reasons.append(f"{stale_j / energy_j:.0%} of the energy at a factor over {hours:g} h old")
    known_g = [part.co2_g for part in parts if part.co2_g is not None]
    rates = {interval.g_per_kwh for interval in intervals}
    if len(rates) == 1:
        g_per_kwh = rates.pop()
    elif energy_j:
        weighted = sum(each.energy_j * (each.g_per_kwh or 0.0) for each in intervals)
        g_per_kwh = weighted / energy_j
    elif intervals:
        g_per_kwh = intervals[-1].g_per_kwh
    estimates = {interval.estimated for interval in intervals}
    return Carbon(
        **who,
        g_per_kwh=g_per_kwh,
        reason="; ".join(reasons) or None,
        fallback_from=failures,
        estimated=True if True in estimates else _get_only(estimates),
        stale_fraction=stale_j / energy_j if energy_j else None,
        co2_g=sum(known_g) if known_g else None,
        parts=parts,
        intervals=intervals,
    )


def _get_only(values: set[Any]) -> Any:
    return next(iter(values)) if len(values) == 1 else None


def _format_shares(parts: Sequence[CarbonPart]) -> str:
    total_j = sum(part.energy_j or 0.0 for part in parts)
    shares = []
    for part in parts:
        what = f"{part.scope or 'scope not given'}, {part.basis or 'basis not given'}"
        shares.append(f"{(part.energy_j or 0.0) / total_j:.0%} {part.provider} ({what})")
    return ", ".join(shares)


# The providers of the config, asked in order until one answers


def uses_network(config: EnergyConfig) -> bool:
    """Return whether the config names a provider on the network."""
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
    """Return the factor of the first provider that answers.

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
    return _build_none(failures)


def choose_offline(config: EnergyConfig, now_s: float, why: str) -> CarbonFactor:
    """Return the factor that needs no network, because those on it did not answer (yet)."""
    names = list_providers(config)
    failures = [f"{name}: {why}" for name in names if name in NETWORK]
    rest = next((name for name in names if name not in NETWORK), None)
    if rest is None:
        return _build_none(failures)
    return _apply_from(_ask(rest, config, {}), now_s, failures)


def _build_none(failures: list[str]) -> CarbonFactor:
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


def find_factor(country: str, year: int | None = None) -> CarbonFactor:
    """Return the yearly factor of a country: life-cycle emissions of its production (owid).

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
        self._factors: SimpleQueue[CarbonFactor] = SimpleQueue()
        self._network = uses_network(config)
        self._answered, self._ended = threading.Event(), threading.Event()
        if not self._network:
            self._factors.put(ask_providers(config, {}, time.time()))

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
        while True:
            try:
                factors.append(self._factors.get_nowait())
            except Empty:
                return factors

    def finish(self, timeout_s: float) -> list[CarbonFactor]:
        """Wait for the first answer, at most ``timeout_s``, and return what is left.

        Without an answer by then it is the factor that needs no network, or one that says why
        there is none.
        """
        if self._network and not self._answered.wait(timeout_s):
            why = f"no answer before the stage had ended and {timeout_s:g} s were over"
            self._factors.put(choose_offline(self._config, time.time(), why))
        self._ended.set()
        return self.drain()

    def _ask_repeatedly(self) -> None:
        last = None
        while not self._ended.is_set():
            factor = ask_providers(self._config, self._environ, time.time())
            # The same observation again is left out; so is the same failure.
            observation = replace(factor, valid_from_utc=None)
            if observation != last:
                self._factors.put(factor)
                last = observation
            self._answered.set()
            self._ended.wait(self._config.carbon_refresh_s)
