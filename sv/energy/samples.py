"""The readings of an attempt: as columns, added up to energy, and as curves over time.

Samples are columns, because ten days at 1 Hz are a million of them. `Accumulator` adds up every
kind of channel, reading by reading: for the live figures, and again for the sidecar from the
journal, so that both give the same. A `Curve` is what was added up so far, over a machine's clock.
"""

import math
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sv.energy.journal import SUFFIX, Record, list_readable, read_journal
from sv.energy.nodes import EXPECTED_FILE, list_folders, read_expected
from sv.energy.sensors.readers import MAX_READING, get_max_power_w
from sv.energy.units import j_from_count, s_from_us, w_from_count
from sv.errors import SvError

MISSING = -(2**63)  # in a column: the channel had no reading
# Counters are refreshed up to 0.1 s late (NVML; RAPL 1 ms), so two near readings may hold more.
REFRESH_S = 0.1
FIRST_S = 1.0  # the same, of the first step: some counters are refreshed once a second
STILL_S = 3.0  # a counter of anything that has power moves at least so often
# Samples further apart than this many periods are a gap: a busy machine makes some late.
GAP_PERIODS = 2.5


@dataclass
class AttemptLines:
    """What the journal has of one attempt.

    Attributes:
        head: The line that begins it.
        t_s, awake_s: The clocks of each sample, CLOCK_BOOTTIME and CLOCK_MONOTONIC.
        raw: Channel -> its reading at each sample (int64), `MISSING` where there was none.
        usage: Index of a sample -> what the job and the machine had used (attribution).
        marks, factors, facts: The lines of these kinds, in order.
        end: The last line; None if the meter was killed.
    """

    head: Record
    t_s: array = field(default_factory=lambda: array("d"))
    awake_s: array = field(default_factory=lambda: array("d"))
    raw: dict[str, array] = field(default_factory=dict)
    usage: dict[int, Record] = field(default_factory=dict)
    marks: list[Record] = field(default_factory=list)
    factors: list[Record] = field(default_factory=list)
    facts: list[Record] = field(default_factory=list)
    end: Record | None = None

    def __post_init__(self) -> None:
        """Make a column for each channel of the head that is read."""
        self.raw = {name: array("q") for name in list_readable(self.head["channels"])}

    @property
    def span_s(self) -> tuple[float, float]:
        """First and last sample on CLOCK_BOOTTIME; without samples twice the head's time."""
        return (self.t_s[0], self.t_s[-1]) if self.t_s else (self.head["t_s"],) * 2

    @property
    def config(self) -> Record:
        """The settings; empty in journals from before they were kept."""
        return self.head.get("config") or {}

    def add(self, record: Record) -> None:
        """Take the next line; what a later version may have added is left out."""
        kind = record["line"]
        if kind == "sample":
            if "usage" in record:
                self.usage[len(self.t_s)] = record["usage"]
            self.t_s.append(record["t_s"])
            self.awake_s.append(record["awake_s"])
            for channel_id, column in self.raw.items():
                value = record["raw"].get(channel_id)
                column.append(MISSING if value is None or abs(value) > MAX_READING else value)
        elif kind == "mark":
            self.marks.append(record)
        elif kind == "factor":
            self.factors.append(record)
        elif kind == "facts":
            self.facts.append(record)
        elif kind == "end":
            self.end = record

    def get(self, channel_id: str | None, sample: int) -> int | None:
        """Return the reading of a channel at a sample; None where there is none."""
        column = self.raw.get(channel_id or "")
        return None if column is None or column[sample] == MISSING else column[sample]


def split_attempts(records: Iterable[Record]) -> tuple[list[AttemptLines], int]:
    """Split the lines of a journal into attempts.

    Returns:
        The attempts, and how many lines a crash or a full disk tore.
    """
    attempts: list[AttemptLines] = []
    torn = 0
    for record in records:
        if record["line"] == "torn":
            torn += 1
        elif record["line"] == "head":
            attempts.append(AttemptLines(record))
        # A sample after an end is of an attempt whose head was torn, of which nothing is known.
        elif attempts and (attempts[-1].end is None or record["line"] == "mark"):
            attempts[-1].add(record)
    return attempts, torn


