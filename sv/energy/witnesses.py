"""What of a machine's channels is believed and summed: each is held against what knows the same.

A channel that another one contains is never added to it. The total is the machine (``node``)
where that was measured; else the outermost measured channels, with estimates only for what
nothing measured covers. The rest stays in the sidecar as a breakdown.

Witnesses:
- Two counters of one boundary that always show the same are one counter: it counts once.
- A board's counter against the integral of its power: outside `BELIEVED` over `ENOUGH` samples
  the integral is taken; nearer, but beyond what both may be off, the board is disputed.
- A machine against its parts: below them, or far above, it is not believed, and they are taken.
- A package against what its processor time alone takes at the least: below that it is disputed.
- A socket or board that cannot be read, where its siblings can: the boundary is partial.
What a channel's own readings say (`sv.energy.channels`) comes before. Where the total suffers, the
channel has a ``doubt``, which goes up into the attempt's reason.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from sv.energy.channels import MEASURED_KINDS, MIN_COVERED
from sv.energy.record import Channel
from sv.energy.units import j_from_count

# Boundary -> what a measured channel of it makes an estimate of unnecessary.
COVERS = {"node": {"cpu_package", "dram"}, "gpu_module": {"cpu_package"}}
BELIEVED = (0.5, 2.0)  # energy of a board's counter / integral of its power
ENOUGH = 30  # samples of the power
SAME_J = 1.0  # counters that never differ by more are one; read one after the other, so ...
SAME_S = 0.05  # ... in this time their power may make more
SAME_REL = 0.02  # where one of them ends early: of their mean powers
# Times its parts: a machine is mostly its processors, its memory and its boards. Eight boards that
# other jobs keep busy, and this one does not see, are 6 kW where the processors have 100 W.
MOST = 100
BOARD, POWER = "nvml.board.", "nvml.power."
NO_CHANNEL = "no channel has an energy; each has its reason"


def choose_total(channels: Sequence[Channel]) -> list[Channel]:
    """Decide what is in the total of a machine; what is left out gets the reason.

    Args:
        channels: Of one attempt on one machine, with their energies, without copies; ``in_total``
            as the sensors set it.
    """
    chosen = compare_boards(channels)
    chosen = _compare_machine([_leave_out_gaps(channel, chosen) for channel in chosen])
    outermost = {ch.id for ch in chosen if _is_summed(ch)}
    for i, channel in enumerate(chosen):
        outer = next((name for name in channel.contained_in if name in outermost), None)
        if channel.in_total and outer is not None:
            chosen[i] = _leave_out(channel, f"contained in {outer}, which is in the total")
    covered = {ch.boundary for ch in chosen if _is_summed(ch)}
    covered |= {inner for boundary in covered for inner in COVERS.get(boundary, ())}
    estimates = [ch for ch in chosen if ch.method == "cpu_time_x_power"]
    for i, channel in enumerate(chosen):
        if channel.kind == "estimated" and channel.in_total and channel.boundary in covered:
            reason = f"a measured {channel.boundary} channel is in the total"
            chosen[i] = _leave_out(channel, reason)
    return [_doubt_part(ch, chosen) for ch in _compare_packages(chosen, estimates)]


def sum_energy(channels: Sequence[Channel]) -> tuple[float | None, str | None]:
    """Add up the channels that are in the total of a machine.

    Returns:
        Joules, and why they are None or 0.
    """
    chosen = [ch.energy_j for ch in channels if ch.in_total and ch.energy_j is not None]
    if not chosen:
        return None, NO_CHANNEL
    energy_j = sum(chosen)
    why = None if energy_j else "no channel advanced between the first and the last sample"
    return energy_j, why


def count_measured(channels: Sequence[Channel], stage_j: float) -> float:
    """Return how much of a stage's energy on a machine was measured, in joules.

    Args:
        channels: Of the machine, with their place in the total.
        stage_j: The stage's part of the machine. The estimates are in it as a whole, for they are
            of the stage's own processes: only what was measured is shared.
    """
    total = [(ch, ch.energy_j or 0.0) for ch in channels if ch.in_total]
    estimated_j = sum(joules for ch, joules in total if not _is_summed(ch))
    measured = [(ch, joules) for ch, joules in total if _is_summed(ch)]
    whole_j = sum(joules for _, joules in measured)
    if not whole_j:
        return 0.0
    part = sum(joules * _measure_part(ch, channels) for ch, joules in measured) / whole_j
    return max(0.0, stage_j - estimated_j) * part


def list_doubts(channels: Iterable[Channel]) -> list[str]:
    """List what makes a total less than measured: each channel's doubt, with its id."""
    return [f"{channel.id}: {channel.doubt}" for channel in channels if channel.doubt]


