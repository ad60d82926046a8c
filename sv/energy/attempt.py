"""One attempt of a stage: what its meters counted, from their journals to the record.

A pure function of the journals: the stage's own, and those of its meters elsewhere
(`sv.energy.nodes`). Machines are distinguished by their boot; attribution.py counts each once.
An attempt of one meter alone is the same with one machine, whose channels do not name their host.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

from sv.energy.attribution import (
    OWN_METER,
    WAITING,
    Machine,
    MeterRun,
    build_machine,
    build_meter_run,
    find_start,
    find_zero,
    join_attributions,
)
from sv.energy.carbon import apply_factors, join_carbon
from sv.energy.channels import (
    MEASURED_KINDS,
    compute_crosschecks,
    list_boundaries,
    sum_uncertainty,
)
from sv.energy.factors import CarbonFactor, parse_factor
from sv.energy.journal import RESUMED, STOPPED
from sv.energy.nodes import SIBLING, list_jobs
from sv.energy.processes import get_machine
from sv.energy.record import Attempt, Carbon, Mark, Meter, Phase, Pue
from sv.energy.samples import AttemptLines, StageJournals
from sv.energy.units import format_utc, kwh_from_j, parse_utc, sum_known
from sv.energy.witnesses import count_measured, list_doubts, sum_energy

PHASE = "phase"  # a mark that begins a phase; its ``name`` says which
NO_TIME = "said after the last sample of a killed meter"
NOT_KNOWN = "the energy is not known"
# Carbon factors hold for minutes: this many seconds between two points of energy are near enough.
POINT_S = 10.0
# A meter that begins so much later, or ends so much earlier, was not there all the time.
LATE_S = 60.0
MATTERS = 0.01  # part of the energy below which a machine's boundary changes no comparison
GPU = {"gpu_board", "gpu_module"}  # a machine without one covers no less; a lost one is doubted
# What a mark's own fields are called in a sidecar: not in its payload.
_MARK_FIELDS = ("mark", "t_s", "energy_kwh", "energy_reason")


def build_attempt(number: int, lines: AttemptLines, journals: StageJournals | None) -> Attempt:
    """Build the figures of an attempt.

    Args:
        number: 1 for the first attempt of the stage.
        lines: Of the stage's own meter. Without an end line it was interrupted, and the figures
            end with the last sample.
        journals: Of its other meters; None: there are none.
    """
    head, end = lines.head, lines.end
    machines = build_machines(lines, journals)
    alone = machines[0].alone
    channels = [
        channel if alone else replace(channel, host=machine.host)
        for machine in machines
        for channel in machine.channels
    ]
    energy_kwh = _sum_kwh(machine.energy_j for machine in machines)
    start_s, end_s = lines.span_s
    duration_s = end_s - start_s
    status = end["status"] if end else "interrupted"
    # Why the energy that one meter alone counts is not known, or is 0.
    reason = sum_energy(channels)[1] or machines[0].attribution.reason if alone else None
    doubts = [
        doubt if alone else f"{machine.host}: {doubt}"
        for machine in machines
        for doubt in list_doubts(machine.channels)
    ]
    meters = _list_meters(machines, journals or StageJournals(), status, reason)
    if not alone:
        reason = _explain(machines, meters)
    uncertainty_kwh, uncertainty_reason = _sum_uncertainties(machines)
    carbon = _build_carbon(machines, head["pue"]["value"])
    marks = _build_marks(machines, lines)
    if status == "failed" and marks and marks[-1].mark == STOPPED:
        status = "stopped"
    awake_s = lines.awake_s[-1] - lines.awake_s[0] if lines.awake_s else 0.0
    return Attempt(
        attempt=number,
        status=status,
        exit_code=end["exit_code"] if end else None,
        resumed=_is_resumed(lines, journals),
        host=head["host"],
        boot_id=head["boot_id"],
        started_utc=head["started_utc"],
        boot_s=(start_s, end_s),
        duration_s=duration_s,
        suspended_s=max(0.0, duration_s - awake_s),
        clock_step_s=_find_clock_step(lines),
        argv=tuple(head["argv"]),
        git=head["git"],
        energy_kwh=energy_kwh,
        energy_node_kwh=_sum_kwh(sum_energy(machine.channels)[0] for machine in machines),
        uncertainty_kwh=uncertainty_kwh,
        uncertainty_reason=uncertainty_reason,
        measured_fraction=_find_measured(machines),
        boundary=list_boundaries(channels),
        attribution=join_attributions([machine.attribution for machine in machines]),
        reason="; ".join(filter(None, (reason, *doubts))) or None,
        co2_g=carbon.co2_g,
        carbon=carbon,
        pue=Pue(**head["pue"]),
        period_s=head["period_s"],
        max_gap_s=max((now - before for before, now in pairwise(lines.t_s)), default=None),
        meter_cpu_s=end["meter_cpu_s"] if end else None,
        metadata=tuple(line["facts"] for line in lines.facts),
        channels=tuple(channels),
        crosschecks=compute_crosschecks(channels),
        marks=tuple(marks),
        phases=tuple(_build_phases(marks, duration_s, energy_kwh)),
        meters=tuple(meters),
    )


def build_machines(lines: AttemptLines, journals: StageJournals | None) -> list[Machine]:
    """Join the meters of an attempt machine by machine; the first is of the stage's own meter."""
    if journals is None:
        run = build_meter_run(None, 1, lines, _get_rule(lines))
        return [build_machine([run], (), alone=True)]
    runs = [build_meter_run(None, 1, lines, _choose_rule(lines, journals))]
    for label, groups in sorted(journals.attempts.items()):
        for start, group in enumerate(groups, start=1):
            runs.append(build_meter_run(label, start, group, _get_rule(group)))
    machines: dict[str, list[MeterRun]] = {}
    for run in runs:
        machine = get_machine(run.lines.head["boot_id"], run.lines.head["host"])
        machines.setdefault(machine, []).append(run)
    zeros_s = [find_zero(group) for group in machines.values()]
    marked_s = [
        line["t_s"] + zero_s
        for group, zero_s in zip(machines.values(), zeros_s, strict=True)
        for run in group
        for line in run.lines.marks
        if line["t_s"] is not None
    ]
    return [
        build_machine(group, [unix_s - zero_s for unix_s in marked_s], alone=False)
        for group, zero_s in zip(machines.values(), zeros_s, strict=True)
    ]


