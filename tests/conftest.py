"""What all tests share: where the repository is, and how to call its programs."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"  # real speech, where a checkout has it
# Files that take a minute or more come first: begun last, one of them would have a core for itself.
LONG = (
    "test_study_run", "test_slurm", "test_recipe", "test_training", "test_distributed",
    "test_final_weights", "test_energy_robustness", "test_nj",
)  # fmt: skip

# Limits of time are for programs that hang: a loaded machine may need several times as long.
PATIENCE = 4

# Whoever starts the tests in the background or by nohup has them, and all that they start, ignore
# a signal; the programs respect that, and the tests of these signals would wait for ever.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items):
    """Put the tests of long files first; the order inside a file stays."""
    items.sort(key=lambda item: LONG.index(stem) if (stem := item.path.stem) in LONG else len(LONG))


def environment(**extra: str) -> dict[str, str]:
    """Return an environment in which every program of the repository starts alike."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "LC_ALL": "C", **extra}


def call(argv, *, timeout, cwd=ROOT, **extra):
    """Run a command to its end, whatever its status; keep what it printed."""
    return subprocess.run(
        [str(word) for word in argv],
        cwd=cwd,
        env=environment(**extra),
        capture_output=True,
        text=True,
        timeout=PATIENCE * timeout,
        check=False,
    )


@pytest.fixture
def run_cli():
    """Run a command from the repository root; ``sv.bin.x`` stands for ``python -m sv.bin.x``."""

    def run(*argv, check=True, env=None, timeout=60, cwd=ROOT):
        words = [str(word) for word in argv]
        if words[0].startswith(("sv.", "local.")):
            words = [sys.executable, "-m", *words]
        done = call(words, timeout=timeout, cwd=cwd, **(env or {}))
        if check and done.returncode != 0:
            pytest.fail(f"{' '.join(words)}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    return run


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The tiny recipe, run once through the real run.sh; tests read it and change only copies.

    Attributes: corpora, data, exp (paths), output (what run.sh printed), and run(*options).
    """
    if "SV_TINY" in os.environ:  # a recipe from an earlier run, to work on one test
        root = Path(os.environ["SV_TINY"])
    else:
        base = tmp_path_factory.getbasetemp()
        # Processes that share the tests (pytest-xdist) have folders of their own, side by side.
        root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tiny"
    output = root.with_name(f"{root.name}.output")
    root.mkdir(exist_ok=True)
    with open(root.with_name(f"{root.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the first one runs it, the others wait
        recipe = TinyRecipe(root)
        if not (root / "exp" / "results").is_dir():
            output.write_text(recipe.run("--corpora", root / "corpora").stdout)
        recipe.output = output.read_text() if output.exists() else ""
    return recipe


def read_sidecar(folder: Path, name: str) -> dict:
    """Read a stage's sidecar below a model's folder or ``data``."""
    return json.loads((folder / "energy" / f"{name}.json").read_text())


def wait_for_end_of(word: str) -> None:
    """Wait until no process names ``word``: what a kill leaves behind ends by itself."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = subprocess.run(["pgrep", "-f", word], capture_output=True, text=True, check=False)
        if found.returncode == 1:
            return
        time.sleep(0.1)
    pytest.fail(f"still running: {found.stdout}")


class TinyRecipe:
    """Where a run of tests/egs/tiny lies, and how to run it again."""

    model = "resnet18_d"

    def __init__(self, root: Path) -> None:
        self.root, self.corpora = root, root / "corpora"
        self.data, self.exp = root / "data", root / "exp"
        self.home = root / "home"  # nothing may appear in it
        self.home.mkdir(exist_ok=True)
        self.output = ""

    def run(self, *options, check=True, timeout=240):
        """Run run.sh with this recipe's folders."""
        argv = ["./run.sh", "--egs", "tests/egs/tiny", "--nj", 2, "--ngpu", 0]
        argv += ["--data", self.data, "--exp", self.exp]
        argv += options
        done = call(argv, timeout=timeout, HOME=str(self.home))
        if check and done.returncode != 0:
            pytest.fail(f"run.sh: status {done.returncode}\n{done.stdout}{done.stderr[-4000:]}")
        return done


@pytest.fixture(scope="session")
def small_egs(tmp_path_factory):
    """Return a training set that a small network trains on in a second per epoch."""
    from small_egs import SmallEgs  # noqa: PLC0415 - most tests need no torch

    return SmallEgs(tmp_path_factory.mktemp("small_egs"))
