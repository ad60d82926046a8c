"""A study of four systems through Slurm, two at a time, that loses a job, Slurm and its run.sh.

Usage: python3 tests/bench/study_kills.py

A Slurm of its own on this machine (as root, like tests/test_slurm.py). tests/egs/tiny is trained
twice with four systems and `--parallel 2`: once in peace, and once with a training job killed by
SIGKILL, slurmctld ended for twenty seconds, and run.sh killed while two trainings run. The same
command then finishes the study: scores must be those of the first, to the byte; a training that
nobody killed must not have begun anew; and every journal of a job must be counted in just one
attempt, whose energies add up to the system's. Prints the attempts. About ten minutes.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from conftest import environment  # noqa: E402
from slurm_site import SlurmSite, find_obstacle  # noqa: E402

MODELS = ("resnet18_d", "resnet34_d", "resnet18_d_1111", "resnet18_w0.5")
TRAINING = {
    "num_epochs = 2": "num_epochs = 60",
    "checkpoint_minutes = 1.0": "checkpoint_minutes = 0.05",
}
SLURM = "poll_s = 0.5\ngrace_s = 2\n"
AWAY_S, WAIT_S = 20.0, 240.0


class Study:
    """The tiny recipe with four systems, in a folder, through Slurm."""

    def __init__(self, root: Path, site: SlurmSite) -> None:
        self.root, self.site, self.data = root, site, root / "data"
        self.egs, self.config = root / "egs", root / "slurm.conf"
        self.config.write_text(SLURM)
        shutil.copytree(ROOT / "tests/egs/tiny/conf", self.egs / "conf")
        (self.egs / "conf/models.txt").write_text("".join(f"{name}\n" for name in MODELS))
        (self.egs / "conf/score.toml").write_text('backends = ["cosine"]\n')
        train = self.egs / "conf/train.toml"
        text = train.read_text()
        for old, new in TRAINING.items():
            assert old in text, old
            text = text.replace(old, new)
        train.write_text(text)

    def start(self, exp: Path, *options: str) -> subprocess.Popen:
        """Start run.sh; what it says goes to <exp>.log."""
        argv = ["./run.sh", "--egs", str(self.egs), "--data", str(self.data), "--exp", str(exp)]
        argv += ["--corpora", str(self.root / "corpora"), "--nj", "2", "--ngpu", "0", *options]
        with open(exp.with_suffix(".log"), "a") as log:
            return subprocess.Popen(
                argv, cwd=ROOT, env=environment(**self.site.env), stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def walk(self, exp: Path) -> subprocess.Popen:
        """Start stages 5 to 8 of the study."""
        words = ["--stage", "5", "--model", "study", "--parallel", "2"]
        return self.start(exp, *words, "--cmd", f"utils/slurm.py --config {self.config}")


def wait_for(what: str, condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    until = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < until, f"no {what} in {WAIT_S:.0f} s"
        time.sleep(0.1)


def find_training(exp: Path, model: str) -> list[int]:
    """Return the processes of a training."""
    found = subprocess.run(
        ["pgrep", "-f", f"^[^ ]*python3 -m sv.bin.train .*{exp / model}( |$)"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return [int(word) for word in found.stdout.split()]


def is_training(exp: Path, model: str) -> bool:
    """Return whether a training has saved a state and goes on."""
    return any((exp / model / "checkpoints").glob("*.pt")) and bool(find_training(exp, model))


def finish(process: subprocess.Popen, exp: Path) -> None:
    """Wait until run.sh has ended well."""
    code = process.wait(600)
    assert code == 0, (code, exp.with_suffix(".log").read_text()[-4000:])


def disturb(study: Study, exp: Path) -> None:
    """Start the study, kill a job, the controller and run.sh; the same command finishes it."""
    process = study.walk(exp)
    first, second, third, fourth = MODELS
    wait_for("training of two systems", lambda: all(is_training(exp, m) for m in (first, second)))
    for pid in find_training(exp, first):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    print(f"killed the job of {first}", flush=True)
    wait_for(f"training of {third}", lambda: is_training(exp, third))
    study.site.stop_controller()
    assert not study.site.states()
    print("slurmctld ended", flush=True)
    time.sleep(AWAY_S)
    study.site.start_controller()
    wait_for("answer of slurmctld", study.site.states)
    wait_for(f"training of {fourth}", lambda: is_training(exp, fourth))
    left = len(study.site.queue())
    process.kill()
    process.wait()
    print(f"killed run.sh; jobs in the queue: {left} before, {len(study.site.queue())} after")
    finish(study.walk(exp), exp)


def check_scores(exp: Path, whole: Path) -> None:
    """Scores are those of a study that nobody disturbed."""
    for model in MODELS:
        name = f"{model}/scores/mini_cosine.txt"
        assert (exp / name).read_bytes() == (whole / name).read_bytes(), name
    print(f"scores of {len(MODELS)} systems: the same bytes as of the study in peace")


def check_energy(exp: Path) -> float:
    """Print the attempts of each training; return the sum of their energies (kWh)."""
    total = 0.0
    for model in MODELS:
        energy = exp / model / "energy"
        sidecar = json.loads((energy / "05_train.json").read_text())
        attempts = sidecar["attempts"]
        counted = Counter(
            (attempt["attempt"], meter["label"])
            for attempt in attempts
            for meter in attempt["meters"]
            if meter["label"]
        )
        journals = sorted((energy / "05_train.nodes").glob("*/*.journal.jsonl"))
        assert max(counted.values()) == 1 and len(counted) == len(journals), (counted, journals)
        found = sum(attempt["energy_kwh"] for attempt in attempts)
        assert abs(found - sidecar["energy_kwh"]) < 1e-12, (found, sidecar["energy_kwh"])
        starts = (exp / model / "log/train.log").read_text().count("resumed at step")
        print(f"{model}: {sidecar['status']}, {sidecar['energy_kwh']:.3e} kWh, resumed {starts}")
        for attempt in attempts:
            labels = [meter["label"] for meter in attempt["meters"] if meter["label"]]
            print(
                f"  attempt {attempt['attempt']}: {attempt['status']}, "
                f"{attempt['duration_s']:.0f} s, {attempt['energy_kwh']:.3e} kWh, jobs {labels}"
            )
        total += sidecar["energy_kwh"]
    return total


def main() -> None:
    """Run the study twice and compare."""
    if obstacle := find_obstacle():
        sys.exit(f"no Slurm here: {obstacle}")
    root = Path(tempfile.mkdtemp(prefix="study_kills_"))
    site = SlurmSite()
    try:
        site.start()
        study = Study(root, site)
        print(f"in {root}", flush=True)
        whole, killed = root / "whole", root / "killed"
        finish(study.start(whole, "--stop-stage", "4"), whole)
        finish(study.walk(whole), whole)
        disturb(study, killed)
        check_scores(killed, whole)
        print("in peace:")
        peace = check_energy(whole)
        print("disturbed:")
        total = check_energy(killed)
        print(f"training of all: {total:.3e} kWh, in peace {peace:.3e} ({total / peace:.2f} times)")
    finally:
        site.stop()


if __name__ == "__main__":
    main()
