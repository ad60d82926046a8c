"""Channels: the figures of one, how far it may be off, sums and comparisons of several.

What of several is believed and summed is decided in witnesses.py.

The uncertainty of a channel has a coverage factor k = 2 (about 95 %) and five parts, added in
quadrature:
- ``edge``: a sensor that is refreshed every ``update_period_s`` gives at the start and at the end
  a value that is up to one period old: period x (first power + last power).
- ``resolution``: of a counter one step at either end, evenly distributed, 2 x step / sqrt(6); of a
  power half a step all the time, 2 x step / sqrt(12) x duration.
- ``gap_fill``: where readings are missing. A counter goes on counting, so only time before its
  first and after its last reading counts, at the highest power, and so do steps that were not
  believed and a gap that may hide a wrap; an integral also bridges gaps by a straight line: half
  of the range of power seen x the time bridged.
- ``sensor``: the sensor's own relative error x energy, where the maker or a study states one, or
  as assumed.
- ``sampling``: of a power, the standard error of the mean of its readings x duration.
A part that is not known is None, and so is then the sum. An estimate has the model's stated error
as its ``sensor``, where one is stated.
"""

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import replace

from sv.energy.journal import Record
from sv.energy.record import Attempt, Channel, Crosscheck, Power, Raw, Samples, Uncertainty
from sv.energy.samples import (
    MISSING,
    STILL_S,
    Accumulator,
    AttemptLines,
    Reading,
    get_limit_w,
    interpolate,
    is_possible,
)
from sv.energy.units import UNITS_PER_J, UNITS_PER_W, kwh_from_j, sum_known

# A channel that was read over less of the attempt than this does not stand for the whole of it.
MIN_COVERED = 0.9
WHOLE_COVERED = 0.97  # below this it is a lower bound; a gap of 3 % is within a sensor's error
NEEDED = 2  # readings
DEAD_S = 1.5  # a counter that moves at all does so in this time: some are refreshed once a second
HELD_PERIODS = 2  # so long before its first and after its last reading a power is held
MEASURED_KINDS = ("measured", "derived")  # derived: the integral of a measured power
COVERAGE = 2
PARTS = ("edge", "resolution", "gap_fill", "sensor", "sampling")  # of an uncertainty, in joules


def describe_channel(spec: Record) -> Channel:
    """Return a channel of a journal's head, without figures yet."""
    return Channel(
        id=spec["id"],
        boundary=spec["boundary"],
        kind=spec["kind"],
        method=spec["method"],
        source=spec["source"],
        in_total=spec["in_total"],
        reason=spec["reason"],
        power_w_per_core=spec["power_w_per_core"],
        contained_in=tuple(spec.get("contained_in", ())),
        energy_j=None,
        u_energy_j=None,
        raw=None,
        power_w=None,
        samples=Samples(n=0, failed=0, max_gap_s=None, covered=None),
    )


def build_channel(spec: Record, lines: AttemptLines) -> tuple[Channel, array, range]:
    """Build a channel's figures from its readings.

    Args:
        spec: The channel as the head of the journal has it.
        lines: The attempt.

    Returns:
        The channel before any total is chosen; its joules so far at each sample, empty where the
        energy is not known; and the samples between which it is known.
    """
    channel = describe_channel(spec)
    if spec["kind"] == "unavailable":
        return channel, array("d"), range(0)
    span_s, slow_s = lines.span_s, spec.get("update_period_s") or 0.0
    column = lines.raw[spec["id"]]
    there = array("l", (i for i, value in enumerate(column) if value != MISSING))
    read = array("l", (i for i in there if is_possible(spec, column[i])))
    due = len(lines.t_s)
    if slow_s > lines.head["period_s"]:
        due = min(due, int((span_s[1] - span_s[0]) / slow_s) + 1)
    every_s = max(lines.head["period_s"], slow_s)
    places = read
    if spec["method"] == "power_integral" and read:
        places = _hold_ends(read, lines, HELD_PERIODS * every_s)
    total = Accumulator(spec, every_s)
    so_far = array("d")
    for i in places:
        value = column[min(max(i, read[0]), read[-1])]
        total.add(Reading(lines.t_s[i], lines.awake_s[i], value))
        so_far.append(total.energy_j)
    samples = Samples(n=len(read), failed=max(0, due - len(read)), max_gap_s=None, covered=None)
    channel = add_figures(
        replace(channel, samples=samples),
        spec,
        total,
        lines.span_s,
        refused=len(there) - len(read),
        last_error=_find_last_error(spec["id"], lines),
    )
    if channel.kind == "unavailable":
        return channel, array("d"), range(0)
    known = range(places[0], places[-1] + 1)
    return channel, interpolate(places, so_far, lines.awake_s), known


