"""Whose energy it is: the meters of a machine, their claims on it, and each meter's part.

Rules (`sv.energy.config.ATTRIBUTIONS`):
- ``exclusive``: all of the machine. Right where nothing else uses it.
- ``cpu_share``: by processor time, job / machine.
- ``ceems``: as CEEMS does. Of the machine's power P without its GPUs: 0.9 P by processor time and,
  where RAPL counts both, by memory, in the proportion of RAPL's package and dram; 0.1 P in equal
  parts for each job. Without a node channel package by processor time, dram by memory. The 90/10
  split is CEEMS's assumption, not a measurement (its recording rules, v0.10, 2025).

GPU boards are the job's own and never shared. An estimate from the job's own processes is its own
already. Claims hold from one look at the use of the machine to the next, because they change.

A machine may have several meters of one stage. A counter that several of them read counts over the
union of their times; each claims its part by its rule, and where the claims make more than the
machine, each meter gets its proportion of it. Estimates add up. One meter is the common case.
"""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import hypot, inf
from typing import Any

from sv.energy.channels import MEASURED_KINDS, WHOLE_COVERED, build_channel, sum_group
from sv.energy.journal import Record
from sv.energy.record import Attribution, AttributionInputs, Channel, Rule
from sv.energy.samples import AttemptLines, Curve, join_curves, make_curve
from sv.energy.units import parse_utc, s_from_us
from sv.energy.witnesses import choose_total, compare_boards, drop_copies, sum_energy

EXCLUSIVE, CEEMS = "exclusive", "ceems"
# The machine that started jobs elsewhere: a part of everything by processor time, boards too.
WAITING = "waiting"
BY_USE, BY_JOBS = 0.9, 0.1  # CEEMS, see above
GPU = ("gpu_board", "gpu_module")
TOO_FEW_LOOKS = "fewer than two looks at the use of the machine"
OWN_METER = "the stage's own meter"  # it has no label
GRID_S = 10.0  # between two points of a shared machine's curve, where nothing happens in between
# Kind of energy -> the part of it that a meter claims, 0 to 1: ``host`` is the whole machine
# without its GPUs, ``gpu`` boards and modules.
Claim = Mapping[str, float]
KINDS = ("host", "cpu", "dram", "gpu")
ALL, NOTHING = dict.fromkeys(KINDS, 1.0), dict.fromkeys(KINDS, 0.0)


def claim_parts(
    rule: str, use: Mapping[str, float], cpu_j: float, dram_j: float, jobs: int
) -> Claim:
    """Return the parts of a machine's energy that a rule gives to a job.

    Args:
        rule: A rule of attribution, or `WAITING`.
        use: ``cpu`` and ``memory``: the job's part of what the machine used, 0 to 1.
        cpu_j: Energy of RAPL's packages in the same time.
        dram_j: Of its dram.
        jobs: Jobs on the machine.
    """
    if rule == EXCLUSIVE:
        return ALL
    cpu, memory = use["cpu"], use["memory"]
    if rule == WAITING:
        return dict.fromkeys(KINDS, cpu)
    if rule != CEEMS:
        return {**dict.fromkeys(KINDS, cpu), "gpu": 1.0}
    used = cpu
    if cpu_j > 0 and dram_j > 0:
        by_cpu = cpu_j / (cpu_j + dram_j)
        used = by_cpu * cpu + (1 - by_cpu) * memory
    return {"host": BY_USE * used + BY_JOBS / jobs, "cpu": cpu, "dram": memory, "gpu": 1.0}


def share(used_j: Mapping[str, float], claim: Claim) -> dict[str, float]:
    """Return a job's joules of a machine that it alone meters, by role (`sort_channels`).

    Args:
        used_j: Role -> joules of the machine.
        claim: The job's.
    """
    job_j = {"own": used_j["own"], "gpu": used_j["gpu"] * claim["gpu"]}
    if used_j["node"] <= 0:
        return job_j | {role: used_j[role] * claim[role] for role in ("cpu", "dram")}
    host_j = max(0.0, used_j["node"] - used_j["gpu_inside"])
    return job_j | {"node": used_j["gpu_inside"] * claim["gpu"] + host_j * claim["host"]}


