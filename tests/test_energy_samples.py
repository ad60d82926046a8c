"""Readings to energy: wraps, resets, missing readings, a suspended machine, several meters."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metered import BOARD, ESTIMATE, MAX_RANGE_UJ, PACKAGE, end, head, sample

from sv.energy.record import Samples
from sv.energy.samples import Accumulator, Reading, join_curves, make_curve
from sv.energy.sidecar import rebuild


def package(values, seconds=1.0):
    return [sample(i * seconds, rapl__package__0=value) for i, value in enumerate(values)]


def attempt_of(lines):
    return rebuild(lines).attempts[0]


def test_four_hours_at_200_watts_are_0_8_kwh():
    start_uj = 200_000_000_000
    counters = [(start_uj + i * 200_000_000) % MAX_RANGE_UJ for i in range(4 * 3600 + 1)]
    sidecar = rebuild([head(PACKAGE), *package(counters), end(4 * 3600.0)])
    assert sidecar.energy_kwh == pytest.approx(0.800, rel=1e-3)
    assert sidecar.measured_fraction == 1.0
    assert sidecar.co2_g == pytest.approx(0.800 * 1.5 * 50, rel=1e-3)
    raw = sidecar.channels[0].raw
    assert raw.wraps == 11 and raw.resets == 0
    by_hand_uj = raw.last - raw.first + raw.wraps * raw.max_range
    assert sidecar.channels[0].energy_j == pytest.approx(by_hand_uj / 1e6)


def test_a_reset_is_not_taken_for_a_wrap():
    total = Accumulator(PACKAGE, 1.0)
    for t_s, value in ((0, 5_000_000), (1, 9_000_000), (2, 1_000_000)):
        total.add(Reading(t_s, t_s, value))
    # 4 W until then, and so for the second of the reset.
    assert (total.energy_j, total.wraps, total.resets, total.bridged_s) == (8.0, 0, 1, 1.0)
    total.add(Reading(3, 3, 3_000_000))
    assert total.energy_j == 10.0
    channel = attempt_of([head(PACKAGE), *package([5_000_000, 1_000_000, 4_000_000])]).channels[0]
    assert channel.energy_j == 4.0 and channel.doubt.startswith("1 steps")


def test_a_gap_that_may_hide_a_wrap_is_told():
    lines = [head(PACKAGE), *package([0, 150_000_000, 200_000_000_000], seconds=900)]
    attempt = attempt_of(lines)
    assert (
        "may hide a wrap" in attempt.channels[0].doubt
        and attempt.channels[0].doubt in attempt.reason
    )
    assert attempt.uncertainty_kwh > 900 * 222 / 3.6e6  # what one more gap at its power would be


def test_missing_readings_are_bridged_and_counted():
    lines = [head(PACKAGE), *package([0, None, None, 30_000_000])]
    channel = attempt_of(lines).channels[0]
    assert channel.energy_j == 30.0
    assert channel.samples == Samples(n=2, failed=2, max_gap_s=3.0, covered=1.0)


def test_one_reading_is_unknown_not_zero():
    attempt = attempt_of([head(PACKAGE, ESTIMATE), *package([7])])
    assert attempt.energy_kwh is None and attempt.measured_fraction is None
    for channel in attempt.channels:
        assert channel.kind == "unavailable" and channel.energy_j is None
        assert "readings succeeded" in channel.reason


def test_estimate_is_in_the_total_only_without_a_measured_package():
    both = [sample(t, rapl__package__0=t * 10**6, cpu_time=t * 10**6) for t in (0, 2)]
    attempt = attempt_of([head(PACKAGE, ESTIMATE), *both])
    assert attempt.energy_kwh == pytest.approx(2 / 3.6e6)
    assert [channel.in_total for channel in attempt.channels] == [True, False]
    assert attempt.channels[1].energy_j == 12.0
    lost = [sample(t, rapl__package__0=None, cpu_time=t * 10**6) for t in (0, 2)]
    attempt = attempt_of([head(PACKAGE, ESTIMATE), *lost])
    assert attempt.energy_kwh == pytest.approx(12 / 3.6e6)
    assert attempt.measured_fraction == 0.0


def test_measured_fraction_is_by_energy():
    lines = [head(BOARD, ESTIMATE)]
    lines += [sample(t, nvml__board__a=30_000, cpu_time=t * 10**6) for t in (0, 1, 2)]
    attempt = attempt_of(lines)
    assert attempt.channels[0].energy_j == 60.0
    assert attempt.measured_fraction == pytest.approx(60 / 72)


def test_a_suspended_machine_uses_no_power():
    lines = [
        head(BOARD),
        sample(0.0, 0.0, nvml__board__a=100_000),
        sample(3600.0, 2.0, nvml__board__a=100_000),
    ]
    attempt = attempt_of(lines)
    assert attempt.duration_s == 3600.0 and attempt.suspended_s == 3598.0
    assert attempt.channels[0].energy_j == 200.0


def test_an_attempt_on_another_host_is_added_by_kind():
    first = [head(PACKAGE, ESTIMATE), *package([0, 5_000_000])]
    resumed = {"line": "mark", "t_s": 0.0, "raw": {}, "said": {"mark": "resumed"}}
    second = [head(ESTIMATE, host="other", t_s=9.0), sample(9.0, cpu_time=0), resumed]
    sidecar = rebuild([*first, *second, sample(10.0, cpu_time=10**6), end(10.0)])
    total = [ch for ch in sidecar.channels if ch.in_total]
    assert [(ch.id, ch.energy_j) for ch in total] == [
        ("rapl.package.0", 5.0),
        ("cpu_time", 6.0),
    ]
    assert sidecar.energy_kwh == pytest.approx(11 / 3.6e6)
    assert sidecar.measured_fraction == pytest.approx(5 / 11)
    assert sidecar.status == "complete" and sidecar.attempts[0].status == "interrupted"


SPAN = st.tuples(st.integers(0, 50), st.integers(1, 30)).map(lambda s: (s[0], s[0] + s[1]))


@settings(max_examples=200, deadline=None)
@given(st.lists(SPAN, min_size=1, max_size=8), st.integers(0, 99))
def test_the_union_of_spans_is_that_of_brute_force(spans, seed):
    chance = random.Random(seed)
    steps = [chance.uniform(0, 9) for _ in range(81)]
    so_far = [sum(steps[:t]) for t in range(82)]
    curves = [make_curve(range(a, b + 1), so_far[a : b + 1]) for a, b in spans]
    joined = join_curves(curves)
    covered = [t for t in range(81) if any(a <= t < b for a, b in spans)]
    assert joined.last == pytest.approx(sum(steps[t] for t in covered))
    assert joined.covered_s == len(covered)
    middle = chance.randrange(82)
    until = pytest.approx(sum(steps[t] for t in covered if t < middle))
    assert joined.read(middle) == until
    assert list(joined.t_s) == sorted(set(joined.t_s))
