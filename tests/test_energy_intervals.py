"""Emissions of an attempt: the factor that held, interval by interval."""

from dataclasses import replace

import pytest

from sv.energy.carbon import apply_factors, join_carbon
from sv.energy.factors import CarbonFactor
from sv.energy.units import format_utc, parse_utc

# 3.6 MJ is a kWh: 100 s at 36 kW.
T0 = parse_utc("2026-11-22T10:00:00Z")
POINTS = [(T0, 0.0), (T0 + 50, 1.8e6), (T0 + 100, 3.6e6)]
RTE = CarbonFactor("rte", "FRA", scope="direct", basis="production", g_per_kwh=20.0)
OWID = CarbonFactor("owid", "FRA", 2024, "2025-07", "lifecycle", "production", 40.0)


def since(factor, offset_s, age_s=60.0, **more):
    start_s = T0 + offset_s
    return replace(
        factor, valid_from_utc=format_utc(start_s), observed_utc=format_utc(start_s - age_s), **more
    )


def test_one_factor_for_all():
    carbon = apply_factors(POINTS, [OWID], 1.5)
    assert carbon.co2_g == pytest.approx(60.0) and carbon.g_per_kwh == 40.0
    assert (carbon.provider, carbon.year, carbon.scope) == ("owid", 2024, "lifecycle")
    (interval,) = carbon.intervals
    assert interval.t0 == "2026-11-22T10:00:00Z" and interval.t1 == "2026-11-22T10:01:40Z"
    assert interval.energy_j == 3.6e6 and interval.age_s is None and not interval.stale
    assert carbon.reason is None and carbon.estimated is None


def test_a_factor_that_changes_between_two_samples():
    """The first also covers the time before it came; at 75 s the energy is interpolated."""
    factors = [since(RTE, 5), since(RTE, 75, g_per_kwh=100.0)]
    carbon = apply_factors(POINTS, factors, 2.0)
    assert [i.energy_j for i in carbon.intervals] == pytest.approx([2.7e6, 0.9e6])
    assert carbon.co2_g == pytest.approx(2.0 * (0.75 * 20 + 0.25 * 100))
    assert carbon.g_per_kwh == pytest.approx(40.0), "PUE is not in the factor"
    assert [i.age_s for i in carbon.intervals] == pytest.approx([55.0, 60.0])
    assert carbon.scope == "direct" and carbon.reason is None
    total_g = sum(i.energy_j / 3.6e6 * i.g_per_kwh for i in carbon.intervals)
    assert total_g * 2.0 == pytest.approx(carbon.co2_g, rel=1e-12)


def test_scopes_that_mix_say_so():
    fallback = since(OWID, 50, fallback_from=("rte: HTTP 500",), g_per_kwh=40.0)
    carbon = apply_factors(POINTS, [since(RTE, 0), fallback], 1.0)
    assert carbon.scope == "mixed" and carbon.basis == "production"
    assert carbon.provider == "rte + owid" and carbon.year is None
    assert "50% rte (direct, production), 50% owid (lifecycle, production)" in carbon.reason
    assert carbon.fallback_from == ("rte: HTTP 500",)
    assert [part.co2_g for part in carbon.parts] == pytest.approx([10.0, 20.0])


def test_an_old_factor_is_flagged_from_the_moment_it_is_old():
    hour = 3600
    points = [(T0, 0.0), (T0 + 10 * hour, 36e6)]
    carbon = apply_factors(points, [since(RTE, 0, age_s=0.0)], 1.0)
    assert [i.stale for i in carbon.intervals] == [False, True]
    assert carbon.intervals[1].t0 == format_utc(T0 + 4 * hour)
    assert carbon.stale_fraction == pytest.approx(0.6) and "60% of the energy" in carbon.reason
    assert carbon.co2_g == pytest.approx(200.0)


def test_unknown_is_null_with_a_reason():
    none = CarbonFactor("none", reason="rte: no value", fallback_from=("rte: no value",))
    carbon = apply_factors(POINTS, [none], 1.0)
    assert carbon.co2_g is None and carbon.reason == "rte: no value"
    late = apply_factors(POINTS, [none, since(RTE, 60)], 1.0)
    assert late.co2_g == pytest.approx(20.0) and late.fallback_from == ("rte: no value",)
    no_energy = apply_factors([], [OWID], 1.0)
    assert no_energy.co2_g is None and "energy" in no_energy.reason
    assert no_energy.g_per_kwh == 40.0 and no_energy.provider == "owid"
    idle = apply_factors([(T0, 0.0), (T0 + 9, 0.0)], [since(RTE, 0), since(OWID, 5)], 1.0)
    assert idle.co2_g == 0.0 and idle.scope == "direct"


def test_attempts_are_joined():
    parts = [apply_factors(POINTS, [RTE], 1.0), apply_factors(POINTS, [OWID], 1.0)]
    carbon = join_carbon(parts, 7.2e6)
    assert carbon.co2_g == pytest.approx(60.0) and carbon.scope == "mixed"
    assert carbon.g_per_kwh == pytest.approx(30.0) and len(carbon.intervals) == 2
    partly = join_carbon([parts[0], apply_factors(POINTS, [CarbonFactor("none")], 1.0)], 7.2e6)
    assert partly.co2_g == pytest.approx(20.0)
    assert partly.reason == "no carbon factor for 50% of the energy"
    # An energy that is not known is the energy's matter.
    assert join_carbon([parts[0], apply_factors([], [RTE], 1.0)], 3.6e6).reason is None
    nothing = join_carbon([apply_factors([], [RTE], 1.0)], None)
    assert nothing.co2_g is None
