"""The sidecar of a stage, as one typed record: the meter builds it, everything else reads it.

The classes below are the only description of a sidecar. `write_record` writes them field by field,
`read_record` checks a file against them, and `python3 -m sv.bin.meter --schema` prints them as JSON
Schema. Energy is in joules in a channel and in kWh everywhere else; it is the energy of machines
alone, carbon and PUE have fields of their own. Unknown is None with a reason, never 0.

Sidecars of schema energy-sidecar/1 are read too; their last writer was commit f8b4a44.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from sv.config import Minimum, build_config
from sv.errors import SvError
from sv.files import read_json, write_json

SCHEMA = "energy-sidecar/2"
SCHEMA_1 = "energy-sidecar/1"

Amount = Annotated[float, Minimum(0)]
Count = Annotated[int, Minimum(0)]
Boundary = Literal["node", "gpu_module", "gpu_board", "cpu_package", "dram", "psys"]
Status = Literal["complete", "failed", "interrupted", "stopped"]
Kind = Literal["measured", "derived", "estimated", "unavailable"]
Method = Literal["counter_delta", "power_integral", "cpu_time_x_power"]
Rule = Literal["exclusive", "cpu_share", "ceems", "mixed"]


@dataclass(frozen=True)
class Raw:
    """First and last reading of a channel, in its own unit, and what lies between them.

    Attributes:
        unit: uJ, mJ, J (counters), uW, mW, W (powers) or us (CPU time).
        max_range: Value at which the counter starts again from 0; None: it does not.
        wraps, resets: How often a counter started again at its range, and how often it made a
            step, back or forward, that no machine could have made.
    """

    first: int
    last: int
    unit: str
    max_range: int | None
    wraps: Count
    resets: Count


@dataclass(frozen=True)
class Uncertainty:
    """How far a channel's energy may be off, in joules (`sv.energy.samples`); k = 2."""

    k: int
    edge: Amount | None
    resolution: Amount | None
    gap_fill: Amount | None
    sensor: Amount | None
    sensor_basis: str | None
    total: Amount | None
    reason: str | None
    sampling: Amount | None = 0.0


@dataclass(frozen=True)
class Power:
    """Mean and highest power of a channel, in watts, while the machine was awake."""

    mean: float | None
    max: float | None


@dataclass(frozen=True)
class Samples:
    """How well a channel was read: readings, failed ones, longest gap, covered part (0 to 1)."""

    n: Count
    failed: Count
    max_gap_s: Amount | None
    covered: Amount | None


@dataclass(frozen=True)
class Channel:
    """One source of energy inside one boundary, and what it used.

    Attributes:
        id: Unique on a machine: ``rapl.package.0``, ``nvml.board.GPU-4e81...``, ``cpu_time``.
        source: What was read, as a person would look it up.
        in_total: Whether it is summed; what is not stays as a breakdown or a cross-check.
        reason: Why it has no energy or is not in the total, or what a reader should know of it.
        contained_in: Channels whose energy has this one's in it.
        raw: None where several meters or attempts were joined.
        host: Machine; None where the attempt ran on one machine alone.
        attempts: Attempts that were added up; empty in an attempt's own list.
        doubt: Why the total that it is in, or should be in, is a lower bound, partial or disputed.
    """

    id: str
    boundary: Boundary
    kind: Kind
    method: Method | None
    source: str
    in_total: bool
    reason: str | None
    power_w_per_core: Amount | None
    contained_in: tuple[str, ...]
    energy_j: Amount | None
    u_energy_j: Uncertainty | None
    raw: Raw | None
    power_w: Power | None
    samples: Samples
    host: str | None = None
    attempts: tuple[int, ...] = ()
    doubt: str | None = None


@dataclass(frozen=True)
class Crosscheck:
    """Two figures that should agree: ratio a / b; ``rest_kwh`` is what parts leave of a whole."""

    a: str
    b: str
    ratio: float | None
    rest_kwh: float | None = None
    host: str | None = None


@dataclass(frozen=True)
class AttributionInputs:
    """What the part of a shared machine was computed from; None: the rule needs none of it."""

    jobs_on_node: Annotated[int, Minimum(1)]
    cpu_s_job: Amount | None = None
    cpu_s_node: float | None = None
    looks: Count | None = None
    mean_job_bytes: Count | None = None
    mean_node_bytes: Count | None = None


@dataclass(frozen=True)
class Attribution:
    """By which rule a machine's energy is a job's (`sv.energy.attribution`)."""

    rule: Rule
    inputs: AttributionInputs
    reason: str | None


@dataclass(frozen=True)
class Pue:
    """Power usage effectiveness of the site: enters the grams of CO2 and no energy."""

    value: Annotated[float, Minimum(1)]
    source: str


@dataclass(frozen=True)
class CarbonPart:
    """What one provider's factor of one kind covered."""

    provider: str
    zone: str | None
    year: int | None
    vintage: str | None
    scope: str | None
    basis: str | None
    source: str | None
    energy_j: float | None
    co2_g: float | None