def sort_channels(channels: Sequence[Channel], summable: set[str]) -> dict[str, list[str]]:
    """Sort the channels of the total and those inside it by how the rules treat them.

    Args:
        channels: Of a machine, with their place in the total.
        summable: Those that are not only cross-checks of others, once each board's counter was held
            against the integral of its power (`sv.energy.witnesses.compare_boards`).
    """
    roles: dict[str, list[str]] = {
        role: [] for role in ("node", "gpu_inside", "gpu", "cpu", "dram", "own")
    }
    by_node = any(ch.boundary == "node" and ch.in_total for ch in channels)
    for channel in channels:
        boundary, name = channel.boundary, channel.id
        if channel.energy_j is None or not (channel.in_total or by_node):
            continue
        if channel.kind not in MEASURED_KINDS:
            if channel.in_total:
                roles["own"].append(name)
        elif channel.in_total and boundary in GPU:
            roles["gpu"].append(name)
        elif name not in summable:
            continue  # a cross-check
        elif boundary in GPU:
            outer = (ch for ch in channels if ch.id in summable.intersection(channel.contained_in))
            if not any(ch.boundary in GPU for ch in outer):
                roles["gpu_inside"].append(name)
        elif boundary == "node" and channel.in_total:
            roles["node"].append(name)
        elif boundary in ("cpu_package", "dram"):
            roles["cpu" if boundary == "cpu_package" else "dram"].append(name)
    return roles


def compare_looks(before: Record, now: Record) -> dict[str, float]:
    """Return the job's part of processor time and of memory between two looks, 0 to 1."""
    job = now["job_cpu_us"] - before["job_cpu_us"]
    node = now["node_cpu_us"] - before["node_cpu_us"]
    held = before.get("job_bytes", 0) + now.get("job_bytes", 0)
    node_held = before.get("node_bytes", 0) + now.get("node_bytes", 0)
    # Ticks of 10 ms, and memory that several processes share, can make a part of more than 1.
    return {
        "cpu": min(1.0, job / node) if node > 0 else 0.0,
        "memory": min(1.0, held / node_held) if node_held > 0 else 0.0,
    }


def find_cpu_time(specs: Sequence[Record]) -> str | None:
    """Return the channel of the job's processor time; None where a meter has none."""
    return next((spec["id"] for spec in specs if spec["method"] == "cpu_time_x_power"), None)


def list_looks(lines: AttemptLines) -> list[tuple[int, Record]]:
    """List what job and machine had used, by the sample at which it was read; none half read."""
    cpu_time = find_cpu_time(lines.head["channels"])
    looks = [(i, {**use, "job_cpu_us": lines.get(cpu_time, i)}) for i, use in lines.usage.items()]
    return [(i, use) for i, use in looks if None not in use.values()]


def _sum_inputs(looks: Sequence[tuple[int, Record]], jobs: int) -> AttributionInputs:
    if len(looks) < 2:
        return AttributionInputs(jobs_on_node=jobs)
    first, last = looks[0][1], looks[-1][1]
    means = {}
    for key in ("job_bytes", "node_bytes"):
        held = [use[key] for _, use in looks if key in use]
        means[f"mean_{key}"] = round(sum(held) / len(held)) if held else None
    return AttributionInputs(
        jobs_on_node=jobs,
        cpu_s_job=s_from_us(last["job_cpu_us"] - first["job_cpu_us"]),
        cpu_s_node=s_from_us(last["node_cpu_us"] - first["node_cpu_us"]),
        looks=len(looks),
        **means,
    )


def join_attributions(found: Sequence[Attribution]) -> Attribution:
    """Join the attributions of several attempts, machines or meters; processor time is added up.

    Returns:
        As of one; the rule is ``mixed`` where they differ.
    """
    if len(found) == 1:
        return found[0]
    inputs = found[-1].inputs
    for key in ("cpu_s_job", "cpu_s_node", "looks"):
        values = [getattr(one.inputs, key) for one in found]
        known = [value for value in values if value is not None]
        if known:
            inputs = replace(inputs, **{key: sum(known)})
    rules = {one.rule for one in found}
    reasons = dict.fromkeys(one.reason for one in found if one.reason)
    rule: Rule = rules.pop() if len(rules) == 1 else "mixed"
    return Attribution(rule, inputs, "; ".join(reasons) or None)


