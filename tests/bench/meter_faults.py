#!/usr/bin/env python3
"""Sensors that lie or half fail, through the real meter: true energy against reported.

Usage: python3 tests/bench/meter_faults.py [--only PATTERN] [--jobs N] [--list]

Each case is a fake machine (tests/faulty_machine.py) that knows what it used between the meter's
first and last reading, a command under utils/meter.sh, and what is expected of the figure:
- held: nothing is wrong, so within the error and unmarked
- right: something was dropped, but a witness survives: within the error, and a reason
- marked: no witness survives: a reason, at least what was seen, at most 5 % above the truth
- either: right, or marked
Of every case: the exit status is the command's, a sidecar is there, no traceback is printed, the
journal alone gives the same figure again, and `--check` of that lists a mark where one is set.
The cases are in tests/fault_cases.py; what may happen to the meter's own files, its process and its
clocks is in tests/test_energy_robustness.py. Exit status 1: a verdict fails.
"""

import argparse
import fnmatch
import json
import math
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from fault_cases import EITHER, HELD, MARKED, RIGHT, Case, list_cases  # noqa: E402
from fault_checks import call  # noqa: E402
from faulty_machine import Board, FaultyMachine, build_nvml  # noqa: E402

import sv.energy.check  # noqa: E402, F401 - once, for all processes that cases run in
import sv.energy.sidecar  # noqa: E402, F401
from sv.bin import meter  # noqa: E402

J_PER_KWH = 3.6e6
MARGIN = 1.05  # a figure that is marked is not above the truth by more
LAG_S = 0.03  # a fake that shows what is older, as the machine is busy, proves nothing
TRIES = 3
SETTLED_S = 60.0  # a case that takes so much longer than its command hangs


@dataclass
class Run:
    """What became of a case."""

    name: str
    expect: str
    true_j: float = float("nan")
    energy_j: float | None = None
    wrong: list[str] = field(default_factory=list)
    skipped: str | None = None
    lag_s: float = 0.0
    energy: Path = Path()
    sidecar: dict = field(default_factory=dict)
    err: str = ""
    check: list[str] = field(default_factory=list)

    @property
    def ratio(self) -> float | None:
        """Reported against true."""
        return None if self.energy_j is None or not self.true_j else self.energy_j / self.true_j

    @property
    def reason(self) -> str | None:
        """Why the attempt's figure is not plain."""
        return self.sidecar["attempts"][-1]["reason"] if self.sidecar else None

    @property
    def channels(self) -> dict[str, dict]:
        """Of the last attempt, by id."""
        return {channel["id"]: channel for channel in self.sidecar["attempts"][-1]["channels"]}


# How one is run


@cache
def find_ways() -> tuple[list[str] | None, list[str] | None]:
    """Find how to see other mounts, and how to be without root's rights; None: no way."""

    def works(words):
        try:
            return (
                subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0
            )
        except OSError:
            return False

    mounts = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "-r", "--mount"]
    rights = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    if os.geteuid() != 0:
        rights = []
    return (mounts if works(mounts) else None), (rights if not rights or works(rights) else None)


def build_words(case: Case, machine: FaultyMachine) -> list[str]:
    """Return the words of the metered command; LookupError: this machine cannot run it."""
    mounts, rights = find_ways()
    root, words = machine.root, []
    if any(getattr(part, "mode", 0o644) != 0o644 for part in machine.parts):
        if rights is None:
            raise LookupError("setpriv is not permitted")
        words += rights
    places = [(root / "cpuinfo", "/proc/cpuinfo")] if case.cpuinfo else []
    places += [(root, "/sys")] if case.pyrapl else []
    if places:
        if mounts is None:
            raise LookupError("unshare is not permitted")
        if case.cpuinfo:
            write_cpuinfo(root / "cpuinfo", case.cpuinfo)
        binds = " && ".join(f"mount --bind '{ours}' {theirs}" for ours, theirs in places)
        words += [*mounts, "sh", "-c", f'{binds} && exec "$@"', "sh"]
    if case.broken:
        words += [sys.executable, str(ROOT / "tests/broken_reader.py"), *case.broken]
    else:
        words.append("utils/meter.sh")
    words += ["--stage", "5", "--name", "train", "--dir", str(root / "energy")]
    words += ["--config", str(root / "energy.toml")]
    words += ["--sysfs", "/sys" if case.pyrapl else str(root)]
    python = sys.executable
    shell = case.shell.format(seconds=case.seconds, root=root, python=python)
    status = "" if case.status in (0, -9, 137) else f"; exit {case.status}"
    return [*words, "--", "sh", "-c", f"touch {machine.go}; {shell}{status}"]