@dataclass(frozen=True)
class StageJournals:
    """What the other meters of one attempt left.

    Attributes:
        expected: Labels that were to run.
        attempts: Label -> its starts, at least one.
        unread: Label -> why its journal cannot be read.
        torn: Lines that a crash tore.
    """

    expected: tuple[str, ...] = ()
    attempts: dict[str, list[AttemptLines]] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    torn: int = 0


def read_journals(journal: Path) -> dict[int, StageJournals]:
    """Read what the other meters of a stage left, by its attempts; empty without any."""
    found = {}
    for folder in list_folders(journal):
        expected = read_expected(folder)
        attempts, unread, torn = {}, {}, 0
        # A label is opened by its name too: on a shared disk a folder may be listed late.
        names = {path.name.removesuffix(SUFFIX) for path in folder.glob(f"*{SUFFIX}")}
        for label in sorted(names | set(expected)):
            path = folder / f"{label}{SUFFIX}"
            try:
                groups, torn_here = split_attempts(read_journal(path))
            except SvError as error:
                if path.exists():
                    unread[label] = str(error)
                continue
            torn += torn_here
            if groups:
                attempts[label] = groups
        if expected or attempts or unread or (folder / EXPECTED_FILE).exists():
            found[int(folder.name)] = StageJournals(tuple(expected), attempts, unread, torn)
    return found


class Reading(NamedTuple):
    """One raw reading of a channel.

    Attributes:
        t_s: CLOCK_BOOTTIME, which goes on while the machine is suspended.
        awake_s: CLOCK_MONOTONIC, which does not.
        value: The raw reading.
    """

    t_s: float
    awake_s: float
    value: int


def is_possible(spec: Mapping[str, Any], value: int) -> bool:
    """Return whether a raw reading is possible: nothing negative, no power too high."""
    if not 0 <= value <= MAX_READING:
        return False
    is_power = spec["method"] == "power_integral"
    return not is_power or w_from_count(value, spec["unit"]) <= get_limit_w(spec)


def get_limit_w(spec: Mapping[str, Any]) -> float:
    """Return the most that a channel of a journal's head can draw."""
    return get_max_power_w(spec["boundary"], spec.get("max_power_w"))


