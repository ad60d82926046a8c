"""What must be true of a fault case's run besides its energy; each check says what is wrong."""

import contextlib
import io
import json
import time
from collections.abc import Callable
from pathlib import Path

from faulty_machine import Service

from sv.bin import ceems, meter
from sv.errors import SvError


def is_table(run):
    """The carbon factor is that of the table."""
    used = run.sidecar["attempts"][-1]["carbon"]
    used = {part.get("provider", used["provider"]) for part in used["intervals"]} or {
        used["provider"]
    }
    return None if used == {"owid"} else f"the carbon factor is {used}'s"


def is_estimated(run):
    """The estimate stands in for counters that measure nothing."""
    attempt = run.sidecar["attempts"][-1]
    if not attempt["energy_kwh"] or attempt["measured_fraction"]:
        return f"energy {attempt['energy_kwh']}, measured part {attempt['measured_fraction']}"
    return None


def is_within(run):
    """The truth lies within the stated uncertainty."""
    u_j = 3.6e6 * run.sidecar["attempts"][-1]["uncertainty_kwh"]
    return None if abs(run.energy_j - run.true_j) <= u_j else f"the uncertainty is {u_j:.1f} J"


def says_on_stderr(word):
    """Stderr has a word."""
    return lambda run: None if word in run.err else f"stderr does not say {word!r}"


def call(main: Callable, *words) -> list[str]:
    """Run a program of the repository in this process; return the lines of its output.

    Where it raises, that is the last line.
    """
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        try:
            main([str(word) for word in words])
        except SvError:
            pass  # a clear line for the user
        except Exception as error:
            print(f"Traceback: {error!r}")
    return out.getvalue().splitlines()


def read_attempt(sidecar: Path) -> dict:
    """Read the last attempt; without a sidecar it has no energy."""
    if not sidecar.exists():
        return {"energy_kwh": None}
    return json.loads(sidecar.read_text())["attempts"][-1]


def rebuilds(change):
    """--rebuild of the folder goes well after something was done to the journals in it.

    ``change`` takes the lines of the stage's journal and gives those of 04_other.
    """

    def find(run):
        journal, sidecar = run.energy / "05_train.journal.jsonl", run.energy / "05_train.json"
        expected_kwh = read_attempt(sidecar)["energy_kwh"]
        other = run.energy / "04_other.journal.jsonl"
        other.write_text("".join(change(journal.read_text().splitlines(keepends=True))))
        sidecar.unlink()
        printed = call(meter.main, "--rebuild", run.energy)
        if any("Traceback" in line for line in printed):
            return f"a traceback: {printed[-1]}"
        energy_kwh = read_attempt(sidecar)["energy_kwh"]
        return None if energy_kwh == expected_kwh else f"05_train: {expected_kwh}, {energy_kwh}"

    return find


def replace_reading(lines):
    """Make every tenth reading too large for a column."""
    records = [json.loads(line) for line in lines]
    for record in [record for record in records if record["line"] == "sample"][::10]:
        record["raw"] = [2**64 for _ in record["raw"]]
    return [json.dumps(record) + "\n" for record in records]


def remove_readings(lines):
    """Leave the readings out of every tenth sample."""
    records = [json.loads(line) for line in lines]
    for record in [record for record in records if record["line"] == "sample"][::10]:
        del record["raw"]
    return [json.dumps(record) + "\n" for record in records]


def is_cut_well(run):
    """Rebuilt from a journal whose end is missing, the energy is that of what is left."""
    journal, sidecar = run.energy / "05_train.journal.jsonl", run.energy / "05_train.json"
    energy_kwh, whole = read_attempt(sidecar)["energy_kwh"], journal.read_bytes()
    for cut in (1, 2, 20, 200):
        sidecar.unlink()
        journal.write_bytes(whole[:-cut])
        call(meter.main, "--rebuild", run.energy)
        again_kwh = read_attempt(sidecar)["energy_kwh"]
        if again_kwh is None or abs(again_kwh / energy_kwh - 1) > 0.1:
            return f"{energy_kwh} kWh, without {cut} bytes {again_kwh}"
    return None


def is_whole_too(run):
    """A second meter beside the first has the whole energy too, and --check names both."""
    ours, other = run.energy / "05_train.json", run.energy.parent / "beside/06_beside.json"
    powers = [
        None if each["energy_kwh"] is None else each["energy_kwh"] / each["duration_s"]
        for each in map(read_attempt, (ours, other))
    ]
    if None in powers or abs(powers[1] / powers[0] - 1) > 0.03:
        return f"powers of both: {powers}"
    printed = call(meter.main, "--check", ours, other)
    return None if any("also in" in line for line in printed) else "--check knows no overlap"


def is_explained(fields):
    """What CEEMS does not give of a job has a reason in the import."""

    def find(run):
        begin_ms, end_ms = (1000 * (time.time() + ago_s) for ago_s in (-3600, 3600))
        unit = {"uuid": "1", "cluster_id": "slurm-0", "state": "COMPLETED", **fields}
        unit |= {"started_at_ts": int(begin_ms), "ended_at_ts": int(end_ms)}
        service = Service(lambda: (200, {"status": "success", "data": [unit], "warnings": []}))
        service.build(run.energy)
        out = run.energy / "ceems.json"
        words = ["--url", service.url, "--cluster", "slurm-0", "--job", "1", "--user", "ann", out]
        printed = call(ceems.main, *words)
        if not out.exists():
            return f"no ceems.json: {printed[-1:]}"
        record = json.loads(out.read_text())
        is_null = record["imported"]["energy_kwh"] is None or record["ratio"]["energy_kwh"] is None
        told = record["ratio_reason"] or record.get("reasons")
        return "a null without a reason" if is_null and not told else None

    return find


def is_core_power(low_w, high_w):
    """The estimate takes a power of a logical CPU between two."""

    def find(run):
        cpu = run.channels["cpu_time"]
        power_w = cpu["power_w_per_core"]
        return None if low_w <= power_w <= high_w else f"{power_w:.3g} W a logical CPU"

    return find