def list_points(machines: Sequence[Machine]) -> list[tuple[float, float]]:
    """List Unix time and the stage's joules so far, where those of one machine are known.

    The times are those of the start by the wall clock, and from then on by one that is never set.
    One meter's samples are thinned to `POINT_S`; a shared machine's curve is so already.
    """
    known = [machine for machine in machines if machine.job is not None]
    points: list[tuple[float, float]] = []
    if len(known) == 1:
        (machine,) = known
        unix_begin_s, begin_s = find_start(machine.runs)
        last = len(machine.job.t_s) - 1
        for i, (at_s, joules) in enumerate(zip(machine.job.t_s, machine.job.value, strict=True)):
            unix_s = unix_begin_s + at_s - begin_s
            if not machine.alone or not points or i == last or unix_s - points[-1][0] >= POINT_S:
                points.append((unix_s, joules))
        return points
    jobs = [(machine.job, find_zero(machine.runs)) for machine in known]
    times = sorted({at_s + zero_s for job, zero_s in jobs for at_s in job.t_s})
    return [(at_s, sum(job.read(at_s - zero_s) for job, zero_s in jobs)) for at_s in times]


def _get_rule(lines: AttemptLines) -> str:
    return lines.config.get("attribution", "exclusive")


def _choose_rule(lines: AttemptLines, journals: StageJournals) -> str:
    """Return the rule for the machine that the stage was started on.

    A job whose machine 0 has no meter of its own has it below the stage's: that one works too.
    """
    jobs, begun = list_jobs({*journals.expected, *journals.attempts})
    waits = lines.config.get("submit_attribution", "cpu_share") == "cpu_share" and jobs == begun
    return WAITING if waits else _get_rule(lines)


