"""A machine whose sensors lie or fail while it runs, and which knows what it really used.

Every part draws a power that is a function of time, and logs its joules as they go. What its sensor
shows of them is another function: that is where a fault is. Times in both are seconds since the
metered command began (`FaultyMachine.go`), negative before.
"""

import json
import os
import subprocess
import threading
import time
from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from pathlib import Path

from local_server import serve

INTEL_RANGE_UJ = 262_143_328_850  # 32 bits of 61 uJ
TICK_S = 0.004
EIO = object()  # shown: every read of the file fails
GONE = object()  # shown: the zone's folder is away
LOST = "!15"  # shown by a board: NVML_ERROR_GPU_IS_LOST
Power = float | Callable[[float], float]


class Part:
    """What draws a power. ``counted``: whether its joules are part of the true energy."""

    boundary = "cpu_package"

    def __init__(self, power: Power, *, counted: bool = True) -> None:
        self.power = power if callable(power) else lambda _t: power
        self.counted = counted
        self.joules = 0.0
        self._at_s, self._log_j = array("d"), array("d")
        self._texts: dict[Path, object] = {}
        self._fds: dict[Path, int] = {}

    def build(self, root: Path) -> None:
        """Make the files."""

    def tick(self, now_s: float, t: float) -> None:
        """Use up the time since the last call, and show it."""
        if self._at_s:
            self.joules += self.power(t) * (now_s - self._at_s[-1])
        self._at_s.append(now_s)
        self._log_j.append(self.joules)
        self.show(t)

    def show(self, t: float) -> None:
        """Write what the sensor shows."""

    def used_j(self, first_s: float, last_s: float) -> float:
        """Return what was used between two times of CLOCK_MONOTONIC."""
        return self._read(last_s) - self._read(first_s)

    def find_lag_s(self, at_s: float) -> float:
        """Return how far apart the times around one are: the sensor shows what is as old."""
        after = min(max(bisect_left(self._at_s, at_s), 1), len(self._at_s) - 1)
        return self._at_s[after] - self._at_s[after - 1]

    def _read(self, at_s: float) -> float:
        after = min(max(bisect_left(self._at_s, at_s), 1), len(self._at_s) - 1)
        a_s, b_s = self._at_s[after - 1], self._at_s[after]
        a_j, b_j = self._log_j[after - 1], self._log_j[after]
        return a_j + (b_j - a_j) * (at_s - a_s) / (b_s - a_s)

    def write(self, file: Path, value: object) -> None:
        """Write a number in place, anything else instead of the file; never half of either."""
        if isinstance(value, int) and file in self._fds:
            os.pwrite(self._fds[file], f"{value:020d}\n".encode(), 0)
            self._texts.pop(file, None)
            return
        if value == self._texts.get(file, self):
            return
        if (fd := self._fds.pop(file, None)) is not None:
            os.close(fd)
        new = file.with_name(f"{file.name}.new")
        if value is EIO:
            new.symlink_to("/proc/self/mem")  # its first bytes cannot be read
        else:
            new.write_text(f"{value:020d}\n" if isinstance(value, int) else f"{value}\n")
        new.rename(file)
        self._texts[file] = value
        if isinstance(value, int):
            self._fds[file] = os.open(file, os.O_WRONLY)


class Zone(Part):
    """A zone of the powercap tree.

    Args:
        number: As in ``intel-rapl:<number>``.
        name: What its file ``name`` says.
        power: Watts, or a function of time.
        show: Time and microjoules that it should show -> what it does: a number, `EIO`, `GONE` or
            another text.
        of: The zone whose counter this one shows too: it draws nothing itself.
        start_uj, range_uj: The counter at the machine's start, and where it wraps; a range of None
            has no file.
        in_place: The file stays the same one, whatever it shows (pyRAPL holds it open).
        mode: Of the file; 0o400: for another user only.
    """

    def __init__(
        self, number: str, name: str, power: Power = 100.0, show=None, *, of: "Zone | None" = None,
        start_uj: int = 200_000_000_000, range_uj: int | str | None = INTEL_RANGE_UJ,
        counted: bool | None = None, in_place: bool = False, mode: int = 0o644,
    ) -> None:  # fmt: skip
        is_part = of is None and name not in ("core", "psys")
        super().__init__(power, counted=is_part if counted is None else counted)
        self.boundary = "dram" if name == "dram" else "cpu_package"
        self._number, self._name, self._show, self._of = number, name, show, of
        self._start_uj, self._range_uj, self.mode = start_uj, range_uj, mode
        self._in_place = in_place

    def build(self, root: Path) -> None:
        outer = root / "devices/virtual/powercap/intel-rapl"
        parent, _, child = self._number.rpartition(":")
        self.folder = outer / (f"intel-rapl:{parent}" if parent and child else ".")
        self.folder /= f"intel-rapl:{self._number}"
        self.folder.mkdir(parents=True)
        (self.folder / "name").write_text(f"{self._name}\n")
        if self._range_uj is not None:
            (self.folder / "max_energy_range_uj").write_text(f"{self._range_uj}\n")
        flat = root / "class/powercap"
        flat.mkdir(parents=True, exist_ok=True)
        if not (flat / "intel-rapl").exists():
            (flat / "intel-rapl").symlink_to("../../devices/virtual/powercap/intel-rapl")
        target = os.path.relpath(self.folder, flat)
        (flat / self.folder.name).symlink_to(target)
        self._file = self.folder / "energy_uj"
        if self._of is not None:
            self._file.symlink_to(os.path.relpath(self._of._file, self.folder))
        else:
            self.show(-1.0)
        if self.mode != 0o644:
            if os.geteuid() == 0:
                os.chown(self._file, 65534, -1)
            self._file.chmod(self.mode if os.geteuid() == 0 else 0)

    def show(self, t: float) -> None:
        if self._of is not None:
            return
        value = self._start_uj + int(self.joules * 1e6)
        shown = value if self._show is None else self._show(t, value)
        away = self.folder.with_name(f"{self.folder.name}.gone")
        if shown is GONE:
            if self.folder.exists():
                self.folder.rename(away)
            return
        if away.exists():
            away.rename(self.folder)
        if isinstance(shown, int):
            known = isinstance(self._range_uj, int) and self._range_uj > 0
            shown %= self._range_uj if known else INTEL_RANGE_UJ
        if self._in_place and not isinstance(shown, int):
            if shown != self._texts.get(self._file, self):
                os.pwrite(self._fds[self._file], f"{shown:20}\n".encode(), 0)
                self._texts[self._file] = shown
            return
        self.write(self._file, shown)


