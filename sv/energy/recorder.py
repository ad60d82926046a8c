"""What the meter writes down of one attempt: samples, marks, factors and the live view."""

import math
import os
import resource
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from sv.energy.carbon import CarbonFactor, FactorFeed
from sv.energy.journal import RESUMED, Journal, MarksFile, Record, list_readable
from sv.energy.live import write_live
from sv.energy.processes import read_start_ticks, read_usage
from sv.energy.sensors.readers import Reader, max_period_s
from sv.energy.tracker import Tracker

LOOK_S = 10.0  # between two looks at what job and machine use, as attribution needs them
FINISH_S = 5.0  # a carbon factor asked over the network is waited for so long at the end
LIVE_KEYS = (
    "stage", "name", "model", "label", "started_utc", "attempt", "host", "boot_id", "meter_pid",
)  # fmt: skip


class Recorder:
    """Writes one attempt into the journal and the live file.

    Args:
        journal: Open, with the attempt's head in it.
        head: That line.
        readers: The sensors.
        marks: What the command says.
        feed: Carbon factors.
        live: Path of the live file.
        earlier_kwh: Energy of the attempts that this one would go on from; None: not known.
        nodes: Folder of the stage's other meters, there once it has any.
        complain: Told, once, that the journal cannot be written.
    """

    def __init__(
        self,
        journal: Journal,
        head: Record,
        readers: Sequence[Reader],
        *,
        marks: MarksFile,
        feed: FactorFeed,
        live: Path,
        earlier_kwh: float | None,
        nodes: Path,
        complain: Callable[[str], None],
    ) -> None:
        self._journal = journal
        self._readers = readers
        self._marks = marks
        self._feed = feed
        self._live = live
        self._earlier_kwh = earlier_kwh
        self._nodes = nodes
        self._complain = complain
        self._tracker = Tracker(head)
        self._order = list_readable(head["channels"])
        self._channels = [channel for reader in readers for channel in reader.channels]
        self._cpu_time = next((c.id for c in self._channels if c.unit == "us"), "")
        self._period_s = head["period_s"]
        self._rule = head["config"]["attribution"]
        self._write_failed = self._resumed = False
        self._last_s, self._asked_s = -math.inf, -math.inf
        self._about = {key: head.get(key) for key in LIVE_KEYS}
        if self._about["label"] is not None:
            self._about["before_kwh"] = earlier_kwh or 0.0
        self._about["meter_start_ticks"] = read_start_ticks(os.getpid())

    def start_threads(self) -> None:
        """Begin what needs threads; once, after the command was forked from the only one."""
        for reader in self._readers:
            reader.start()
        self._feed.start()

    def get_period_s(self) -> float:
        """Give the time to the next sample: the config's, or less where a counter wraps sooner."""
        return min(self._period_s, max_period_s(self._channels, self._tracker.get_powers_w()))

    def sample(self, *, final: bool = False) -> None:
        """Read everything, write it down and show it."""
        raw: dict[str, int | None] = {}
        for reader in self._readers:
            raw |= reader.read()
        clocks = read_clocks()
        line = {"line": "sample", **clocks, "raw": [raw.get(name) for name in self._order]}
        usage = None
        if final or self._is_look_due(clocks["t_s"]):
            usage = dict(read_usage(os.getpid(), memory=self._rule == "ceems"))
            line["usage"] = usage
        self._append(line)
        self._tracker.add(clocks["t_s"], clocks["awake_s"], raw)
        if usage is not None:
            self._tracker.look({**usage, "job_cpu_us": raw.get(self._cpu_time)})
        for said in self._marks.read_new(final=final):
            self._resumed = self._resumed or said["mark"] == RESUMED
            self._append({"line": "mark", "t_s": self._find_moment(said), "said": said})
        self._take(self._feed.drain())
        self._last_s = clocks["t_s"]
        if not final:  # `end` follows
            self._sync()
        write_live(self._live, self._summarise())

    def _is_look_due(self, t_s: float) -> bool:
        if t_s - self._asked_s < LOOK_S:
            return False
        first, self._asked_s = self._asked_s == -math.inf, t_s
        # A machine that waits for others is shared by what is looked at (sv/energy/fleet).
        return first or self._rule != "exclusive" or self._nodes.is_dir()

    def _find_moment(self, said: Record) -> float:
        """Give when a mark was said on the meter's clock: after the sample before this one."""
        now_s, said_unix_s = read_clocks()["t_s"], said.get("time_unix")
        if isinstance(said_unix_s, bool) or not isinstance(said_unix_s, int | float):
            return now_s
        ago_s = time.time() - said_unix_s
        return min(now_s, max(now_s - ago_s, self._last_s))

    def _summarise(self) -> Record:
        live = {**self._about, **self._tracker.summarise()}
        run_kwh = live["energy_kwh"]
        if self._resumed:
            unknown = run_kwh is None or self._earlier_kwh is None
            run_kwh = None if unknown else run_kwh + self._earlier_kwh
        return {**live, "run_energy_kwh": run_kwh}

    def write_metadata(self) -> None:
        """Write what the sensors say beside readings, where they say anything."""
        facts: Record = {}
        for reader in self._readers:
            facts |= reader.read_metadata()
        if facts:
            self._append({"line": "facts", "t_s": read_clocks()["t_s"], "facts": facts})

    def end(self, status: str, exit_code: int) -> None:
        """Write the last lines."""
        for reader in self._readers:
            reader.close()
        self.write_metadata()
        self._take(self._feed.finish(FINISH_S))
        own = resource.getrusage(resource.RUSAGE_SELF)
        self._append(
            {
                "line": "end",
                **read_clocks(),
                "ended_utc": format_now(),
                "status": status,
                "exit_code": exit_code,
                "meter_cpu_s": own.ru_utime + own.ru_stime,
            }
        )
        self._sync()

    def _take(self, factors: list[CarbonFactor]) -> None:
        for factor in factors:
            self._tracker.set_factor(factor)
            self._append({"line": "factor", "t_s": read_clocks()["t_s"], "factor": vars(factor)})

    def _append(self, record: Record) -> None:
        try:
            self._journal.append(record)
        except OSError as error:
            self._tell(error)

    def _sync(self) -> None:
        try:
            self._journal.sync()
        except OSError as error:
            self._tell(error)

    def _tell(self, error: OSError) -> None:
        # A full disk must not end a training; the gap shows in the sidecar.
        if not self._write_failed:
            self._complain(
                f"cannot write {self._journal.path}: {error.strerror}; the command goes on"
            )
        self._write_failed = True


def read_clocks() -> dict[str, float]:
    """Read the two clocks that nobody sets, to the microsecond.

    A clock set by NTP or a person changes no duration: UTC is only for labels.
    """
    return {
        "t_s": round(time.clock_gettime(time.CLOCK_BOOTTIME), 6),
        "awake_s": round(time.clock_gettime(time.CLOCK_MONOTONIC), 6),
    }


def format_now() -> str:
    """Format the time of the world in milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
