"""One machine of a stage that several meters saw: its energy, each moment once, and whose it is.

A counter that several meters read counts over the union of their times. An estimate is of the
processes of its own meter: those add up. Each meter claims a part of the machine by its rule
(member.py). In a time of several meters the claims are added; where that makes more than the
machine, each meter gets its proportion.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sv.energy.attribution import Fields, join_attributions, sort_channels
from sv.energy.fleet.curve import Curve, join_curves
from sv.energy.fleet.member import EXCLUSIVE, WAITING, Claims, Member, join_channel, list_claims
from sv.energy.total import MEASURED_KINDS, choose_total

GRID_S = 10.0  # between two points of a machine's curve, where nothing happens in between


@dataclass(frozen=True)
class Machine:
    """What a stage used on one machine.

    Attributes:
        host, boot_id: Which machine, since which boot.
        members: Its meters.
        channels: Their channels joined, each with its place in the total.
        job: The stage's joules so far; None: not known.
        measured_j: The part of them that is no estimate.
        awake_s: Time in which some meter ran, without suspension.
        shares_j, counted_s: Of each meter: its part of the stage's joules, and of the time.
        attributions: Of each meter.
    """

    host: str
    boot_id: str
    members: list[Member]
    channels: list[Fields]
    job: Curve | None
    measured_j: float
    awake_s: float
    shares_j: list[float]
    counted_s: list[float]
    attributions: list[Fields]

    @property
    def offset_s(self) -> float:
        """Unix time less the machine's clock."""
        return find_offset(self.members)

    @property
    def attribution(self) -> Fields:
        """Of all its meters; the machine's processor time counts once."""
        joined = join_attributions([{"attribution": found} for found in self.attributions])
        busy = join_curves([member.busy for member in self.members]).last
        if "cpu_s_node" in joined["inputs"]:
            joined = {**joined, "inputs": {**joined["inputs"], "cpu_s_node": busy}}
        return joined

    @property
    def is_exclusive(self) -> bool:
        """Whether each of its meters claims the whole of it."""
        return all(found["rule"] == EXCLUSIVE for found in self.attributions)


def find_offset(members: Sequence[Member]) -> float:
    """Give Unix time less the clock of a machine, when the first of its meters began."""
    return min(members, key=lambda member: member.span_s[0]).offset_s


@dataclass
class Pot:
    """Energy that is shared by claims of one kind: joules of each interval, and who may claim."""

    kind: str
    joules: array
    holders: list[int]


def build_machine(members: Sequence[Member], unix_s: Iterable[float]) -> Machine:
    """Join the meters of one machine.

    Args:
        members: All of one host and boot, at least one.
        unix_s: Moments at which the stage's energy will be asked for.
    """
    head = members[0].lines.head
    names = list(dict.fromkeys(name for member in members for name in member.channels))
    joined = {name: join_channel(members, name) for name in names}
    channels = [channel for channel, _ in joined.values()]
    choose_total(channels)
    curves = {name: curve for name, (_, curve) in joined.items() if curve is not None}
    members = [_free_of_sharing(member, channels) for member in members]
    claims, attributions = zip(*(list_claims(member) for member in members), strict=True)
    machine = Machine(
        head["host"], head["boot_id"], list(members), channels, None, 0.0,
        join_curves([member.awake for member in members]).last,
        [0.0] * len(members), [0.0] * len(members), list(attributions),
    )  # fmt: skip
    asked_s = (at_s - machine.offset_s for at_s in unix_s)
    grid = _build_grid(members, curves, claims, asked_s)
    _count_time(machine, grid)
    if not any(ch["in_total"] and ch["energy_j"] is not None for ch in channels):
        return machine
    job_j = array("d", bytes(8 * max(0, len(grid) - 1)))
    measured_j = 0.0
    for pot in _fill_pots(machine, curves, grid):
        measured_j += _share_out(pot, machine, claims, grid, job_j)
    for i, member in enumerate(members):
        for channel in channels:
            own = member.channels.get(channel["id"], (None, None))[1]
            if channel["in_total"] and channel["kind"] == "estimated" and own is not None:
                machine.shares_j[i] += own.last
                _add_steps(job_j, own, grid)
    so_far = array("d", [0.0])
    for joules in job_j:
        so_far.append(so_far[-1] + joules)
    job = Curve(grid, so_far, grid[-1] - grid[0])
    return Machine(**{**vars(machine), "job": job, "measured_j": measured_j})


def _free_of_sharing(member: Member, channels: list[Fields]) -> Member:
    """Where nothing of a waiting machine was measured there is nothing to share."""
    measured = any(ch["in_total"] and ch["kind"] in MEASURED_KINDS for ch in channels)
    if member.rule == WAITING and not measured:
        return Member(**{**vars(member), "rule": EXCLUSIVE})
    return member