@dataclass(frozen=True)
class CarbonInterval:
    """A time with one factor, and the energy in it; ``age_s`` is of the observation at ``t0``."""

    t0: str
    t1: str
    g_per_kwh: Amount | None
    energy_j: float
    provider: str | None = None
    observed: str | None = None
    age_s: float | None = None
    stale: bool = False
    estimated: bool | None = None
    host: str | None = None


@dataclass(frozen=True)
class Carbon:
    """Grams of CO2 and whose factors they come from.

    Attributes:
        scope, basis: ``mixed`` where factors of different quantities were added.
        g_per_kwh: The factor; where it varied, its mean weighted by energy.
        reason: Why there are no grams, or what they lack, or add up that is not alike.
        fallback_from: Providers that were asked before and did not answer, with the reason.
        estimated: Whether the provider estimated any of it; None: it does not say.
        stale_fraction: Part of the energy whose factor was too old, 0 to 1.
    """

    provider: str
    zone: str | None
    year: int | None
    scope: str | None
    basis: str | None
    g_per_kwh: Amount | None
    source: str | None
    reason: str | None
    co2_g: Amount | None
    intervals: tuple[CarbonInterval, ...]
    vintage: str | None = None
    fallback_from: tuple[str, ...] = ()
    estimated: bool | None = None
    stale_fraction: Amount | None = None
    parts: tuple[CarbonPart, ...] = ()


@dataclass(frozen=True)
class Mark:
    """What the command reported at a time, and the energy of the attempt up to then.

    Attributes:
        mark: Its name: ``epoch``, ``phase``, ``resumed``, ...
        t_s: Since the first sample; None: reported after the last sample of a killed meter.
        payload: Everything else that the command wrote with it.
        meter: Label of the meter that recorded it; None: the stage's own.
    """

    mark: str
    t_s: Amount | None
    energy_kwh: Amount | None
    energy_reason: str | None
    payload: dict[str, Any] = field(default_factory=dict)
    meter: str | None = None


@dataclass(frozen=True)
class Phase:
    """Time and energy from one ``phase`` mark to the next; ``times`` counts what was added up."""

    name: str
    duration_s: Amount
    energy_kwh: float | None
    times: Annotated[int, Minimum(1)] = 1


@dataclass(frozen=True)
class Meter:
    """One meter of an attempt, or one that was expected and left nothing (``missing``).

    Attributes:
        label: Of the process that it metered; None: the stage's own meter.
        start: 1 for the first start under this label, 2 after a requeue.
        boot_s: First and last sample, on the machine's CLOCK_BOOTTIME.
        counted_s: Its part of the machine's time, where several meters share one machine.
        energy_kwh: What it adds to the attempt: those of all meters sum to the attempt's.
        channels: Measured channels of the total that it read.
    """

    label: str | None
    start: int | None
    host: str | None
    boot_id: str | None
    status: Literal["complete", "failed", "interrupted", "missing"]
    exit_code: int | None
    started_utc: str | None
    boot_s: tuple[float, ...] | None
    duration_s: Amount | None
    counted_s: Amount
    energy_kwh: Amount | None
    rule: Rule | None
    channels: tuple[str, ...]
    reason: str | None


@dataclass(frozen=True)
class Attempt:
    """One start of a stage: what all its meters counted.

    Host, times, status and command are those of the stage's own meter, the energies are of all.

    Attributes:
        resumed: Whether the command resumed earlier work, whose energy then belongs to the result.
        boot_s: First and last sample, on CLOCK_BOOTTIME.
        clock_step_s: By how much the wall clock was set meanwhile; it enters no other figure.
        energy_kwh: The stage's part, by the rule of ``attribution``, of ``energy_node_kwh``.
        uncertainty_kwh: Of ``energy_kwh``, k = 2.
        measured_fraction: Part of ``energy_kwh`` that was measured, 0 to 1: neither estimated nor,
            of sockets or boards side by side and of the attempt's time, missing.
        boundary: Boundaries of the channels in the total.
        reason: Why the energy is unknown, or what it lacks.
        meter_cpu_s: Processor time of the meter itself.
        metadata: What the sensors reported at the start and the end (board names, limits, ...).
    """

    attempt: Annotated[int, Minimum(1)]
    status: Status
    exit_code: int | None
    resumed: bool
    host: str
    boot_id: str
    started_utc: str
    boot_s: tuple[float, ...]
    duration_s: Amount
    suspended_s: Amount
    clock_step_s: float | None
    argv: tuple[str, ...]
    git: dict[str, Any]
    energy_kwh: Amount | None
    energy_node_kwh: Amount | None
    uncertainty_kwh: Amount | None
    uncertainty_reason: str | None
    measured_fraction: Amount | None
    boundary: tuple[Boundary, ...]
    attribution: Attribution
    reason: str | None
    co2_g: Amount | None
    carbon: Carbon
    pue: Pue
    period_s: float
    max_gap_s: Amount | None
    meter_cpu_s: Amount | None
    metadata: tuple[dict[str, Any], ...]
    channels: tuple[Channel, ...]
    crosschecks: tuple[Crosscheck, ...]
    marks: tuple[Mark, ...]
    phases: tuple[Phase, ...]
    meters: tuple[Meter, ...]