@dataclass(frozen=True)
class MeterRun:
    """One start of one meter, up to its end or its last sample.

    Attributes:
        label: Of the process that it metered; None: the stage's own meter.
        start: 1 for the first start under this label, 2 after a requeue.
        lines: Of the journal.
        rule: A rule of attribution, or `WAITING`.
        channels: Id -> the channel's figures before any total was chosen.
        so_far: Id -> its joules so far at each sample; empty where they are not known.
        curves: Id -> the same as a curve, from the first to the last reading.
    """

    label: str | None
    start: int
    lines: AttemptLines
    rule: str
    channels: dict[str, Channel]
    so_far: dict[str, array]
    curves: dict[str, Curve]

    @property
    def busy(self) -> Curve:
        """Processor time of the machine, in seconds."""
        looks = list_looks(self.lines)
        busy_s = [s_from_us(use["node_cpu_us"]) for _, use in looks]
        return make_curve([self.lines.t_s[i] for i, _ in looks], busy_s)


def build_meter_run(label: str | None, start: int, lines: AttemptLines, rule: str) -> MeterRun:
    """Build a meter's channels from its lines."""
    built, so_far, curves = [], {}, {}
    for spec in lines.head["channels"]:
        channel, joules, known = build_channel(spec, lines)
        built.append(channel)
        so_far[channel.id] = joules
        if known:
            part = slice(known.start, known.stop)
            curve = make_curve(lines.t_s[part], joules[part])
            first_s, last_s = lines.span_s
            read_s = (channel.samples.covered or 0.0) * (last_s - first_s)
            curves[channel.id] = replace(curve, covered_s=min(curve.covered_s, read_s))
    channels = {channel.id: channel for channel in drop_copies(built)}
    return MeterRun(label, start, lines, rule, channels, so_far, curves)


def list_claims(run: MeterRun) -> tuple[list[tuple[float, Claim]], Attribution]:
    """Return what a meter claims of its machine, until when, and its attribution."""
    lines = run.lines
    jobs, looks = lines.config.get("jobs_on_node", 1), list_looks(lines)
    rule: Any = "cpu_share" if run.rule == WAITING else run.rule
    found = Attribution(rule, _sum_inputs(looks, jobs), None)
    if rule == EXCLUSIVE:
        return [(inf, ALL)], found
    if len(looks) < 2:
        return [(inf, NOTHING)], replace(found, reason=TOO_FEW_LOOKS)
    claims = []
    for (a, before), (b, now) in pairwise(looks):
        used_j = dict.fromkeys(("cpu_package", "dram"), 0.0)
        for name in run.curves:
            channel = run.channels[name]
            if channel.boundary in used_j and channel.kind != "estimated":
                used_j[channel.boundary] += run.so_far[name][b] - run.so_far[name][a]
        use = compare_looks(before, now)
        claims.append((lines.t_s[b], claim_parts(run.rule, use, *used_j.values(), jobs)))
    # Before the first and after the last look (a full disk, a killed meter): as next to it.
    claims[-1] = (inf, claims[-1][1])
    return claims, found


@dataclass(frozen=True)
class Machine:
    """What a stage used on one machine.

    Attributes:
        runs: Its meters.
        channels: Their channels joined, each with its place in the total.
        attributions: Of each meter.
        energy_j: The stage's joules; where all of the machine is the stage's, as it was counted.
        alone: Whether its one meter is the only one of the attempt.
        job: The stage's joules so far; None: not known.
        parts: Id of a measured channel in the total -> the stage's part of it, 0 to 1; all of one
            that is missing.
        shares_j: Of each meter: its part of the stage's joules.
        counted_s: Of each meter: its part of the machine's time.
    """

    runs: Sequence[MeterRun]
    channels: Sequence[Channel]
    attributions: Sequence[Attribution]
    energy_j: float | None
    alone: bool
    job: Curve | None
    parts: Mapping[str, float]
    shares_j: Sequence[float]
    counted_s: Sequence[float]

    @property
    def host(self) -> str:
        """Its name."""
        return self.runs[0].lines.head["host"]

    @property
    def attribution(self) -> Attribution:
        """Of all its meters; the machine's processor time counts once."""
        joined = join_attributions(self.attributions)
        if len(self.runs) == 1 or joined.inputs.cpu_s_node is None:
            return joined
        busy_s = join_curves(run.busy for run in self.runs).last
        return replace(joined, inputs=replace(joined.inputs, cpu_s_node=busy_s))