class Board(Part):
    """A GPU board.

    Args:
        index: Its number.
        power: Watts, or a function of time.
        energy: Time and millijoules -> what the counter shows; None: it has none.
        shown_mw: Time and milliwatts -> what the power shows; None: it has none.
        status: Time -> the error that every call gives, `LOST`, or 0.
        start_mj: The counter at the start.
    """

    boundary = "gpu_board"

    def __init__(
        self, index: int, power: Power = 300.0, energy=lambda t, mj: mj,
        shown_mw=lambda t, mw: mw, status=lambda t: 0, *, start_mj: int = 50_000_000,
        counted: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(power, counted=counted)
        self._index, self._energy, self._shown_mw = index, energy, shown_mw
        self._status, self._start_mj = status, start_mj

    def build(self, root: Path) -> None:
        self._folder = root / "nvml"
        self._folder.mkdir(exist_ok=True)
        boards = len(list(self._folder.glob("status.*"))) + 1
        (self._folder / "count").write_text(f"{boards}\n")
        self.show(-1.0)

    def show(self, t: float) -> None:
        def write(what, value):
            self.write(self._folder / f"{what}.{self._index}", value)

        write("status", self._status(t))
        if self._energy is not None:
            write("energy", self._energy(t, self._start_mj + int(self.joules * 1e3)))
        if self._shown_mw is not None:
            mw = self._shown_mw(t, round(self.power(t) * 1e3))
            write("power", mw)
            write("instant", mw)


class Node(Part):
    """The whole machine, as its management controller sees it.

    Args:
        power: Watts, or a function of time.
        shown_w: Time and watts -> what the controller says: a number, or a text that is its error.
    """

    boundary = "node"

    def __init__(self, power: Power = 200.0, shown_w=lambda t, w: w) -> None:
        super().__init__(power)
        self._shown_w = shown_w

    def show(self, t: float) -> None:
        shown = self._shown_w(t, round(self.power(t)))
        # The controller's clock: no two readings are of the same second.
        second = int(max(t, 0.0) * 20)
        stamp = f"10:{second // 60 % 60:02d}:{second % 60:02d}"
        self.write(self._file, f"{shown}\n{stamp}")


class Ipmi(Node):
    """The same through a fake ipmitool, in ``bin`` below the machine's root."""

    def build(self, root: Path) -> None:
        (root / "class/ipmi/ipmi0").mkdir(parents=True)
        (root / "bin").mkdir()
        self._file = root / "bin/power"
        self.show(-1.0)
        tool = root / "bin/ipmitool"
        tool.write_text(IPMITOOL.replace("FILE", str(self._file)))
        tool.chmod(0o755)


IPMITOOL = """\
#!/bin/sh
{ read -r watts; read -r stamp; } <FILE
[ "$watts" = hang ] && exec sleep 60
case $watts in *[!0-9]*) echo "$watts" >&2; exit 1 ;; esac
cat <<end

    Instantaneous power reading:                   $watts Watts
    Minimum during sampling period:                 10 Watts
    Maximum during sampling period:                550 Watts
    Average power reading over sample period:      240 Watts
    IPMI timestamp:                           Mon Oct 20 $stamp 2025
    Sampling period:                          00000300 Seconds.
    Power reading state is:                   activated


end
"""


class Cray(Node):
    """The same through Cray's counter, a file of joules.

    Args:
        power: Watts, or a function of time.
        show: Time and joules -> joules that it shows.
    """

    def __init__(self, power: Power = 400.0, show=lambda t, joules: joules) -> None:
        super().__init__(power)
        self._show = show

    def build(self, root: Path) -> None:
        self._file = root / "cray/pm_counters/energy"
        self._file.parent.mkdir(parents=True)
        self.show(-1.0)

    def show(self, t: float) -> None:
        joules = self._show(t, 500_000 + int(self.joules))
        self.write(self._file, f"{joules} J {int(time.monotonic() * 10)} us")


class Redfish(Node):
    """The same through a fake service; ``shown_w`` gives watts, or a whole answer."""

    def build(self, root: Path) -> None:
        self._now = 0.0
        self._serving = serve(self._answer)
        self.url, _ = self._serving.__enter__()

    def show(self, t: float) -> None:
        self._now = t

    def _answer(self, _asked):
        shown = self._shown_w(self._now, self.power(self._now))
        if isinstance(shown, tuple):
            return shown
        value = shown if isinstance(shown, str) else json.dumps(shown)
        member = f'{{"MemberId": "0", "PowerConsumedWatts": {value}}}'
        return 200, f'{{"PowerControl": [{member}]}}'.encode()


class Service(Part):
    """A web service that the meter asks; ``answer`` gives status and body. It draws nothing."""

    def __init__(self, answer: Callable[[], tuple]) -> None:
        super().__init__(0.0, counted=False)
        self._answer = answer

    def build(self, root: Path) -> None:
        self._serving = serve(lambda _asked: self._answer())
        self.url, _ = self._serving.__enter__()


class FaultyMachine:
    """Parts that run while the block does.

    Args:
        root: Where its sysfs and the rest of its files are.
        parts: What draws power.
    """

    def __init__(self, root: Path, parts) -> None:
        self.root, self.parts, self.go = root, list(parts), root / "go"
        (root / "class").mkdir(parents=True)
        for part in self.parts:
            part.build(root)
        self._begin_s: float | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            now_s = time.monotonic()
            if self._begin_s is None and self.go.exists():
                self._begin_s = now_s
            t = -1.0 if self._begin_s is None else now_s - self._begin_s
            for part in self.parts:
                part.tick(now_s, t)
            time.sleep(TICK_S)

    def used_j(self, first_s: float, last_s: float, boundaries) -> float:
        """Return what was used in the boundaries of a total between two times.

        A whole machine is its node; else the packages, memory and boards.
        """
        counted = [part for part in self.parts if part.counted]
        is_node = "node" in boundaries
        chosen = [part for part in counted if (part.boundary == "node") == is_node]
        return sum(part.used_j(first_s, last_s) for part in chosen)


def build_nvml(folder: Path) -> None:
    """Compile the fake libnvidia-ml.so.1.

    Raises:
        OSError: There is no C compiler.
    """
    source = Path(__file__).with_name("fake_nvml.c")
    words = ["cc", "-w", "-shared", "-fPIC", "-o", folder / "libnvidia-ml.so.1", source]
    subprocess.run(words, check=True)


# What a counter shows that is no plain count


def step(at_s: float, by: int):
    """Step once, forward or back."""
    return lambda t, value: value + by if t >= at_s else value


def during(from_s: float, to_s: float, shown):
    """Show something else for a while."""
    return lambda t, value: shown if from_s <= t < to_s else value


class Reset:
    """Begin again from 0 at a time."""

    def __init__(self, at_s: float) -> None:
        self._at_s, self._from = at_s, None

    def __call__(self, t, value):
        if t < self._at_s:
            return value
        if self._from is None:
            self._from = value
        return value - self._from


class Stall:
    """Stand still for a while; then with what was missed, or without."""

    def __init__(self, from_s: float, to_s: float = 1e9, *, catch_up: bool = True) -> None:
        self._from_s, self._to_s, self._catch_up = from_s, to_s, catch_up
        self._at, self._missed = None, 0

    def __call__(self, t, value):
        if t < self._from_s:
            return value
        if self._at is None:
            self._at = value
        if t < self._to_s:
            self._missed = value - self._at
            return self._at
        return value if self._catch_up else value - self._missed


class LastSecond:
    """Show the mean of the last second, as NVML's plain power does since Ampere."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque()

    def __call__(self, t, value):
        now_s = time.monotonic()
        self._seen.append((now_s, value))
        while self._seen[0][0] < now_s - 1:
            self._seen.popleft()
        return round(sum(each for _, each in self._seen) / len(self._seen))


class Refreshed:
    """Show a value that is as old as up to a period."""

    def __init__(self, period_s: float) -> None:
        self._period_s, self._turn, self._value = period_s, -1, 0

    def __call__(self, t, value):
        turn = int(max(t, 0.0) / self._period_s)
        if t < 0 or turn != self._turn:
            self._turn, self._value = turn, value
        return self._value
