"""What is believed of channels that should agree: from a journal, and live along it."""

import pytest
from metered import BOARD, ESTIMATE, NODE, PACKAGE, end, head, sample

from sv.energy.samples import StageJournals, split_attempts
from sv.energy.sidecar import rebuild
from sv.energy.tracker import Tracker

PACKAGE_1 = {**PACKAGE, "id": "rapl.package.1"}
LOST_1 = {**PACKAGE_1, "kind": "unavailable", "method": None, "in_total": False, "reason": "gone"}
COUNTER = {**BOARD, "kind": "measured", "method": "counter_delta", "unit": "mJ"}
POWER = {
    **BOARD, "id": "nvml.power.a", "in_total": False, "reason": "a cross-check", "sensor_rel": 0.05,
    "contained_in": ["nvml.board.a"],
}  # fmt: skip
KNOWN = {**ESTIMATE, "sensor_rel": 0.5}
T_S = range(61)


def joules(*values):
    """Give a counter in uJ that begins at 10 kJ and advances by so many joules a second."""
    total, counter = 10_000, []
    for t_s in T_S:
        total += values[min(t_s, len(values)) - 1] if t_s else 0
        counter.append(total * 1_000_000)
    return counter


STEADY = joules(100)
STOPS = joules(*[100] * 30, 0)
JUMPS = joules(*[100] * 30, 40_000, 100)
RESTARTS = [*joules(100)[:31], *[joules(100)[30]] * 19, *joules(100)[10:21]]
BACK = joules(*[100] * 30, -5_000, 100)
CATCHES_UP = joules(*[100] * 5, *[0] * 9, 1000, 100)
GOES_ON = joules(*[100] * 5, *[0] * 9, 100)
SILENT = [None if 10 < t_s < 50 else 300 for t_s in T_S]
MJ = [value // 1000 for value in joules(300)]


@pytest.mark.parametrize(
    ("channels", "readings", "wanted"),
    [
        # What agrees, or has no witness, is left alone.
        (
            (PACKAGE, PACKAGE_1), (STEADY, joules(50)),
            (9000, 1, "", "rapl.package.0 rapl.package.1"),
        ),
        ((PACKAGE, NODE), (STEADY, [300] * 61), (18_000, 1, "", "ipmi.node")),
        ((COUNTER, POWER), (MJ, [305_000] * 61), (18_000, 1, "", "nvml.board.a")),
        ((PACKAGE, KNOWN), (STEADY, [t * 10**6 for t in T_S]), (6000, 1, "", "rapl.package.0")),
        # One channel.
        ((PACKAGE,), (JUMPS,), (6000, 1, "rapl.package.0", "rapl.package.0")),
        ((PACKAGE,), (BACK,), (6000, 1, "rapl.package.0", "rapl.package.0")),
        ((PACKAGE,), (STOPS,), (3000, 0.5, "rapl.package.0", "rapl.package.0")),
        # Still for 19 s, then begun again: the second of the step is bridged, the 19 are not there.
        ((PACKAGE,), (RESTARTS,), (4100, 41 / 60, "rapl.package.0", "rapl.package.0")),
        ((PACKAGE,), (CATCHES_UP,), (6000, 1, "", "rapl.package.0")),
        ((PACKAGE,), (GOES_ON,), (5100, 0.85, "rapl.package.0", "rapl.package.0")),
        ((PACKAGE, KNOWN), ([7] * 61, [0] * 61), (0, None, "rapl.package.0", "cpu_time")),
        ((PACKAGE, KNOWN), ([0] * 61, [t * 10**6 for t in T_S]), (360, 0, "", "cpu_time")),
        ((PACKAGE, KNOWN), ([-5] * 61, [t * 10**6 for t in T_S]), (360, 0, "", "cpu_time")),
        ((PACKAGE, NODE), (STEADY, [65535] * 61), (6000, 1, "", "rapl.package.0")),
        (
            (PACKAGE, NODE), (STEADY, [300, 65535] * 30 + [300]),
            (18_000, 1, "ipmi.node", "ipmi.node"),
        ),
        # Channels against each other.
        ((PACKAGE, PACKAGE_1), (STEADY, STEADY), (6000, 1, "rapl.package.0", "rapl.package.0")),
        (
            (PACKAGE, PACKAGE_1), (STEADY, [*STEADY[:30], *[None] * 31]),
            (6000, 1, "rapl.package.0", "rapl.package.0"),
        ),
        ((PACKAGE, LOST_1), (STEADY,), (6000, 0.5, "rapl.package.1", "rapl.package.0")),
        (
            (PACKAGE, PACKAGE_1), (STEADY, [7] * 61),
            (6000, 0.5, "rapl.package.1", "rapl.package.0"),
        ),
        ((LOST_1, KNOWN), ([t * 10**6 for t in T_S],), (360, 0, "", "cpu_time")),
        ((PACKAGE, LOST_1, NODE), (STEADY, [300] * 61), (18_000, 1, "", "ipmi.node")),
        ((COUNTER, POWER), (MJ, [900_000] * 61), (54_000, 1, "nvml.power.a", "nvml.power.a")),
        ((COUNTER, POWER), (MJ, [0] * 61), (18_000, 1, "", "nvml.board.a")),
        ((COUNTER, POWER), (MJ, [400_000] * 61), (18_000, 1, "nvml.board.a", "nvml.board.a")),
        ((COUNTER, POWER), ([9] * 61, [300_000] * 61), (18_000, 1, "nvml.power.a", "nvml.power.a")),
        (
            (COUNTER, POWER), ([*MJ[:30], *[None] * 31], [300_000] * 61),
            (18_000, 1, "nvml.power.a", "nvml.power.a"),
        ),
        ((PACKAGE, NODE), (STEADY, [60] * 61), (6000, 1, "ipmi.node", "rapl.package.0")),
        ((PACKAGE, NODE), (STEADY, [15_000] * 61), (6000, 1, "ipmi.node", "rapl.package.0")),
        # A power that is silent from 10 to 50 s is bridged, and stands for what it saw.
        ((PACKAGE, NODE), (STEADY, SILENT), (6000, 1, "", "rapl.package.0")),
        ((NODE,), (SILENT,), (18_000, 25 / 60, "ipmi.node", "ipmi.node")),
        (
            (COUNTER, POWER), ([9] * 61, [w and 1000 * w for w in SILENT]),
            (18_000, 21 / 60, "nvml.power.a", "nvml.power.a"),
        ),
        (
            (PACKAGE, KNOWN), (joules(1), [t * 10**6 for t in T_S]),
            (60, 1, "rapl.package.0", "rapl.package.0"),
        ),
    ],
)  # fmt: skip
def test_a_total_is_what_its_witnesses_allow(channels, readings, wanted):
    energy_j, measured, doubted, summed = wanted
    first = head(*channels, config={"attribution": "exclusive", "jobs_on_node": 1})
    del first["carbon"]
    lines, tracker = [first], Tracker(first)
    names = [channel["id"] for channel in channels if channel["kind"] != "unavailable"]
    for t_s in T_S:
        raw = dict(zip(names, (values[t_s] for values in readings), strict=True))
        lines.append({**sample(float(t_s)), "raw": raw})
        tracker.take(lines[-1])
        if t_s in (10, 34, 60):
            attempt, live = rebuild(lines).attempts[0], tracker.summarise()
            assert live["energy_kwh"] == pytest.approx(attempt.energy_kwh, rel=1e-9)
            fraction = attempt.measured_fraction
            assert live["measured_fraction"] == (fraction and pytest.approx(fraction, rel=0.05))
    attempt = rebuild([*lines, end(60.0)]).attempts[0]
    assert attempt.energy_kwh * 3.6e6 == pytest.approx(energy_j, rel=0.01)
    assert attempt.measured_fraction == (None if measured is None else pytest.approx(measured))
    assert sorted(c.id for c in attempt.channels if c.in_total) == summed.split()
    doubts = [channel for channel in attempt.channels if channel.doubt]
    assert {channel.id for channel in doubts} <= {doubted, "nvml.board.a"}
    assert bool(doubts) == bool(doubted)
    for channel in doubts:
        assert channel.doubt in attempt.reason
    assert (attempt.reason is None) == (not doubts and measured is not None)


def test_copies_of_a_counter_count_once_for_several_meters_of_a_machine():
    config = {"attribution": "exclusive", "jobs_on_node": 1}

    def meter(times):
        first = head(PACKAGE, PACKAGE_1, config=config)
        del first["carbon"]
        raw = ({"rapl.package.0": STEADY[t_s], "rapl.package.1": STEADY[t_s]} for t_s in times)
        samples = [{**sample(float(t)), "raw": r} for t, r in zip(times, raw, strict=True)]
        return [{**first, "t_s": float(times[0])}, *samples, end(float(times[-1]))]

    own, *others = (meter(times) for times in (T_S, range(5, 40), range(20, 55)))
    labels = {"job.0": split_attempts(others[0])[0], "job.1": split_attempts(others[1])[0]}
    attempt = rebuild(own, {1: StageJournals(tuple(labels), labels)}).attempts[0]
    assert attempt.energy_kwh * 3.6e6 == pytest.approx(4900)  # of the jobs, from 5 to 54 s
    assert [c.in_total for c in attempt.channels] == [True, False]
    assert attempt.channels[0].doubt in attempt.reason