def find_start(runs: Sequence[MeterRun]) -> tuple[float, float]:
    """Return when the first meter of a machine began: Unix time, and the machine's clock."""
    lines = min(runs, key=lambda run: run.lines.span_s[0]).lines
    return parse_utc(lines.head["started_utc"]), lines.span_s[0]


def find_zero(runs: Sequence[MeterRun]) -> float:
    """Return the Unix time at which the clock of a machine was 0."""
    unix_s, at_s = find_start(runs)
    return unix_s - at_s


def build_machine(runs: Sequence[MeterRun], marks_s: Iterable[float], *, alone: bool) -> Machine:
    """Join the meters of one machine and share its energy among them.

    Args:
        runs: All of one host and boot, at least one.
        marks_s: Times of its clock at which the stage's energy will be asked for.
        alone: Whether the attempt has this one meter alone: its energy is then known at each of
            its samples.
    """
    names = dict.fromkeys(name for run in runs for name in run.channels)
    joined = {name: _join_channel(runs, name) for name in names}
    listed = [channel for channel, _ in joined.values()]
    channels = choose_total(listed)
    curves = {name: curve for name, (_, curve) in joined.items() if curve is not None}
    if not any(ch.in_total and ch.kind in MEASURED_KINDS for ch in channels):
        # Where nothing of a waiting machine was measured there is nothing to share.
        runs = [replace(run, rule=EXCLUSIVE) if run.rule == WAITING else run for run in runs]
    claims, attributions = zip(*(list_claims(run) for run in runs), strict=True)
    summable = {channel.id for channel in compare_boards(listed) if channel.in_total}
    roles = sort_channels(channels, summable)
    energy_j = sum_energy(channels)[0]
    if alone:
        job, *whose = _account_alone(runs[0], channels, roles, claims[0], attributions[0])
    else:
        job, *whose = _account(runs, roles, curves, claims, marks_s)
    if energy_j is None:
        job = None
    elif any(found.rule != EXCLUSIVE for found in attributions):
        energy_j = None if job is None else job.last
    return Machine(runs, channels, attributions, energy_j, alone, job, *whose)


# Whose the energy of a machine is: the last four attributes of `Machine`.
Account = tuple[Curve | None, Mapping[str, float], Sequence[float], Sequence[float]]


def _account_alone(
    run: MeterRun,
    channels: Sequence[Channel],
    roles: Mapping[str, Sequence[str]],
    claims: Sequence[tuple[float, Claim]],
    attribution: Attribution,
) -> Account:
    """Share a machine between the one meter of an attempt and the other users of the machine.

    The job's joules are known at each sample; from one look at the use of the machine to the next
    they grow evenly with the machine's.
    """
    first_s, last_s = run.lines.span_s
    seconds = last_s - first_s
    known = [run.so_far[ch.id] for ch in channels if ch.in_total and run.so_far[ch.id]]
    node_j = array("d", (sum(values) for values in zip(*known, strict=True)))
    if attribution.reason or not node_j:
        return None, {}, [0.0], [seconds]
    if attribution.rule == EXCLUSIVE:
        return Curve(run.lines.t_s, node_j, seconds), {}, [node_j[-1]], [seconds]
    looks = [i for i, _ in list_looks(run.lines)]
    ratios = []
    used_j, shared_j = (dict.fromkeys(roles, 0.0) for _ in range(2))
    for (a, b), (_, claim) in zip(pairwise(looks), claims, strict=True):
        window_j = {
            role: sum(run.so_far[name][b] - run.so_far[name][a] for name in names)
            for role, names in roles.items()
        }
        part_j = share(window_j, claim)
        whole_j = node_j[b] - node_j[a]
        ratios.append(sum(part_j.values()) / whole_j if whole_j > 0 else 0.0)
        used_j = {role: joules + window_j[role] for role, joules in used_j.items()}
        shared_j = {role: joules + part_j.get(role, 0.0) for role, joules in shared_j.items()}
    job_j, window = array("d", [0.0]), 0
    for i in range(1, len(node_j)):
        # Before the first and after the last look (a full disk, a killed meter): as next to it.
        while window < len(ratios) - 1 and i > looks[window + 1]:
            window += 1
        job_j.append(job_j[-1] + ratios[window] * (node_j[i] - node_j[i - 1]))
    parts = _list_parts(roles, used_j, shared_j)
    return Curve(run.lines.t_s, job_j, seconds), parts, [job_j[-1]], [seconds]