class Accumulator:
    """Adds up one channel, reading by reading; each must be possible (`is_possible`).

    A step of a counter that no machine could have made is not believed: back, and no wrap; or
    forward, by more than the channel can draw since the counter last moved. The mean power until
    then is taken for its time.

    Attributes:
        n: Readings so far.
        first, last: First and last of them; None before.
        moved: The last reading at which a counter had changed; else the last one.
        wraps, resets: Of a counter: at its range, and steps that are not believed. Without these
            its advance is ``last - first + wraps * max_range``.
        bridged_s: Time of the steps that are not believed.
        lost_s: Time in which a counter stood still, which it did not make up for afterwards.
        max_w, min_w: Highest and lowest mean power between two readings that are not too near
            to tell; None where there are no such two.
        first_w, last_w: Mean power of the first and of the last such interval.
        gap_s: Time awake in intervals longer than ``GAP_PERIODS`` periods, less one period each.
        longest_s: The longest time between two readings.
    """

    def __init__(self, spec: Mapping[str, Any], period_s: float) -> None:
        self.n = 0
        self.first: Reading | None = None
        self.last: Reading | None = None
        self.moved: Reading | None = None
        self.wraps = self.resets = 0
        self.bridged_s = self.lost_s = 0.0
        self.max_w: float | None = None
        self.min_w: float | None = None
        self.first_w: float | None = None
        self.last_w: float | None = None
        self.gap_s = 0.0
        self.longest_s = self._longest_awake_s = 0.0
        self._count = 0  # of a counter, in its own unit: exact
        self._counted_s = 0.0
        self._unbridged_s = 0.0  # steps before any power was known
        self._sum_j = 0.0  # of what is no counter, and of a counter's bridged time
        self._powers_w = self._squares_w = 0.0  # sums over the readings of a power
        self._method, self._unit = spec["method"], spec["unit"]
        self._max_range = spec["max_range"]
        self._w_per_core = spec["power_w_per_core"]
        self._limit_w = get_limit_w(spec)
        self._period_s = period_s

    @property
    def energy_j(self) -> float:
        """Joules since the first reading."""
        if self._method == "counter_delta":
            return j_from_count(self._count, self._unit) + self._sum_j
        return self._sum_j

    @property
    def still_s(self) -> float:
        """Time awake since a counter last changed."""
        return self.last.awake_s - self.moved.awake_s if self.last and self.moved else 0.0

    @property
    def sampling_w(self) -> float:
        """Standard error of the mean of the readings of a power."""
        if self.n < 2:
            return 0.0
        variance = self._squares_w / self.n - (self._powers_w / self.n) ** 2
        return math.sqrt(max(0.0, variance) / self.n)

    def add(self, now: Reading) -> None:
        """Take one more reading, later than the last."""
        before, self.last = self.last, now
        self.n += 1
        if self._method == "power_integral":
            power_w = w_from_count(now.value, self._unit)
            self._powers_w += power_w
            self._squares_w += power_w**2
        if before is None:
            self.first = self.moved = now
            return
        seconds = now.awake_s - before.awake_s
        self.longest_s = max(self.longest_s, now.t_s - before.t_s)
        self._longest_awake_s = max(self._longest_awake_s, seconds)
        if seconds > GAP_PERIODS * self._period_s:
            self.gap_s += seconds - self._period_s
        energy_j: float | None
        if self._method == "counter_delta":
            energy_j = self._step(now.value - before.value, now, seconds)
        else:
            if self._method == "power_integral":
                # The trapezoid rule, over the time that the machine was awake.
                energy_j = w_from_count((before.value + now.value) / 2, self._unit) * seconds
            else:
                energy_j = s_from_us(now.value - before.value) * self._w_per_core
            self._sum_j += energy_j
            self.moved = now
        if energy_j is not None and seconds >= REFRESH_S:
            self._note_power(energy_j / seconds)

    def _step(self, advance: int, now: Reading, seconds: float) -> float | None:
        """Take a counter's step; return its joules, None where it is not believed."""
        if advance == 0:
            return 0.0  # it stands still, or has not been refreshed yet
        assert self.moved is not None
        is_first, still_s = self.moved is self.first, now.awake_s - self.moved.awake_s
        self.moved = now
        wrapped = advance < 0
        if wrapped:
            advance += self._max_range or 0
        energy_j = j_from_count(advance, self._unit)
        limit_j = self._limit_w * (still_s + (FIRST_S if is_first and not wrapped else REFRESH_S))
        is_possible_step = 0 <= energy_j <= limit_j
        made_up = is_possible_step and energy_j >= self._mean_w * still_s / 2
        step_s = still_s  # the time that the step stands for
        if still_s - seconds >= STILL_S and not made_up:
            step_s = seconds
            self.lost_s += still_s - seconds
        if not is_possible_step:
            self.resets += 1
            self.bridged_s += step_s
            since_0_j = j_from_count(now.value, self._unit)
            self._sum_j += self._estimate_step(since_0_j, step_s, limit_j)
            return None
        self._counted_s += step_s
        self._count += advance
        self.wraps += wrapped
        if self._unbridged_s and self._counted_s:
            self._sum_j += energy_j / step_s * self._unbridged_s
            self._unbridged_s = 0.0
        return energy_j

    @property
    def _mean_w(self) -> float:
        return j_from_count(self._count, self._unit) / self._counted_s if self._counted_s else 0.0

    def _estimate_step(self, since_0_j: float, seconds: float, limit_j: float) -> float:
        """Return what stands for a step that is not believed: the mean power until then."""
        if self._counted_s:
            return self._mean_w * seconds
        if since_0_j <= limit_j:  # it began again: so much at the least
            return since_0_j
        self._unbridged_s += seconds
        return 0.0

    def _note_power(self, power_w: float) -> None:
        if self.first_w is None:
            self.first_w = self.max_w = self.min_w = power_w
        self.last_w = power_w
        self.max_w = max(self.max_w or 0.0, power_w)
        self.min_w = power_w if self.min_w is None else min(self.min_w, power_w)

    @property
    def hidden_j(self) -> float:
        """Energy of a wrap that may be hidden between two readings; 0 where none can be.

        Safe is less than half a wrap at the highest power seen.
        """
        if self._max_range is None or self._method != "counter_delta" or self.max_w is None:
            return 0.0
        longest_j = self.max_w * self._longest_awake_s
        return longest_j if longest_j > j_from_count(self._max_range, self._unit) / 2 else 0.0