def _measure_part(channel: Channel, channels: Sequence[Channel]) -> float:
    """Return which part of what a measured channel of the total stands for was measured, 0 to 1.

    Less than 1 where sibling sockets or boards could not be read, or it was not read all the time:
    what is missing is taken to have used as much.
    """
    missing = sum(_is_sibling(channel, ch) for ch in channels if _is_missing(ch))
    there = sum(_is_sibling(channel, ch) for ch in channels if _is_summed(ch))
    return there / (there + missing) * (_get_covered(channel) if channel.doubt else 1.0)


def _is_summed(channel: Channel) -> bool:
    return channel.in_total and channel.kind in MEASURED_KINDS


def _is_missing(channel: Channel) -> bool:
    return channel.kind == "unavailable" and channel.doubt is not None


def _get_family(channel: Channel) -> tuple[str, ...]:
    """Return what sockets or boards side by side have in common; empty for what is one of a kind.

    ``rapl.package.1`` and ``rapl.package.0.die.1`` are, ``rapl.package`` is the lack of any.
    """
    words = channel.id.replace(POWER, BOARD, 1).split(".", 2)
    return tuple(words[:2]) if len(words) > 2 else ()


def _is_sibling(one: Channel, other: Channel) -> bool:
    if one.boundary != other.boundary or one.host != other.host:
        return False
    return one.id == other.id or (_get_family(one) == _get_family(other) != ())


def _leave_out(channel: Channel, reason: str) -> Channel:
    """Leave a channel out of the total: what was doubtful about it is so no more of the total."""
    reason = "; ".join(filter(None, (channel.reason, channel.doubt, reason)))
    return replace(channel, in_total=False, reason=reason, doubt=None)


def _add_doubt(channel: Channel, doubt: str) -> Channel:
    return replace(channel, doubt="; ".join(filter(None, (channel.doubt, doubt))))


def _leave_out_gaps(channel: Channel, channels: Sequence[Channel]) -> Channel:
    """Leave out what was read too little, if what it contains was read: else it is all there is."""
    if not _is_summed(channel):
        return channel if channel.kind == "unavailable" else replace(channel, doubt=None)
    inside = any(
        channel.id in ch.contained_in and ch.in_total and ch.energy_j is not None for ch in channels
    )
    if _get_covered(channel) >= MIN_COVERED or not inside:
        return channel
    return _leave_out(channel, "too much of the attempt has no reading of it for a total")


def drop_copies(channels: Sequence[Channel]) -> list[Channel]:
    """Count counters that show the same once (dies of one package: Linux before 6.12 on AMD).

    Args:
        channels: Of one meter: their readings are compared.
    """
    chosen: list[Channel] = []
    copies: dict[str, list[str]] = {}
    for channel in channels:
        first = next((ch for ch in chosen if _is_copy(channel, ch)), None)
        if first is None:
            chosen.append(channel)
        else:
            copies.setdefault(first.id, []).append(channel.id)
            chosen.append(_leave_out(channel, f"its counter is that of {first.id}"))
    for i, channel in enumerate(chosen):
        if channel.id in copies:
            doubt = f"counted once for {', '.join(copies[channel.id])} too: their counters are one"
            chosen[i] = _add_doubt(channel, doubt)
    return chosen


def _is_copy(channel: Channel, of: Channel) -> bool:
    a, b = channel.raw, of.raw
    if channel.boundary != "cpu_package" or of.boundary != "cpu_package":
        return False
    if a is None or b is None or not (_is_summed(channel) and _is_summed(of)) or a.first == 0:
        return False
    if (channel.method, a.unit, a.max_range) != ("counter_delta", b.unit, b.max_range):
        return False
    powers_w = [(ch.power_w and ch.power_w.mean) or 0.0 for ch in (channel, of)]
    most_j = SAME_J + max(powers_w) * SAME_S
    if abs(j_from_count(a.first - b.first, a.unit)) > most_j:
        return False
    is_same = abs(j_from_count(a.last - b.last, a.unit)) <= most_j
    return is_same or (
        channel.samples.covered != of.samples.covered
        and abs(powers_w[0] - powers_w[1]) <= SAME_REL * max(powers_w)
    )