def _list_parts(
    roles: Mapping[str, Sequence[str]], used_j: Mapping[str, float], shared_j: Mapping[str, float]
) -> dict[str, float]:
    """Return the stage's part of each measured channel in the total, by what its role used."""
    return {
        name: shared_j[role] / used_j[role]
        for role in ("node", "gpu", "cpu", "dram")
        for name in roles[role]
        if used_j[role] > 0
    }


def _join_channel(runs: Sequence[MeterRun], name: str) -> tuple[Channel, Curve | None]:
    """Join what the meters of one machine read of one channel.

    Returns:
        The channel, and its energy over time; None where it is not known, and of an estimate:
        that is each meter's own.
    """
    known = [run for run in runs if name in run.curves]
    if not known:
        return next(run.channels[name] for run in runs if name in run.channels), None
    joined = sum_group([run.channels[name] for run in known])
    # What one meter sees around it is around it, whether the others see that or not.
    outer = dict.fromkeys(o for run in known for o in run.channels[name].contained_in)
    joined = replace(joined, contained_in=tuple(outer))
    if joined.kind == "estimated":
        return joined, None
    # What is the machine's, not a board, is due to all its meters, also where one sees no such
    # channel; a machine that waits has next to no part of it.
    blind = [
        run for run in runs
        if name not in run.curves and run.rule != WAITING
        and (name in run.channels or joined.boundary not in GPU)
    ]  # fmt: skip
    if len(known) == 1 and not blind:
        return joined, known[0].curves[name]
    curve = join_curves(run.curves[name] for run in known)
    clocks = (make_curve(r.lines.t_s, r.lines.awake_s) for r in (*known, *blind))
    held_s = join_curves(clocks).covered_s
    covered = min(1.0, curve.covered_s / held_s) if held_s > 0 else 1.0
    if blind and covered < WHOLE_COVERED:
        doubt = (
            f"not read in {100 * (1 - covered):.0f} % of its meters' time, by {len(blind)} of "
            f"{len(known) + len(blind)} (first: {blind[0].label or OWN_METER}): a lower bound"
        )
        joined = replace(joined, doubt="; ".join(filter(None, (joined.doubt, doubt))))
    # What more than one of them read is in the sum more than once.
    once = curve.last / joined.energy_j if joined.energy_j else 1.0
    u = joined.u_energy_j
    if u is not None and u.total is not None:
        assert u.gap_fill is not None and u.sensor is not None
        assert u.edge is not None and u.resolution is not None
        u = replace(u, gap_fill=u.gap_fill * once, sensor=u.sensor * once)
        parts = (u.edge, u.resolution, u.gap_fill, u.sensor, u.sampling or 0.0)
        u = replace(u, total=hypot(*parts))
    samples = replace(joined.samples, covered=covered)
    return replace(joined, energy_j=curve.last, u_energy_j=u, samples=samples), curve