@dataclass(frozen=True)
class Sidecar:
    """The energy of a stage. A pure function of its journals (`sv.energy.sidecar`).

    The figures are of the run that made the result: the last attempt and those before it that it
    resumed (``run_attempts``). ``energy_all_kwh`` and ``co2_all_g`` are of everything tried;
    ``co2_all_g`` is None where an attempt that used energy has no grams.
    """

    schema: Literal["energy-sidecar/2"]
    stage: Count
    name: str
    model: str | None
    status: Status
    exit_code: int | None
    host: str
    started_utc: str
    duration_s: Amount
    energy_kwh: Amount | None
    energy_node_kwh: Amount | None
    energy_all_kwh: Amount | None
    uncertainty_kwh: Amount | None
    uncertainty_reason: str | None
    measured_fraction: Amount | None
    boundary: tuple[Boundary, ...]
    attribution: Attribution
    reason: str | None
    co2_g: Amount | None
    co2_all_g: Amount | None
    carbon: Carbon
    pue: Pue
    run_attempts: tuple[int, ...]
    channels: tuple[Channel, ...]
    crosschecks: tuple[Crosscheck, ...]
    phases: tuple[Phase, ...]
    attempts: tuple[Attempt, ...]
    torn_lines: Count

    @property
    def run(self) -> tuple[Attempt, ...]:
        """The attempts that made the result."""
        return tuple(a for a in self.attempts if a.attempt in self.run_attempts)

    @property
    def meters(self) -> tuple[Meter, ...]:
        """The meters of the attempts that made the result."""
        return tuple(meter for attempt in self.run for meter in attempt.meters)


def write_record(path: Path, sidecar: Sidecar) -> None:
    """Write a sidecar as JSON; it is renamed into place.

    Raises:
        SvError: It cannot be written.
    """
    write_json(path, dataclasses.asdict(sidecar))


def read_record(path: Path) -> Sidecar:
    """Read a sidecar of schema /2 or /1.

    Raises:
        SvError: It is missing, not JSON, of another schema, or a field is not valid.
    """
    return parse_record(read_json(path), str(path))


def parse_record(values: Any, where: str) -> Sidecar:
    """Build a sidecar from the content of its file; ``where`` begins every error message.

    Raises:
        SvError: It is of another schema, or a field is not valid.
    """
    schema = values.get("schema") if isinstance(values, dict) else None
    if schema not in (SCHEMA, SCHEMA_1):
        raise SvError(f"{where}: schema is {json.dumps(schema)}, expected '{SCHEMA}'")
    try:
        if schema == SCHEMA_1:
            values = _upgrade(values)
        return build_config(values, Sidecar, where=where)
    except SvError as error:
        raise SvError(str(error)) from error  # a broken file is no mistake of the command line
    except (KeyError, TypeError, AttributeError) as error:
        raise SvError(f"{where}: not a sidecar as '{schema}' is ({error!r})") from error


# What /1 had and /2 has not: a fourth energy figure that no recipe filled, and two other names.
_DROPPED = ("energy_above_idle_kwh", "above_idle_reason", "nodes", "facts")
_MARK_KEYS = ("mark", "t_s", "energy_kwh", "energy_reason")


def _upgrade(old: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a /1 sidecar as /2 has them."""
    run = {number for channel in old["channels"] for number in channel.get("attempts", ())}
    run |= {node["attempt"] for node in old.get("nodes", ())}
    attempts = []
    for attempt in old["attempts"]:
        new = {key: value for key, value in attempt.items() if key not in _DROPPED}
        new["metadata"] = attempt.get("facts", [])
        new["meters"] = attempt.get("nodes", [_describe_only_meter(attempt)])
        new["marks"] = [{key: mark[key] for key in _MARK_KEYS} for mark in attempt["marks"]]
        for mark, old_mark in zip(new["marks"], attempt["marks"], strict=True):
            rest = {key: value for key, value in old_mark.items() if key not in _MARK_KEYS}
            mark |= {"meter": rest.pop("node", None), "payload": rest}
        attempts.append(new)
    return {
        **{key: value for key, value in old.items() if key not in _DROPPED},
        "schema": SCHEMA,
        "run_attempts": sorted(run) or [attempts[-1]["attempt"]],
        "attempts": attempts,
    }


def _describe_only_meter(attempt: dict[str, Any]) -> dict[str, Any]:
    copied = ("host", "boot_id", "status", "exit_code", "started_utc", "boot_s", "duration_s")
    return {
        "label": None,
        "start": 1,
        **{key: attempt[key] for key in copied},
        "counted_s": attempt["duration_s"],
        "energy_kwh": attempt["energy_kwh"],
        "rule": attempt["attribution"]["rule"],
        "channels": [
            channel["id"]
            for channel in attempt["channels"]
            if channel["in_total"] and channel["kind"] in ("measured", "derived")
        ],
        "reason": attempt["reason"] if attempt["energy_kwh"] is None else None,
    }