def interpolate(places: array, known: array, clock: array) -> array:
    """Fill in a figure that is known at some samples, linearly in time.

    Args:
        places: Indices of the samples where it is known, at least one, increasing.
        known: Its values there.
        clock: Time of every sample.

    Returns:
        Its value at every sample; before the first and after the last it keeps theirs.
    """
    values = array("d", [known[0]]) * len(clock)
    for k in range(1, len(places)):
        a, b, low, high = places[k - 1], places[k], known[k - 1], known[k]
        values[b] = high
        for i in range(a + 1, b):
            values[i] = low + (high - low) * (clock[i] - clock[a]) / (clock[b] - clock[a])
    for i in range(places[-1], len(clock)):
        values[i] = known[-1]
    return values


@dataclass(frozen=True)
class Curve:
    """A figure that only grows, over one machine's clock (CLOCK_BOOTTIME).

    Attributes:
        t_s: Times, rising.
        value: The figure so far at each (joules, or seconds); it stays before the first and after
            the last.
        covered_s: Time in which a meter read it: without gaps between two meters, which are flat,
            and those in a meter's readings, which are bridged.
    """

    t_s: array
    value: array
    covered_s: float

    def read(self, at_s: float) -> float:
        """Return the figure so far at a time, evenly between two points; 0 without any."""
        t_s, value = self.t_s, self.value
        after = bisect_right(t_s, at_s)
        if not value:
            return 0.0
        if after == 0:
            return value[0]
        if after == len(t_s):
            return value[-1]
        a, b = after - 1, after
        width = t_s[b] - t_s[a]
        part = (at_s - t_s[a]) / width if width > 0 else 1.0
        return value[a] + part * (value[b] - value[a])

    @property
    def last(self) -> float:
        """The whole figure."""
        return self.value[-1] if self.value else 0.0


def make_curve(t_s: Sequence[float], value: Sequence[float]) -> Curve:
    """Make a curve of one meter's points, beginning at 0."""
    first = value[0] if len(value) else 0.0
    covered_s = t_s[-1] - t_s[0] if len(t_s) else 0.0
    return Curve(array("d", t_s), array("d", (v - first for v in value)), covered_s)


def join_curves(curves: Iterable[Curve]) -> Curve:
    """Join what several meters read of the same counter, so that each time counts once.

    In a time that several cover, the curve of the one that began first holds until its end. The
    values at the borders are interpolated.
    """
    t_s, value, covered_s = array("d"), array("d"), 0.0
    for curve in sorted((c for c in curves if c.t_s), key=lambda c: c.t_s[0]):
        begin_s = curve.t_s[0]
        if not t_s or begin_s > t_s[-1]:
            t_s.append(begin_s)
            value.append(value[-1] if value else 0.0)
        begin_s = t_s[-1]
        offset = value[-1] - curve.read(begin_s)
        first = bisect_right(curve.t_s, begin_s)
        t_s.extend(curve.t_s[first:])
        value.extend(v + offset for v in curve.value[first:])
        whole_s = curve.t_s[-1] - curve.t_s[0]
        covered_s += (t_s[-1] - begin_s) * (curve.covered_s / whole_s if whole_s > 0 else 1.0)
    return Curve(t_s, value, covered_s)