def _list_grid(
    runs: Sequence[MeterRun],
    curves: Mapping[str, Curve],
    claims: Sequence[Sequence[tuple[float, Claim]]],
    marks_s: Iterable[float],
) -> array:
    """List the times between which no meter begins or ends, and no claim changes."""
    times = {at_s for run in runs for at_s in run.lines.span_s}
    first_s, last_s = min(times), max(times)
    for curve in curves.values():
        times |= {curve.t_s[0], curve.t_s[-1]}
    for windows in claims:
        times |= {until_s for until_s, _ in windows if until_s < last_s}
    times |= {at_s for at_s in marks_s if first_s < at_s < last_s}
    for run in runs:
        next_s = first_s
        for at_s in run.lines.t_s:
            if at_s >= next_s:
                times.add(at_s)
                next_s = at_s + GRID_S
    return array("d", sorted(times))


def _account(
    runs: Sequence[MeterRun],
    roles: Mapping[str, Sequence[str]],
    curves: Mapping[str, Curve],
    claims: Sequence[Sequence[tuple[float, Claim]]],
    marks_s: Iterable[float],
) -> Account:
    """Share a machine's energy and time among its meters, interval by interval."""
    import numpy as np  # noqa: PLC0415 - a stage of one meter need not pay for it

    times = _list_grid(runs, curves, claims, marks_s)
    grid = np.array(times)
    middle, width = (grid[1:] + grid[:-1]) / 2, np.diff(grid)
    spans = np.array([run.lines.span_s for run in runs])
    active = (spans[:, :1] <= middle) & (middle <= spans[:, 1:])  # (meters, intervals)

    def list_steps(curve: Curve) -> np.ndarray:
        return np.diff(np.interp(grid, curve.t_s, curve.value))

    def sum_steps(role: str) -> np.ndarray:
        return sum((list_steps(curves[name]) for name in roles[role]), np.zeros(len(middle)))

    def list_wanted(kind: str, holders: Sequence[bool]) -> np.ndarray:
        """Return each meter's claim in each interval, (meters, intervals)."""
        wanted = [
            np.array([claim[kind] for _, claim in windows])[
                np.searchsorted([until_s for until_s, _ in windows], middle)
            ]
            for windows in claims
        ]
        return np.array(wanted) * active * np.array(holders)[:, None]

    # Of energy that is shared by claims of one kind: whose, kind, joules, who may claim.
    pools = []
    for name in (*roles["gpu"], *roles["gpu_inside"]):
        # Who reads a board has it; inside of a machine's power it is whoever has the machine.
        whole = name in roles["gpu_inside"]
        holders = [name in run.channels or (whole and run.rule == EXCLUSIVE) for run in runs]
        pools.append(("node" if whole else "gpu", "gpu", list_steps(curves[name]), holders))
    everyone = [True] * len(runs)
    if roles["node"]:
        host_j = sum_steps("node") - sum_steps("gpu_inside")
        pools.append(("node", "host", np.maximum(host_j, 0.0), everyone))
    else:
        pools += [(kind, kind, sum_steps(kind), everyone) for kind in ("cpu", "dram")]
    parts_j = np.zeros((len(runs), len(middle)))
    used_j, shared_j = (dict.fromkeys(roles, 0.0) for _ in range(2))
    for role, kind, joules, holders in pools:
        wanted = list_wanted(kind, holders)
        part_j = joules * wanted / np.maximum(1.0, wanted.sum(axis=0))
        parts_j += part_j
        used_j[role] += float(joules.sum())
        shared_j[role] += float(part_j.sum())
    for name in roles["own"]:
        for i, run in enumerate(runs):
            if name in run.curves:
                parts_j[i] += list_steps(run.curves[name])
    works = active & np.array([run.rule != WAITING for run in runs])[:, None]
    counted = np.where(works.any(axis=0), works, active)  # one that only waits has what is left
    counted_s = (counted * width / np.maximum(1, counted.sum(axis=0))).sum(axis=1)
    so_far = np.concatenate([[0.0], np.cumsum(parts_j.sum(axis=0))])
    job = Curve(times, array("d", so_far), times[-1] - times[0])
    parts = _list_parts(roles, used_j, shared_j)
    return job, parts, parts_j.sum(axis=1).tolist(), counted_s.tolist()
