"""The grams of an energy, and where each of them is from.

Between two samples the energy is taken to grow evenly. The first factor also covers the time before
it came; the last one holds until the end, and its age is kept.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from sv.energy.factors import CarbonFactor, compute_co2_g
from sv.energy.record import Carbon, CarbonInterval, CarbonPart
from sv.energy.units import format_utc, kwh_from_j, parse_utc

# RTE publishes up to two hours late and is asked every half hour: this is twice as old, 2026-11.
MAX_AGE_S = 4 * 3_600.0
MIXED = "mixed"
WHOLE = 1e-6  # of an energy: less is rounding
_WHO = ("provider", "zone", "year", "vintage", "scope", "basis", "source")
Points = Sequence[tuple[float, float]]


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
        head = (known[:1] or list(factors[-1:]) or [CarbonFactor("none")])[0]
        reason = "the energy is not known" if known else head.reason or "no carbon factor"
        carbon = _summarise([_build_part(head, None, None)], [], failures, reason)
        return replace(carbon, g_per_kwh=head.g_per_kwh)
    intervals, parts = [], []
    for start_s, end_s, factor in _cut(points[0][0], points[-1][0], known):
        energy_j = _interpolate(points, end_s) - _interpolate(points, start_s)
        co2_g = compute_co2_g(kwh_from_j(energy_j), pue, factor.g_per_kwh)
        age_s = None if factor.observed_s is None else start_s - factor.observed_s
        middle_age_s = 0.0 if age_s is None else age_s + (end_s - start_s) / 2
        interval = CarbonInterval(
            t0=format_utc(start_s),
            t1=format_utc(end_s),
            provider=factor.provider,
            g_per_kwh=factor.g_per_kwh,
            observed=factor.observed_utc,
            age_s=age_s,
            stale=abs(middle_age_s) > MAX_AGE_S,
            estimated=factor.estimated,
            energy_j=energy_j,
        )
        intervals.append(interval)
        parts.append(_build_part(factor, energy_j, co2_g))
    return _summarise(_join_parts(parts), intervals, failures)


def join_carbon(found: Sequence[Carbon], energy_j: float | None) -> Carbon:
    """Join what `apply_factors` returned for the attempts of a run, in order, or for machines.

    Args:
        found: Of each. One without emissions is left out of the sum.
        energy_j: Of all of them, as far as it is known: the reason says which part of it no
            factor covers.
    """
    known = [carbon for carbon in found if carbon.co2_g is not None]
    failures = tuple(dict.fromkeys(why for carbon in found for why in carbon.fallback_from))
    if not known:
        return replace(found[-1], fallback_from=failures)
    parts = _join_parts([part for carbon in known for part in carbon.parts])
    intervals = [interval for carbon in known for interval in carbon.intervals]
    reason = None
    if energy_j:
        lacking = 1 - sum(interval.energy_j for interval in intervals) / energy_j
        if lacking > WHOLE:
            reason = f"no carbon factor for {100 * lacking:.3g}% of the energy"
    return _summarise(parts, intervals, failures, reason)


def note_pues(carbon: Carbon, pues: Iterable[float]) -> Carbon:
    """Say in the reason that attempts had different PUEs: a sidecar's ``pue`` is the last one's."""
    different = list(dict.fromkeys(pues))
    if len(different) < 2:
        return carbon
    reason = f"attempts at different PUEs: {', '.join(f'{pue:g}' for pue in different)}"
    return replace(carbon, reason="; ".join(filter(None, (carbon.reason, reason))))


def _build_part(factor: CarbonFactor, energy_j: float | None, co2_g: float | None) -> CarbonPart:
    who = {key: getattr(factor, key) for key in _WHO}
    return CarbonPart(**who, energy_j=energy_j, co2_g=co2_g)


def _join_parts(parts: Sequence[CarbonPart]) -> list[CarbonPart]:
    """Add up the parts of the same provider's factors of one kind."""
    joined: dict[tuple[Any, ...], CarbonPart] = {}
    for part in parts:
        who = tuple(getattr(part, key) for key in _WHO)
        same = joined.get(who, replace(part, energy_j=0.0, co2_g=0.0))
        energy_j = (same.energy_j or 0.0) + (part.energy_j or 0.0)
        co2_g = (same.co2_g or 0.0) + (part.co2_g or 0.0)
        joined[who] = replace(same, energy_j=energy_j, co2_g=co2_g)
    return list(joined.values())