def _sum_kwh(joules: Iterable[float | None]) -> float | None:
    summed_j = sum_known(joules)
    return None if summed_j is None else kwh_from_j(summed_j)


def _find_measured(machines: Sequence[Machine]) -> float | None:
    """Return the measured part of the stage's energy; None where there is none."""
    known = [(machine, machine.energy_j) for machine in machines if machine.energy_j is not None]
    known_j = sum(stage_j for _, stage_j in known)
    measured_j = sum(count_measured(machine.channels, stage_j) for machine, stage_j in known)
    return measured_j / known_j if known_j else None


def _sum_uncertainties(machines: Sequence[Machine]) -> tuple[float | None, str | None]:
    """Add up the uncertainties of the machines, of each channel by the stage's part of it."""
    summed_j, reasons = 0.0, []
    for machine in machines:
        uncertainty_j, reason = sum_uncertainty(machine.channels, machine.parts)
        if uncertainty_j is None or machine.energy_j is None:
            reason = reason or "its energy is not known"
            reasons.append(reason if machine.alone else f"{machine.host}: {reason}")
        else:
            summed_j += uncertainty_j
    return (None, "; ".join(reasons)) if reasons else (kwh_from_j(summed_j), None)


def _find_clock_step(lines: AttemptLines) -> float | None:
    """Return by how much the wall clock was set; it enters no other figure."""
    end = lines.end
    if end is None or "ended_utc" not in end:
        return None
    by_wall_s = parse_utc(end["ended_utc"]) - parse_utc(lines.head["started_utc"])
    return round(by_wall_s - (end["t_s"] - lines.head["t_s"]), 3)


# Carbon


def _build_carbon(machines: Sequence[Machine], pue: float) -> Carbon:
    """Apply to each machine's energy its own factors, and add up the grams."""
    found = []
    for machine in machines:
        zero_s = find_zero(machine.runs)
        factors = [factor for run in machine.runs for factor in list_factors(run.lines, zero_s)]
        if len(machine.runs) > 1:  # what a second meter received again is left out
            kept: list[CarbonFactor] = []
            last = None
            for factor in sorted(factors, key=lambda f: f.valid_from_utc or ""):
                observation = replace(factor, valid_from_utc=None, age_s=None)
                if observation != last:
                    kept.append(factor)
                    last = observation
            factors = kept
        carbon = apply_factors(list_points([machine]), factors, pue)
        if not machine.alone:
            intervals = tuple(replace(part, host=machine.host) for part in carbon.intervals)
            carbon = replace(carbon, intervals=intervals)
        found.append(carbon)
    return join_carbon(found, sum_known(machine.energy_j for machine in machines))


def list_factors(lines: AttemptLines, zero_s: float) -> list[CarbonFactor]:
    """List the carbon factors of a meter as they came.

    They are applied from when the journal has them by the clock that is never set, as the points
    of energy are. How old an observation was is by the wall clock as it was then.

    Args:
        lines: Of the meter.
        zero_s: Unix time at which its machine's clock was 0 (`find_zero`).
    """
    factors = []
    for line in lines.factors:
        factor = parse_factor(line["factor"])
        if factor.valid_from_utc is not None:
            if factor.observed_utc is not None:
                age_s = parse_utc(factor.valid_from_utc) - parse_utc(factor.observed_utc)
                factor = replace(factor, age_s=age_s)
            factor = replace(factor, valid_from_utc=format_utc(zero_s + line["t_s"]))
        factors.append(factor)
    if "carbon" in lines.head:  # a journal of before factors had lines of their own
        factors.append(parse_factor(lines.head["carbon"]))
    return factors


# Marks and phases


