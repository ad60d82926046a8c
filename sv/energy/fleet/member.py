"""One meter of a stage that has several: its channels as curves, and what it claims of its machine.

A claim is the part of the machine that a meter's processes have by the rule, 0 to 1, of each kind
of energy: ``host`` (the whole machine without its GPUs), ``cpu``, ``dram``, ``gpu`` (boards).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import hypot, inf

from sv.energy.attribution import (
    TOO_FEW_LOOKS,
    Fields,
    compare_looks,
    list_looks,
    sum_inputs,
    weigh_use,
)
from sv.energy.channel_figures import build_channel, find_places
from sv.energy.fleet.curve import Curve, join_curves, make_curve
from sv.energy.samples import AttemptLines
from sv.energy.total import sum_group
from sv.energy.units import parse_utc, s_from_us

EXCLUSIVE, CEEMS = "exclusive", "ceems"
# The machine that started jobs elsewhere: a part of everything by processor time, boards too.
WAITING = "waiting"
KINDS = ("host", "cpu", "dram", "gpu")
ALL, NOTHING = dict.fromkeys(KINDS, 1.0), dict.fromkeys(KINDS, 0.0)
Claims = list[tuple[float, dict[str, float]]]  # until when, the part of each kind


@dataclass(frozen=True)
class Member:
    """One attempt of one meter.

    Attributes:
        label: Of the process that it metered; None: the stage's own meter.
        start: 1 for the first attempt in its journal, 2 after a requeue.
        lines: Of the journal.
        rule: A rule of attribution, or `WAITING`.
        channels: Id -> the channel's figures before any total was chosen, and its energy.
    """

    label: str | None
    start: int
    lines: AttemptLines
    rule: str
    channels: dict[str, tuple[Fields, Curve | None]]

    @property
    def offset_s(self) -> float:
        """Unix time less the machine's clock, when the attempt began."""
        begin_s = self.lines.t_s[0] if self.lines.t_s else self.lines.head["t_s"]
        return parse_utc(self.lines.head["started_utc"]) - begin_s

    @property
    def span_s(self) -> tuple[float, float]:
        """First and last sample on the machine's clock; the same moment where there are none."""
        t_s = self.lines.t_s
        return (t_s[0], t_s[-1]) if t_s else (self.lines.head["t_s"],) * 2

    @property
    def awake(self) -> Curve:
        """Seconds in which the machine was not suspended."""
        return make_curve(self.lines.t_s, self.lines.awake_s)

    @property
    def busy(self) -> Curve:
        """Processor time of the machine, in seconds."""
        looks = list_looks(self.lines)
        busy_s = [s_from_us(use["node_cpu_us"]) for _, use in looks]
        return make_curve([self.lines.t_s[i] for i, _ in looks], busy_s)


def build_member(label: str | None, start: int, lines: AttemptLines, rule: str) -> Member:
    """Build a meter's channels from its lines."""
    channels: dict[str, tuple[Fields, Curve | None]] = {}
    for spec in lines.head["channels"]:
        channel, so_far = build_channel(spec, lines)
        curve = None
        if channel["energy_j"] is not None:
            places = find_places(spec, lines)
            known = slice(places[0], places[-1] + 1)
            curve = make_curve(lines.t_s[known], so_far[known])
        channels[channel["id"]] = (channel, curve)
    return Member(label, start, lines, rule, channels)


def list_claims(member: Member) -> tuple[Claims, Fields]:
    """Give what a meter claims of its machine, window by window, and its ``attribution``."""
    config = member.lines.head.get("config") or {}
    jobs, looks = config.get("jobs_on_node", 1), list_looks(member.lines)
    rule = "cpu_share" if member.rule == WAITING else member.rule
    found = {"rule": rule, "inputs": sum_inputs(looks, jobs), "reason": None}
    if rule == EXCLUSIVE:
        return [(inf, ALL)], found
    if len(looks) < 2:
        return [(inf, NOTHING)], {**found, "reason": TOO_FEW_LOOKS}
    claims: Claims = []
    for (a, before), (b, now) in pairwise(looks):
        use = compare_looks(before, now)
        claim = {**dict.fromkeys(KINDS, use["cpu"]), "gpu": 1.0}
        if member.rule == WAITING:
            claim["gpu"] = use["cpu"]
        elif rule == CEEMS:
            span = (member.lines.t_s[a], member.lines.t_s[b])
            cpu_j, dram_j = (_sum_j(member, name, span) for name in ("cpu_package", "dram"))
            claim |= {"host": weigh_use(cpu_j, dram_j, use, jobs), "dram": use["memory"]}
        claims.append((member.lines.t_s[b], claim))
    # Before the first and after the last look (a killed meter): as beside it.
    claims[-1] = (inf, claims[-1][1])
    return claims, found


def _sum_j(member: Member, boundary: str, span: tuple[float, float]) -> float:
    curves = [
        curve
        for channel, curve in member.channels.values()
        if channel["boundary"] == boundary and channel["kind"] != "estimated" and curve is not None
    ]
    return sum(curve.read(span[1]) - curve.read(span[0]) for curve in curves)


def join_channel(members: Sequence[Member], name: str) -> tuple[Fields, Curve | None]:
    """Join what the meters of one machine say of one channel.

    Returns:
        The channel as the sidecar has it, and its energy over time; None where nobody knows it,
        and of an estimate: that is each meter's own.
    """
    holders = [member for member in members if name in member.channels]
    known = [m for m in holders if m.channels[name][1] is not None]
    if not known:
        return dict(holders[0].channels[name][0]), None
    joined = sum_group([member.channels[name][0] for member in known])
    if joined["kind"] == "estimated":
        return joined, None
    curves = [curve for member in known if (curve := member.channels[name][1]) is not None]
    if len(holders) == 1:
        return joined, curves[0]
    curve = join_curves(curves)
    _use_once(joined, curve)
    held_s = join_curves([holder.awake for holder in holders]).covered_s
    joined["samples"]["covered"] = min(1.0, curve.covered_s / held_s) if held_s > 0 else 1.0
    return joined, curve


def _use_once(joined: Fields, curve: Curve) -> None:
    """Take out of a sum over meters what more than one of them read."""
    part = curve.last / joined["energy_j"] if joined["energy_j"] else 1.0
    joined["energy_j"] = curve.last
    u = joined["u_energy_j"]
    if u is None or u["total"] is None:
        return
    parts = {key: u[key] for key in ("edge", "resolution")}
    parts |= {key: u[key] * part for key in ("gap_fill", "sensor")}
    joined["u_energy_j"] = {**u, **parts, "total": hypot(*parts.values())}
