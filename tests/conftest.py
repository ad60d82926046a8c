"""What all tests share: where the repository is, and how to call its programs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"  # real speech, where a checkout has it


def environment(**extra: str) -> dict[str, str]:
    """Give an environment in which every program of the repository starts alike."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "LC_ALL": "C", **extra}


@pytest.fixture
def run_cli():
    """Run a command from the repository root; ``sv.bin.x`` stands for ``python -m sv.bin.x``."""

    def run(*argv, check=True, env=None, timeout=60, cwd=ROOT):
        words = [str(word) for word in argv]
        if words[0].startswith(("sv.", "local.")):
            words = [sys.executable, "-m", *words]
        done = subprocess.run(
            words,
            cwd=cwd,
            env=environment(**(env or {})),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            pytest.fail(f"{' '.join(words)}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    return run