def compare_boards(channels: Sequence[Channel]) -> list[Channel]:
    """Hold each board's counter against the integral of its power; the better one is summed.

    Args:
        channels: As `choose_total` takes them.
    """
    by_id = {channel.id: channel for channel in channels}
    for name, board in list(by_id.items()):
        integral = by_id.get(name.replace(BOARD, POWER, 1))
        if not name.startswith(BOARD) or integral is None or not integral.energy_j:
            continue  # a board that is on has a power: 0 W is none
        doubt = None  # of the integral, where it is summed
        if board.energy_j is None:
            doubt = f"of {name} {board.reason}; the integral of its power is taken"
        elif not board.in_total:
            continue
        elif _get_covered(board) < MIN_COVERED <= _get_covered(integral):
            by_id[name] = _leave_out(board, "too much of the attempt has no reading of it")
            doubt = f"{name} was not read all the time; the integral of its power is taken"
        else:
            ratio = board.energy_j / integral.energy_j
            text = f"its counter gives {ratio:.3g} times the integral of its power"
            low_j, high_j = _get_low_j(integral), _get_high_j(integral)
            if not BELIEVED[0] <= ratio <= BELIEVED[1] and integral.samples.n >= ENOUGH:
                by_id[name] = _leave_out(board, f"{text}: not believed")
                doubt = f"{text}, which is taken"
            elif _get_low_j(board) > high_j or _get_high_j(board) < low_j:
                by_id[name] = _add_doubt(board, f"{text}: disputed")
        if doubt:
            by_id[integral.id] = _add_doubt(replace(integral, in_total=True, reason=None), doubt)
    return list(by_id.values())


def _get_covered(channel: Channel) -> float:
    covered = channel.samples.covered
    return 1.0 if covered is None else covered


def _get_low_j(channel: Channel) -> float:
    """Return what a channel's energy is at the least; 0 where its uncertainty is not known."""
    u = channel.u_energy_j and channel.u_energy_j.total
    return 0.0 if u is None or channel.energy_j is None else channel.energy_j - u


def _get_high_j(channel: Channel) -> float:
    """Return what a channel's energy is at the most; infinity where that is not known."""
    u = channel.u_energy_j and channel.u_energy_j.total
    return float("inf") if u is None or channel.energy_j is None else channel.energy_j + u


def _compare_machine(channels: Sequence[Channel]) -> list[Channel]:
    """Do not believe a machine that used less than the parts inside it, or far more."""
    chosen = list(channels)
    for i, node in enumerate(chosen):
        if node.boundary != "node" or not _is_summed(node):
            continue
        inside = [ch for ch in chosen if _is_summed(ch) and node.id in ch.contained_in]
        names = {ch.id for ch in inside}
        parts = [ch for ch in inside if not names & set(ch.contained_in)]
        parts_j = sum(ch.energy_j or 0.0 for ch in parts)
        is_below = _get_high_j(node) < sum(map(_get_low_j, parts))
        if is_below or 0 < MOST * parts_j < _get_low_j(node):
            doubt = (
                f"{node.energy_j:.4g} J cannot be, with {parts_j:.4g} J of the parts inside it "
                f"({', '.join(ch.id for ch in parts)}): not believed"
            )
            chosen[i] = replace(node, in_total=False, doubt=doubt)
    return chosen


def _compare_packages(channels: Sequence[Channel], estimates: Sequence[Channel]) -> list[Channel]:
    """Doubt packages that used less than the command's processor time takes at the least."""
    packages = [ch for ch in channels if ch.boundary == "cpu_package" and _is_summed(ch)]
    least_j = sum(map(_get_low_j, estimates))
    if not packages or sum(map(_get_high_j, packages)) >= least_j:
        return list(channels)
    doubt = f"its command's processor time alone takes {least_j:.3g} J: disputed"
    return [_add_doubt(ch, doubt) if ch in packages else ch for ch in channels]


def _doubt_part(channel: Channel, channels: Sequence[Channel]) -> Channel:
    """Doubt a total that lacks a socket or board that is there and cannot be read.

    A counter that was there and died (`sv.energy.channels`) is doubted even where an estimate
    serves.
    """
    summed = {ch.id: ch for ch in channels if _is_summed(ch)}
    if channel.kind != "unavailable" or channel.id.startswith(POWER) or not _get_family(channel):
        return channel
    if channel.id.replace(BOARD, POWER, 1) in summed or set(channel.contained_in) & set(summed):
        return replace(channel, doubt=None)
    is_lost_board = channel.id.startswith(BOARD) and all(
        ch.boundary != "node" for ch in summed.values()
    )
    if is_lost_board or any(_is_sibling(channel, ch) for ch in summed.values()):
        return replace(channel, doubt=f"no figure, so {channel.boundary} is partial")
    return channel