def _find_last_error(channel_id: str, lines: AttemptLines) -> str | None:
    """Return a sensor's last failure, from the last metadata of the journal."""
    metadata = lines.facts[-1]["facts"].get(channel_id) if lines.facts else None
    return metadata.get("last_error") if isinstance(metadata, dict) else None


def add_figures(
    channel: Channel,
    spec: Record,
    total: Accumulator,
    span_s: tuple[float, float],
    *,
    refused: int = 0,
    last_error: str | None = None,
) -> Channel:
    """Add what the readings of a channel give, and how far they can be trusted by themselves.

    Args:
        channel: As described, with what ``samples`` counts.
        spec: The channel as the head of the journal has it.
        total: Its readings, added up.
        span_s: First and last sample of the attempt.
        refused: Readings that no machine could give, which are not in ``total``.
        last_error: What the sensor said of its last failure.

    Returns:
        The channel with its energy; unavailable where it has none.
    """
    unit, first, last, moved = spec["unit"], total.first, total.last, total.moved
    reason = doubt = None
    impossible = None
    if refused:
        impossible = f"{refused} readings are more than {get_limit_w(spec):.0f} W or negative"
    if first is None or last is None or moved is None or total.n < NEEDED:
        due = total.n + channel.samples.failed
        reason = f"{total.n} of {due} readings succeeded, two are needed"
        reason = "; ".join(filter(None, (reason, impossible, last_error)))
    elif spec["method"] == "counter_delta" and moved is first:
        if first.value == 0:
            reason = "its counter stays 0: no measurement"
        elif total.still_s > max(DEAD_S, spec.get("update_period_s") or 0.0):
            reason = f"its counter stood still for all {total.still_s:.3g} s"
            doubt = f"a dead sensor: {reason}"
    if reason or first is None or last is None or moved is None:
        return replace(channel, kind="unavailable", in_total=False, reason=reason, doubt=doubt)
    start_s, end_s = span_s
    stopped = total.still_s >= STILL_S
    ends_s = (first.t_s - start_s, end_s - (moved if stopped else last).t_s)
    max_gap_s = max(total.longest_s, *ends_s)
    # A counter goes on counting where it is not read.
    gap_s = total.gap_s if spec["method"] == "power_integral" else 0.0
    whole_s, covered = end_s - start_s, 1.0
    if whole_s > 0:
        covered = max(0.0, 1.0 - (sum(ends_s) + total.lost_s + gap_s) / whole_s)
    awake_s = last.awake_s - first.awake_s
    doubts = [impossible]
    if total.resets:
        doubts.append(
            f"{total.resets} steps of its counter that no machine could make, {total.bridged_s:.3g}"
            " s of it, are counted at its mean power"
        )
    if stopped or total.lost_s:
        still_s = total.lost_s + (total.still_s if stopped else 0.0)
        doubts.append(f"its counter stood still for {still_s:.3g} s: a lower bound")
    elif total.hidden_j:
        doubts.append(f"{total.longest_s:.0f} s without a reading may hide a wrap: a lower bound")
    elif covered < WHOLE_COVERED:
        doubts += _describe_silence(ends_s, gap_s, whole_s)
    return replace(
        channel,
        energy_j=total.energy_j,
        u_energy_j=_compute_uncertainty(spec, total, sum(ends_s) + total.lost_s),
        raw=Raw(
            first=first.value,
            last=last.value,
            unit=unit,
            max_range=spec["max_range"],
            wraps=total.wraps,
            resets=total.resets,
        ),
        power_w=Power(mean=total.energy_j / awake_s if awake_s > 0 else None, max=total.max_w),
        samples=replace(channel.samples, max_gap_s=max_gap_s, covered=covered),
        doubt="; ".join(filter(None, doubts)) or None,
    )


def _describe_silence(ends_s: tuple[float, float], gap_s: float, whole_s: float) -> list[str]:
    """Say when a channel was silent: at the ends, and in a power's gaps between two readings."""
    doubts = []
    if not gap_s or sum(ends_s) > (1 - WHOLE_COVERED) * whole_s:
        first_s, last_s = ends_s
        silent = f"no reading in the first {first_s:.0f} s and the last {last_s:.0f} s"
        doubts.append(f"{silent}: a lower bound")
    if gap_s:
        doubts.append(f"no reading for {gap_s:.0f} s in between, bridged by a straight line")
    return doubts