def write_cpuinfo(file: Path, processor: tuple) -> None:
    """Write what the kernel shows of a processor of two threads a core."""
    vendor, family, model, name, cores = processor
    lines = [
        f"processor\t: {i}\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\n"
        f"model name\t: {name}\nphysical id\t: 0\nsiblings\t: {2 * cores}\ncore id\t\t: {i}\n"
        f"cpu cores\t: {cores}\nflags\t\t: fpu\n"
        for i in range(2)
    ]
    file.write_text("\n".join(lines) + "\n")


def get_environment(machine: FaultyMachine, case: Case, library: Path) -> dict[str, str]:
    """Return the environment of the meter."""
    path = f"{machine.root}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "SV_ENVIRONMENT": sys.executable}
    env.pop("CUDA_VISIBLE_DEVICES", None)
    if any(isinstance(part, Board) for part in machine.parts):
        env |= {"LD_LIBRARY_PATH": str(library), "FAKE_NVML": str(machine.root / "nvml")}
        if case.visible is not None:
            env["CUDA_VISIBLE_DEVICES"] = case.visible
    else:
        env["CUDA_VISIBLE_DEVICES"] = ""  # the boards of this machine are not the fake's
    return env


def run_case(name: str, library: str) -> Run:
    """Run a case by its name, and judge it; again where the fake was late."""
    for _ in range(TRIES):
        run = try_case(name, library)
        if run.lag_s <= LAG_S or not run.wrong:
            break
    return run


def try_case(name: str, library: str) -> Run:
    """Run a case, and judge it."""
    case = next(case for case in list_cases() if case.name == name)
    run = Run(case.name, case.expect)
    with tempfile.TemporaryDirectory() as folder:
        machine = FaultyMachine(Path(folder) / "machine", case.parts())
        root, energy = machine.root, machine.root / "energy"
        run.energy = energy
        os.chmod(folder, 0o755)
        settings = case.settings if isinstance(case.settings, str) else case.settings(machine.parts)
        if "period_s = " not in settings.replace("node_period_s", ""):
            settings = f"period_s = 0.2\n{settings}"
        (root / "energy.toml").write_text(f'country = "FRA"\n{settings}')
        try:
            words = build_words(case, machine)
        except LookupError as error:
            run.skipped = str(error)
            return run
        env = get_environment(machine, case, Path(library))
        with machine:
            done = subprocess.run(
                words, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                timeout=case.seconds + SETTLED_S, check=False,
            )  # fmt: skip
        run.err = done.stderr
        if done.returncode != case.status:
            run.wrong.append(f"status {done.returncode}, the command's is {case.status}")
        if "Traceback" in run.err:
            run.wrong.append(f"a traceback: {run.err.strip().splitlines()[-1]}")
        if case.killed:
            call(meter.main, "--rebuild", energy)
        sidecar, journal = energy / "05_train.json", energy / "05_train.journal.jsonl"
        if not sidecar.exists():
            run.wrong.append(f"no sidecar: {run.err.strip().splitlines()[-1:]}")
            return run
        run.sidecar = json.loads(sidecar.read_text())
        lines = [json.loads(line) for line in journal.read_text().splitlines()]
        times = [line["awake_s"] for line in lines if line["line"] == "sample"]
        ends = (times[0], times[-1])
        run.lag_s = max([part.find_lag_s(at_s) for part in machine.parts for at_s in ends] or [0.0])
        run.true_j = machine.used_j(*ends, run.sidecar["boundary"])
        energy_kwh = run.sidecar["attempts"][-1][case.figure]
        run.energy_j = None if energy_kwh is None else energy_kwh * J_PER_KWH
        judge_again(run, Path(folder) / "again")
        judge(run, case)
        if (wrong := case.also(run)) is not None:
            run.wrong.append(wrong)
    return run