def _cut(
    first_s: float, last_s: float, factors: Sequence[CarbonFactor]
) -> list[tuple[float, float, CarbonFactor]]:
    """Cut a span where the factor changes, and where it becomes stale."""
    first, *later = sorted(factors, key=_get_start)
    # Of two before the beginning, the later one.
    begins = {first_s: first} | {max(first_s, _get_start(factor)): factor for factor in later}
    starts = [start_s for start_s in begins if start_s < last_s] or [first_s]
    pieces = []
    for start_s, end_s in pairwise([*starts, last_s]):
        factor, edges = begins[start_s], [start_s, end_s]
        if factor.observed_s is not None:
            stale_s = (factor.observed_s - MAX_AGE_S, factor.observed_s + MAX_AGE_S)
            edges[1:1] = [at_s for at_s in stale_s if start_s < at_s < end_s]
        pieces += [(a, b, factor) for a, b in pairwise(edges)]
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


def _summarise(
    parts: list[CarbonPart],
    intervals: list[CarbonInterval],
    failures: tuple[str, ...],
    reason: str | None = None,
) -> Carbon:
    # A provider that covered no energy does not make the figure a mixed one.
    used = [part for part in parts if part.energy_j] or parts[:1]
    found = {key: list(dict.fromkeys(getattr(part, key) for part in used)) for key in _WHO}
    who = {key: values[0] if len(values) == 1 else None for key, values in found.items()}
    who["provider"] = " + ".join(found["provider"])
    who["source"] = "; ".join(filter(None, found["source"])) or None
    who |= {key: MIXED for key in ("scope", "basis") if len(found[key]) > 1}
    reasons = [reason] if reason else []
    if MIXED in (who["scope"], who["basis"]):
        reasons.append(f"grams of different quantities are added: {_format_shares(used)}")
    stale_j = sum(interval.energy_j for interval in intervals if interval.stale)
    energy_j = sum(interval.energy_j for interval in intervals)
    if stale_j:
        hours = MAX_AGE_S / 3_600
        reasons.append(f"{stale_j / energy_j:.0%} of the energy at a factor over {hours:g} h old")
    known_g = [part.co2_g for part in parts if part.co2_g is not None]
    g_per_kwh = intervals[-1].g_per_kwh if intervals else None
    if energy_j and len({each.g_per_kwh for each in intervals}) > 1:
        g_per_kwh = sum(each.energy_j * (each.g_per_kwh or 0.0) for each in intervals) / energy_j
    estimates = {interval.estimated for interval in intervals}
    return Carbon(
        **who,
        g_per_kwh=g_per_kwh,
        reason="; ".join(reasons) or None,
        fallback_from=failures,
        estimated=True if True in estimates else False if estimates == {False} else None,
        stale_fraction=stale_j / energy_j if energy_j else None,
        co2_g=sum(known_g) if known_g else None,
        parts=tuple(parts),
        intervals=tuple(intervals),
    )


def _format_shares(parts: Sequence[CarbonPart]) -> str:
    total_j = sum(part.energy_j or 0.0 for part in parts)
    shares = []
    for part in parts:
        what = f"{part.scope or 'scope not given'}, {part.basis or 'basis not given'}"
        shares.append(f"{(part.energy_j or 0.0) / total_j:.0%} {part.provider} ({what})")
    return ", ".join(shares)