def _hold_ends(read: array, lines: AttemptLines, held_s: float) -> array:
    """Let a power hold from the first to the last sample, where its reading is near enough."""
    places, end = read[:], len(lines.t_s) - 1
    if 0 < lines.t_s[places[0]] - lines.t_s[0] <= held_s:
        places.insert(0, 0)
    if 0 < lines.t_s[end] - lines.t_s[places[-1]] <= held_s:
        places.append(end)
    return places


def _compute_uncertainty(spec: Record, total: Accumulator, unread_s: float) -> Uncertainty:
    """Compute how far a channel's energy may be off.

    Args:
        spec: The channel as the head of the journal has it.
        total: Its readings, added up; at least two.
        unread_s: Time before its first and after its last reading, or in which it stood still.
    """
    energy_j = total.energy_j
    rel, basis = spec.get("sensor_rel"), spec.get("sensor_rel_basis")
    if spec["kind"] == "estimated" and rel is None:
        reason = "the error of an estimate is not known"
        return Uncertainty(COVERAGE, None, None, None, None, None, None, reason)
    if spec["kind"] == "estimated":
        return _add_parts([0.0, 0.0, 0.0, rel * energy_j, 0.0], basis)
    assert total.first is not None and total.last is not None
    awake_s = total.last.awake_s - total.first.awake_s
    mean_w = energy_j / awake_s if awake_s > 0 else 0.0
    first_w, last_w = total.first_w or mean_w, total.last_w or mean_w
    period_s, step = spec.get("update_period_s"), spec.get("resolution")
    max_w, min_w = total.max_w or mean_w, total.min_w or 0.0
    gap_j = max_w * (unread_s + total.bridged_s) + total.hidden_j
    resolution_j = None
    if spec["method"] == "power_integral":
        gap_j += (max_w - min_w) / 2 * total.gap_s
        if step is not None:
            resolution_j = COVERAGE * step / UNITS_PER_W[spec["unit"]] / math.sqrt(12) * awake_s
    elif step is not None:
        resolution_j = COVERAGE * step / UNITS_PER_J[spec["unit"]] / math.sqrt(6)
    edge_j = None if period_s is None else period_s * (first_w + last_w)
    sensor_j = None if rel is None else rel * abs(energy_j)
    sampling_j = COVERAGE * total.sampling_w * awake_s
    return _add_parts([edge_j, resolution_j, gap_j, sensor_j, sampling_j], basis)


def _add_parts(parts_j: Sequence[float | None], basis: str | None) -> Uncertainty:
    parts = dict(zip(PARTS, parts_j, strict=True))
    unknown = [name for name, joules in parts.items() if joules is None]
    return Uncertainty(
        k=COVERAGE,
        **parts,
        sensor_basis=basis,
        total=None if unknown else math.hypot(*parts.values()),
        reason=f"not known: {', '.join(unknown)}" if unknown else None,
    )


def list_boundaries(channels: Sequence[Channel]) -> tuple[str, ...]:
    """List the boundaries of the channels in the total, sorted."""
    return tuple(sorted({channel.boundary for channel in channels if channel.in_total}))


def sum_uncertainty(
    channels: Sequence[Channel], parts: Mapping[str, float]
) -> tuple[float | None, str | None]:
    """Add up the uncertainty of the channels in the total, in joules.

    Linearly: sensors of one kind err alike, so nothing is gained by adding them up.

    Args:
        channels: Of one machine.
        parts: Id -> the part of the channel that counts, 0 to 1; all of one that is missing.

    Returns:
        The sum, and why it is None.
    """
    chosen = [(ch.id, ch.u_energy_j) for ch in channels if ch.in_total and ch.energy_j is not None]
    if not chosen:
        return None, "no channel has an energy"
    for name, u in chosen:
        if u is None or u.total is None:
            return None, f"{name}: {u.reason if u else 'not known'}"
    return sum(u.total * parts.get(name, 1.0) for name, u in chosen), None


