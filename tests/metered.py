"""What the meter's tests share: a metered command, a fake machine, lines of a journal."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from conftest import ROOT, environment

from sv.energy.journal import read_journal
from sv.energy.record import read_record

MAX_RANGE_UJ = 262_143_328_850  # of an Intel server: 32 bits of 61 uJ
PACKAGE = {
    "id": "rapl.package.0", "boundary": "cpu_package", "kind": "measured",
    "method": "counter_delta", "source": "test", "unit": "uJ", "max_range": MAX_RANGE_UJ,
    "in_total": True, "reason": None, "power_w_per_core": None, "contained_in": [],
    "update_period_s": 0.001, "resolution": 61, "sensor_rel": 0.0, "sensor_rel_basis": "test",
}  # fmt: skip
DRAM = {**PACKAGE, "id": "rapl.dram.0", "boundary": "dram"}
ESTIMATE = {
    **PACKAGE, "id": "cpu_time", "kind": "estimated", "method": "cpu_time_x_power",
    "unit": "us", "max_range": None, "power_w_per_core": 6.0, "sensor_rel": None,
}  # fmt: skip
BOARD = {
    **PACKAGE, "id": "nvml.board.a", "boundary": "gpu_board", "kind": "derived",
    "method": "power_integral", "unit": "mW", "max_range": None, "resolution": 1,
}  # fmt: skip
NODE = {
    **BOARD, "id": "ipmi.node", "boundary": "node", "unit": "W", "update_period_s": 5.0,
}  # fmt: skip
CARBON = {"provider": "fixed", "g_per_kwh": 50.0}


def head(*channels, config=(), **changes):
    """Give the first line of an attempt."""
    inside = [channel["id"] for channel in channels if channel["boundary"] == "node"]
    channels = [
        {**channel, "contained_in": [*channel["contained_in"], *inside]}
        if channel["boundary"] != "node" else channel
        for channel in channels
    ]  # fmt: skip
    return {
        "line": "head", "stage": 5, "name": "train", "model": "m", "argv": ["x"], "host": "h",
        "boot_id": "b", "started_utc": "2026-01-01T00:00:00.000Z", "git": {}, "period_s": 1.0,
        "pue": {"value": 1.5, "source": "test"}, "channels": channels, "t_s": 0.0, "awake_s": 0.0,
        "config": dict(config), "carbon": CARBON, **changes,
    }  # fmt: skip


def sample(t_s, awake_s=None, usage=None, **raw):
    """Give a sample; ``rapl__package__0`` stands for the channel rapl.package.0."""
    raw = {key.replace("__", "."): value for key, value in raw.items()}
    line = {"line": "sample", "t_s": t_s, "awake_s": t_s if awake_s is None else awake_s}
    return {**line, "raw": raw} if usage is None else {**line, "raw": raw, "usage": usage}


def mark(t_s, mark, /, **fields):
    """Give a mark."""
    return {"line": "mark", "t_s": t_s, "said": {"mark": mark, "time_unix": 0, **fields}}


def end(t_s, exit_code=0):
    """Give the last line of an attempt."""
    status = "failed" if exit_code else "complete"
    return {"line": "end", "t_s": t_s, "status": status, "exit_code": exit_code, "meter_cpu_s": 0}


def write_journal(path, *lines):
    """Write lines as a journal; the file's folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


class Runner:
    """A stage's folder, and the meter run on it as a user does."""

    def __init__(self, folder: Path, config: str = 'country = "FRA"\nperiod_s = 0.05\n') -> None:
        self.folder = folder / "energy"
        self.journal = self.folder / "05_train.journal.jsonl"
        self.live = self.folder / ".05_train.live.json"
        self.config = folder / "energy.toml"
        self.config.write_text(config)
        self.options = ["--stage", "5", "--name", "train", "--dir", str(self.folder)]
        self.options += ["--config", str(self.config), "--sysfs", str(folder)]

    def words(self, *command, options=()):
        """Give the words of a command line."""
        words = [str(word) for word in command]
        return [sys.executable, "-m", "sv.bin.meter", *self.options, *options, "--", *words]

    def start(self, *command, options=()):
        """Start a metered command."""
        return subprocess.Popen(
            self.words(*command, options=options), cwd=ROOT, env=environment(), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *command, options=(), stdin=""):
        """Run one to its end: status, stdout, stderr."""
        process = self.start(*command, options=options)
        out, err = process.communicate(stdin, timeout=30)
        return process.returncode, out, err

    def rebuild(self):
        """Rebuild the sidecars."""
        return self.tool("--rebuild", self.folder)

    def tool(self, *words):
        """Run another tool of the meter."""
        return run_words([sys.executable, "-m", "sv.bin.meter", *map(str, words)])

    def sidecar(self):
        """Read the sidecar."""
        return read_record(self.folder / "05_train.json")

    def samples(self):
        """Read the samples of the journal."""
        return [line for line in read_journal(self.journal) if line["line"] == "sample"]


def run_words(words):
    """Run a command to its end, whatever its status."""
    return subprocess.run(
        words, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=30, check=False
    )


def wait_for(condition, timeout_s=15.0):
    """Wait until something is true."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "timed out"
        time.sleep(0.02)


def is_alive(pid):
    """Tell whether a process runs and is no zombie."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


class FakeRapl:
    """A powercap tree whose package uses a steady power, as far as time goes on."""

    def __init__(self, root: Path, power_w: float, start_uj: int = 200_000_000_000) -> None:
        zone = root / "class" / "powercap" / "intel-rapl:0"
        zone.mkdir(parents=True)
        (zone / "name").write_text("package-0\n")
        (zone / "max_energy_range_uj").write_text(f"{MAX_RANGE_UJ}\n")
        self._file = zone / "energy_uj"
        self._file.write_text(f"{start_uj:020d}\n")
        self._power_w, self._start_uj = power_w, start_uj
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()

    def _run(self):
        begin_s = time.monotonic()
        fd = os.open(self._file, os.O_WRONLY)
        while not self._ended.wait(0.002):
            used_uj = int((time.monotonic() - begin_s) * self._power_w * 1e6)
            value_uj = (self._start_uj + used_uj) % MAX_RANGE_UJ
            os.pwrite(fd, f"{value_uj:020d}\n".encode(), 0)  # one write: never half a number
        os.close(fd)