def judge_again(run: Run, again: Path) -> None:
    """Compute the figure from the journal alone, and check that."""
    again.mkdir()
    shutil.copy(run.energy / "05_train.journal.jsonl", again)
    if (nodes := run.energy / "05_train.nodes").exists():
        shutil.copytree(nodes, again / nodes.name)
    call(meter.main, "--rebuild", again)
    rebuilt = again / "05_train.json"
    if not rebuilt.exists():
        run.wrong.append("the journal alone gives no sidecar")
        return
    ours, theirs = run.sidecar["attempts"][-1], json.loads(rebuilt.read_text())["attempts"][-1]
    for key in ("energy_kwh", "measured_fraction", "reason"):
        if ours[key] != theirs[key]:
            run.wrong.append(f"{key}: {ours[key]}, from the journal alone {theirs[key]}")
    run.check = [line.partition(": ")[2] for line in call(meter.main, "--check", rebuilt)]


def judge(run: Run, case: Case) -> None:
    """Say what is wrong with a figure."""
    ratio = run.ratio
    is_right = ratio is None or abs(ratio - 1) <= case.error
    is_bounded = ratio is None or case.floor <= ratio <= MARGIN
    expect = case.expect
    if expect == EITHER:
        expect = MARKED if run.reason or not is_right else HELD
        is_bounded = is_bounded or is_right
    if expect in (HELD, RIGHT) and not is_right:
        run.wrong.append(f"not within {100 * case.error:g} %")
    if expect == MARKED and not is_bounded:
        run.wrong.append(f"not between {case.floor} and {MARGIN} of the truth")
    if expect == HELD and run.reason:
        run.wrong.append("it is marked")
    if expect in (RIGHT, MARKED) and not run.reason:
        run.wrong.append("it is not marked")
    if bool(run.reason) != bool(run.check):
        run.wrong.append(f"--check says {run.check or 'nothing'}")


def run_cases(names: list[str], jobs: int, library: Path):
    """Run cases several at a time; yield each as it ends."""
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        yield from (
            future.result()
            for future in as_completed(
                [pool.submit(run_case, name, str(library)) for name in names]
            )
        )


def format_run(run: Run) -> str:
    """Format a line of the table, and what is wrong below it."""
    name, expect = run.name, run.expect
    if run.skipped:
        return f"{name:58} {expect:7} skipped: {run.skipped}"

    def number(value, form):
        return "-" if value is None or math.isnan(value) else format(value, form)

    attempt = run.sidecar["attempts"][-1] if run.sidecar else {}
    fraction = number(attempt.get("measured_fraction"), ".3g")
    verdict = "FAIL" if run.wrong else "ok"
    line = (
        f"{name:58} {expect:7} {number(run.true_j, '9.1f'):>9} {number(run.energy_j, '9.1f'):>9} "
        f"{number(run.ratio, '6.3f'):>6} {fraction:>6} {'yes' if run.check else 'no':>5} "
        f"{verdict:4} {run.reason or '-'}"
    )
    return "\n".join([line, *(f"    {wrong}" for wrong in run.wrong)])


def main() -> int:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="*", help="names, a pattern as of a shell")
    parser.add_argument("--jobs", type=int, default=6, help="cases at a time")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    args = parser.parse_args()
    pattern = args.only if "*" in args.only else f"*{args.only}*"
    names = [case.name for case in list_cases() if fnmatch.fnmatch(case.name, pattern)]
    if args.list:
        print("\n".join(names))
        return 0
    print(
        f"{'case':58} {'expect':7} {'true J':>9} {'reported':>9} {'ratio':>6} {'mf':>6} "
        "check      reason"
    )
    started = time.monotonic()
    failed = skipped = 0
    with tempfile.TemporaryDirectory() as folder:
        build_nvml(Path(folder))
        os.chmod(folder, 0o755)
        for run in run_cases(names, args.jobs, Path(folder)):
            print(format_run(run), flush=True)
            failed, skipped = failed + bool(run.wrong), skipped + bool(run.skipped)
    took_s = time.monotonic() - started
    print(f"{len(names)} cases in {took_s:.0f} s: {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