def sum_channels(attempts: Sequence[Attempt]) -> tuple[Channel, ...]:
    """Add up the same channels of several attempts.

    Channels are the same if they agree in host, id, kind and in_total; so the sum over those in
    the total is the sum over the attempts. ``raw`` stays only where one attempt has the channel;
    else it is in attempts[].channels.
    """
    groups: dict[tuple[str | None, str, str, bool], list[tuple[int, Channel]]] = {}
    for attempt in attempts:
        for channel in attempt.channels:
            key = (channel.host, channel.id, channel.kind, channel.in_total)
            groups.setdefault(key, []).append((attempt.attempt, channel))
    return tuple(
        replace(sum_group([ch for _, ch in group]), attempts=tuple(number for number, _ in group))
        for group in groups.values()
    )


def sum_group(channels: Sequence[Channel]) -> Channel:
    """Add up what several attempts, or several meters, have of one channel."""
    if len(channels) == 1:
        return channels[0]
    reasons = dict.fromkeys(ch.reason for ch in channels if ch.reason is not None)
    samples = [channel.samples for channel in channels]
    gaps_s = [each.max_gap_s for each in samples if each.max_gap_s is not None]
    covered = [each.covered for each in samples if each.covered is not None]
    return replace(
        channels[-1],
        energy_j=sum_known(channel.energy_j for channel in channels),
        u_energy_j=_sum_uncertainties(channels),
        reason="; ".join(reasons) or None,
        doubt="; ".join(dict.fromkeys(ch.doubt for ch in channels if ch.doubt)) or None,
        raw=None,
        power_w=None,
        samples=Samples(
            n=sum(each.n for each in samples),
            failed=sum(each.failed for each in samples),
            max_gap_s=max(gaps_s, default=None),
            covered=min(covered, default=None),
        ),
    )


def _sum_uncertainties(channels: Sequence[Channel]) -> Uncertainty | None:
    found = [channel.u_energy_j for channel in channels if channel.u_energy_j is not None]
    if not found:
        return None
    sums = {}
    for name in (*PARTS, "total"):
        values = [getattr(one, name) for one in found]
        sums[name] = None if None in values else sum(values)
    reasons = dict.fromkeys(one.reason for one in found if one.reason)
    return replace(found[-1], **sums, reason="; ".join(reasons) or None)


def compute_crosschecks(channels: Sequence[Channel]) -> tuple[Crosscheck, ...]:
    """Compare what is known twice, machine by machine.

    - Two methods on one source, a GPU's energy counter and the integral of its power: both have
      the same boundary and the same last part of the id (the board's).
    - The outermost parts of a machine against the machine; the rest, which they leave of it, is
      shown and never summed.
    - The estimate of the processor against what was measured.
    """
    hosts = dict.fromkeys(channel.host for channel in channels)
    return tuple(
        check
        for host in hosts
        for check in _compare_channels([ch for ch in channels if ch.host == host])
    )


def _compare_channels(channels: list[Channel]) -> list[Crosscheck]:
    known = [ch for ch in channels if ch.energy_j is not None]
    measured = [ch for ch in known if ch.kind in MEASURED_KINDS]
    checks = []
    for counter in (ch for ch in measured if ch.method == "counter_delta"):
        for integral in (ch for ch in measured if ch.method == "power_integral"):
            same_source = counter.id.rsplit(".", 1)[-1] == integral.id.rsplit(".", 1)[-1]
            if same_source and counter.boundary == integral.boundary:
                checks.append(_compare([counter], [integral]))
    for node in (ch for ch in measured if ch.boundary == "node"):
        inside = [ch for ch in measured if node.id in ch.contained_in and ch.boundary != "psys"]
        ids, checked = {ch.id for ch in inside}, {check.b for check in checks}
        parts = [ch for ch in inside if not ids & set(ch.contained_in) and ch.id not in checked]
        if parts:
            rest_kwh = kwh_from_j((node.energy_j or 0.0) - _sum_j(parts))
            checks.append(replace(_compare(parts, [node]), rest_kwh=rest_kwh))
    packages = [ch for ch in measured if ch.boundary == "cpu_package"]
    estimates = [ch for ch in known if ch.method == "cpu_time_x_power"]
    if packages and estimates:
        checks.append(_compare(estimates, packages))
    return checks


def _sum_j(channels: list[Channel]) -> float:
    return sum(channel.energy_j or 0.0 for channel in channels)


def _compare(a: list[Channel], b: list[Channel]) -> Crosscheck:
    b_j = _sum_j(b)
    return Crosscheck(
        a=" + ".join(channel.id for channel in a),
        b=" + ".join(channel.id for channel in b),
        ratio=_sum_j(a) / b_j if b_j > 0 else None,
        host=a[0].host,
    )