def _build_marks(machines: Sequence[Machine], own: AttemptLines) -> list[Mark]:
    """Build the marks of all meters, with the energy of all machines, in order of time.

    Times are of the clock of the stage's own machine, which is the first.
    """
    zeros_s = [find_zero(machine.runs) for machine in machines]
    ahead_s = [zeros_s[0] - zero_s for zero_s in zeros_s]
    known = [(m.job, shift) for m, shift in zip(machines, ahead_s, strict=True) if m.job]
    marks = []
    for machine, shift_s in zip(machines, ahead_s, strict=True):
        for run in machine.runs:
            for line in run.lines.marks:
                payload = {k: v for k, v in line["said"].items() if k not in _MARK_FIELDS}
                mark = Mark(line["said"]["mark"], None, None, NO_TIME, payload, run.label)
                if line["t_s"] is not None and run.lines.t_s:
                    first_s, last_s = run.lines.span_s
                    at_s = line["t_s"] if machine.alone else min(max(line["t_s"], first_s), last_s)
                    at_s -= shift_s
                    mark = replace(
                        mark,
                        t_s=max(0.0, at_s - own.span_s[0]),
                        energy_kwh=_sum_kwh(job.read(at_s + shift) for job, shift in known),
                        energy_reason=None if known else NOT_KNOWN,
                    )
                marks.append(mark)
    return sorted(marks, key=lambda mark: float("inf") if mark.t_s is None else mark.t_s)


def _build_phases(
    marks: Sequence[Mark], duration_s: float, energy_kwh: float | None
) -> list[Phase]:
    """Return time and energy of each phase of an attempt: from its mark to the next or the end."""
    begins = [mark for mark in marks if mark.mark == PHASE and mark.t_s is not None]
    ends = [(mark.t_s, mark.energy_kwh) for mark in begins[1:]] + [(duration_s, energy_kwh)]
    phases = []
    for mark, (end_s, end_kwh) in zip(begins, ends, strict=False):
        known = mark.energy_kwh is not None and end_kwh is not None
        phase_kwh = end_kwh - mark.energy_kwh if known else None
        name, seconds = str(mark.payload.get("name", "")), max(0.0, end_s - mark.t_s)
        phases.append(Phase(name, seconds, phase_kwh))
    return phases


def _is_resumed(lines: AttemptLines, journals: StageJournals | None) -> bool:
    """Return whether the attempt resumed what lies before it.

    A requeued job resumes what the same attempt left: only the first of its starts that left
    anything tells.
    """
    if RESUMED in _list_names(lines):
        return True
    for groups in journals.attempts.values() if journals else ():
        for group in groups:
            names = _list_names(group)
            if RESUMED in names:
                return True
            is_complete = group.end is not None and group.end["status"] == "complete"
            if is_complete or any(name != PHASE for name in names):
                break
    return False


def _list_names(lines: AttemptLines) -> list[str]:
    return [line["said"]["mark"] for line in lines.marks]


# The meters one by one, and what is missing


def _list_meters(
    machines: Sequence[Machine], journals: StageJournals, status: str, reason: str | None
) -> list[Meter]:
    """List the meters of an attempt, the stage's own first, and those that left nothing.

    Args:
        machines: All of them.
        journals: What was expected, and what could not be read.
        status: Of the stage's attempt: where it is complete, every journal must have an end.
        reason: Why the stage's own meter has no energy; None: as its machine says.
    """
    late = _find_late(machines)
    last = {label: len(groups) for label, groups in journals.attempts.items()}
    meters = []
    for machine in machines:
        for i, run in enumerate(machine.runs):
            meter = _describe_meter(machine, i, reason)
            if run.label is not None and run.start == last[run.label]:
                if run.lines.end is None and status == "complete":
                    why = "its journal has no end: the figures end with the last sample"
                    meter = replace(meter, reason=why)
                elif (run.label, run.start) in late:
                    meter = replace(meter, reason=late[run.label, run.start])
            meters.append(meter)
    meters.sort(key=lambda meter: (meter.label is not None, meter.label, meter.start))
    meters += [_describe_missing(label, why) for label, why in journals.unread.items()]
    return meters + [
        _describe_missing(label, "it was expected and left no journal")
        for label in journals.expected
        if label not in journals.attempts and label not in journals.unread
    ]