def _build_grid(
    members: Sequence[Member],
    curves: dict[str, Curve],
    claims: Sequence[Claims],
    asked_s: Iterable[float],
) -> array:
    """List the moments between which nobody begins or ends, and no claim changes."""
    moments = {at_s for member in members for at_s in member.span_s}
    first_s, last_s = min(moments), max(moments)
    for curve in curves.values():
        moments |= {curve.t_s[0], curve.t_s[-1]}
    for windows in claims:
        moments |= {until_s for until_s, _ in windows if until_s < last_s}
    moments |= {at_s for at_s in asked_s if first_s < at_s < last_s}
    for member in members:
        next_s = first_s
        for at_s in member.lines.t_s:
            if at_s >= next_s:
                moments.add(at_s)
                next_s = at_s + GRID_S
    return array("d", sorted(moments))


def _fill_pots(machine: Machine, curves: dict[str, Curve], grid: array) -> list[Pot]:
    """Sort the measured energy of the total by what may be claimed of it."""
    summable = {
        spec["id"]
        for member in machine.members
        for spec in member.lines.head["channels"]
        if spec["in_total"]
    }
    roles = sort_channels(machine.channels, summable)
    everybody = list(range(len(machine.members)))
    exclusive = {i for i in everybody if machine.members[i].rule == EXCLUSIVE}
    boards = [
        Pot(
            "gpu",
            _list_steps([curves[name]], grid),
            sorted(
                {i for i in everybody if name in machine.members[i].channels}
                | (exclusive if name in roles["gpu_inside"] else set())
            ),
        )
        for name in (*roles["gpu"], *roles["gpu_inside"])
    ]
    if not roles["node"]:
        parts = [(kind, [curves[name] for name in roles[kind]]) for kind in ("cpu", "dram")]
        return [*boards, *(Pot(kind, _list_steps(c, grid), everybody) for kind, c in parts if c)]
    host_j = _list_steps([curves[name] for name in roles["node"]], grid)
    inside_j = _list_steps([curves[name] for name in roles["gpu_inside"]], grid)
    for i, joules in enumerate(inside_j):
        host_j[i] = max(0.0, host_j[i] - joules)
    return [*boards, Pot("host", host_j, everybody)]


def _list_steps(curves: Sequence[Curve], grid: array) -> array:
    """Give the joules of several curves together in each interval of the grid."""
    steps = array("d", bytes(8 * max(0, len(grid) - 1)))
    for curve in curves:
        _add_steps(steps, curve, grid)
    return steps


def _add_steps(steps: array, curve: Curve, grid: array) -> None:
    first = max(0, bisect_left(grid, curve.t_s[0]) - 1)
    last = bisect_left(grid, curve.t_s[-1])
    before = curve.read(grid[first])
    for k in range(first, last):
        now = curve.read(grid[k + 1])
        steps[k] += now - before
        before = now


def _share_out(
    pot: Pot, machine: Machine, claims: Sequence[Claims], grid: array, job_j: array
) -> float:
    """Give each meter its part of a pot; returns the stage's joules of it."""
    wanted = {i: _list_wanted(machine.members[i], claims[i], pot.kind, grid) for i in pot.holders}
    sums = array("d", bytes(8 * len(job_j)))
    for first, values in wanted.values():
        for k, part in enumerate(values, start=first):
            sums[k] += part
    whole_j = 0.0
    for i, (first, values) in wanted.items():
        for k, part in enumerate(values, start=first):
            joules = pot.joules[k] * part / max(1.0, sums[k])
            machine.shares_j[i] += joules
            job_j[k] += joules
            whole_j += joules
    return whole_j


def _list_wanted(member: Member, claims: Claims, kind: str, grid: array) -> tuple[int, list[float]]:
    """Give a meter's claim in each interval of its time, and the first of these intervals."""
    first, last = (bisect_left(grid, at_s) for at_s in member.span_s)
    wanted, window = [], 0
    for k in range(first, last):
        while grid[k + 1] > claims[window][0]:
            window += 1
        wanted.append(claims[window][1][kind])
    return first, wanted


def _count_time(machine: Machine, grid: array) -> None:
    """Divide the machine's time among its meters; one that only waits has what is left."""
    for waiting in (False, True):
        ours = [i for i, m in enumerate(machine.members) if (m.rule == WAITING) == waiting]
        spans = {i: [bisect_left(grid, s) for s in machine.members[i].span_s] for i in ours}
        busy = array("l", bytes(array("l").itemsize * len(grid)))
        for first, last in spans.values():
            for k in range(first, last):
                busy[k] += 1
        if waiting:
            others = [m.span_s for m in machine.members if m.rule != WAITING]
            taken = [[bisect_left(grid, s) for s in span] for span in others]
            for first, last in taken:
                for k in range(first, last):
                    busy[k] = 0
        for i, (first, last) in spans.items():
            seconds = ((grid[k + 1] - grid[k]) / busy[k] for k in range(first, last) if busy[k])
            machine.counted_s[i] = sum(seconds)
