"""Time limits of Slurm and slow steps: what a training loses that meets them.

Usage: python3 tests/bench/slurm_limits.py

A Slurm of its own on this machine (as root, like tests/test_slurm.py), KillWait 5 s. The network is
slowed down: a step of two micro-batches takes 20 s. With a limit of two minutes and a warning of
30 s the training must end with the weights of one without a limit. In the second case a step takes
24 s and there is no warning from Slurm: only what the training says of itself ends it in time. In
the third a stop takes longer than what is left, and the job must be in the queue again before Slurm
ends it for good. About fifteen minutes.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import torch  # noqa: E402
from conftest import environment  # noqa: E402
from slurm_site import SlurmSite, find_obstacle  # noqa: E402
from small_egs import SmallEgs  # noqa: E402
from small_training import MODEL, assert_same_state  # noqa: E402

SLOW = """import sys, time
from sv.bin import train
from sv.nnet.xvector import XVector
forward = XVector.forward
def slow(self, *words):
    if self.training:
        time.sleep({seconds})
    return forward(self, *words)
XVector.forward = slow
sys.exit(train.run("sv.bin.train", train.main))
"""
# Ten steps of two micro-batches; the last is the end of the only epoch.
CHANGES = {"num_epochs": 1, "optimizer": {"batch_size": 8, "micro_batch_size": 4}}
SAVING = """echo '{{"stop_s": 20}}' >"$SV_JOB_CHECKPOINT"
if [ -e {0}/began ]; then echo went on; exit 0; fi
touch {0}/began; trap 'echo saving; sleep 60; echo saved' TERM; while :; do sleep 0.1; done
"""


def run_job(site: SlurmSite, root: Path, name: str, settings: str, limit: str, *command) -> str:
    """Run a job through utils/slurm.py; return its log."""
    config, log = root / f"{name}.conf", root / name / "log" / f"{name}.log"
    config.write_text(f"poll_s = 0.5\ngrace_s = 5\n{settings}")
    words = ["utils/slurm.py", "--config", config, "--time", limit, log, *command]
    began = time.monotonic()
    done = subprocess.run(
        [str(word) for word in words], cwd=ROOT, env=environment(**site.env), check=False
    )
    text = log.read_text()
    print(
        f"{name}: status {done.returncode}, {time.monotonic() - began:.0f} s, starts "
        f"{text.count('# Started at')}, resumed {text.count('resumed at step')}"
    )
    assert done.returncode == 0, text
    return text


def main() -> None:
    """Run the three cases."""
    if obstacle := find_obstacle():
        sys.exit(f"no Slurm here: {obstacle}")
    root = Path(tempfile.mkdtemp(prefix="slurm_limits_"))
    egs = SmallEgs(root)
    config = egs.write_config(root / "train.toml", checkpoint_minutes=15.0, **CHANGES)
    often = egs.write_config(root / "often.toml", checkpoint_minutes=0.0, **CHANGES)
    site = SlurmSite()
    try:
        site.start()

        def train(name: str, settings: str, limit: str, seconds: float, config: Path) -> dict:
            program = root / f"{name}.py"
            program.write_text(SLOW.format(seconds=seconds))
            exp = root / name / MODEL
            words = ["python3", program, "--model", MODEL, "--config", config, egs.egs, exp]
            run_job(site, root, name, settings, limit, *words)
            return torch.load(exp / "checkpoints" / "epoch_001.pt", weights_only=True)

        whole = train("whole", "", "60", 0.0, config)
        assert_same_state(whole, train("warned", "warning_s = 30\n", "2", 10.0, config))
        assert_same_state(whole, train("measured", "warning_s = 0\n", "2", 12.0, often))
        words = ["sh", "-c", SAVING.format(root)]
        text = run_job(site, root, "late", "warning_s = 0\n", "1", *words)
        assert "went on" in text
        print("the weights are those of a training without a limit")
    finally:
        site.stop()


if __name__ == "__main__":
    main()