def _describe_meter(machine: Machine, index: int, reason: str | None) -> Meter:
    run, attribution = machine.runs[index], machine.attributions[index]
    head, end = run.lines.head, run.lines.end
    known = machine.energy_j is not None
    if known:
        reason = attribution.reason
    else:
        reason = reason or attribution.reason or "no channel has an energy"
    return Meter(
        label=run.label,
        start=run.start,
        host=head["host"],
        boot_id=head["boot_id"],
        status=end["status"] if end else "interrupted",
        exit_code=end["exit_code"] if end else None,
        started_utc=head["started_utc"],
        boot_s=run.lines.span_s,
        duration_s=run.lines.span_s[1] - run.lines.span_s[0],
        counted_s=machine.counted_s[index],
        energy_kwh=kwh_from_j(machine.shares_j[index]) if known else None,
        rule=attribution.rule,
        channels=tuple(
            channel.id
            for channel in machine.channels
            if channel.in_total and channel.kind in MEASURED_KINDS and channel.id in run.curves
        ),
        reason=reason,
    )


def _describe_missing(label: str, reason: str) -> Meter:
    return Meter(
        label=label, start=None, host=None, boot_id=None, status="missing", exit_code=None,
        started_utc=None, boot_s=None, duration_s=None, counted_s=0.0, energy_kwh=None, rule=None,
        channels=(), reason=reason,
    )  # fmt: skip


def _find_late(machines: Sequence[Machine]) -> dict[tuple[str, int], str]:
    """Find the meters that saw less of a job than those of its other machines."""
    jobs: dict[tuple[str, int], list[tuple[str, float, float]]] = {}
    for machine in machines:
        for run in machine.runs:
            match = SIBLING.fullmatch(run.label or "")
            if match:
                zero_s = find_zero(machine.runs)
                begin_s, end_s = (at_s + zero_s for at_s in run.lines.span_s)
                job = jobs.setdefault((match["job"], run.start), [])
                job.append((match[0], begin_s, end_s))
    late = {}
    for (_, start), job in jobs.items():
        first_s, last_s = min(begin for _, begin, _ in job), max(end for *_, end in job)
        for label, begin_s, end_s in job:
            missed = []
            if begin_s - first_s > LATE_S:
                missed.append(f"the first {begin_s - first_s:.0f} s")
            if last_s - end_s > LATE_S:
                missed.append(f"the last {last_s - end_s:.0f} s")
            if missed:
                late[label, start] = f"without {' and '.join(missed)} of its job"
    return late


def _explain(machines: Sequence[Machine], meters: Sequence[Meter]) -> str | None:
    """Say what the total of several meters lacks, by label and host; None: nothing."""
    reasons = []
    for meter in meters:
        if meter.reason:
            host = f" on {meter.host}" if meter.host else ""
            who = OWN_METER if meter.label is None else f"node {meter.label}"
            reasons.append(f"{who}{host}: {meter.reason}")
    covered: dict[tuple[str, ...], list[str]] = {}
    jobs = [(machine, machine.job.last) for machine in machines if machine.job is not None]
    whole_j = sum(job_j for _, job_j in jobs)
    for machine, job_j in jobs:
        if job_j >= MATTERS * whole_j:
            boundary = tuple(b for b in list_boundaries(machine.channels) if b not in GPU)
            covered.setdefault(boundary, []).append(machine.host)
    if len(covered) > 1:
        each = (f"{', '.join(hosts)}: {' + '.join(b)}" for b, hosts in covered.items())
        reasons.append(f"machines cover different boundaries: {'; '.join(each)}")
    return "; ".join(reasons) or None
