#!/usr/bin/env python3
"""Check that this Python can run the recipe: every package of pyproject.toml is installed.

Usage: python3 utils/check_environment.py [EXTRA...]         (status 1 and one line if not)
       python3 utils/check_environment.py --list [EXTRA...]  (print the pinned requirements)
       python3 utils/check_environment.py --lock [EXTRA...]  (and what they need, with hashes)
       python3 utils/check_environment.py --cuda             (print the build of torch for the GPUs)

A version other than the pinned one is accepted, unless it is too old to work: who activates an
environment has chosen it.
Looking packages up takes milliseconds; importing torch here would cost every script a second.
"""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

NAME = "utils/check_environment.py"
OLDEST = {"torch": (2, 5)}  # it has torch.OutOfMemoryError
# Builds of torch 2.13, the best first: CUDA's name; the compute capabilities, from and below, that
# it has kernels for (pytorch #197555, 2026-09); the oldest driver (NVIDIA, CUDA compatibility,
# minor version compatibility, 2025). PyPI's is that of CUDA 13.0.
BUILDS = (("pypi", (7, 5), (99, 0), 580), ("cu126", (5, 0), (10, 0), 525))
PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
LOCK = PROJECT.with_name("requirements.lock")


def read_requirements(extras: list[str]) -> list[str]:
    """Read the recipe's requirements and those of some extras, ``torch==2.13.0``.

    Raises:
        KeyError: There is no such extra.
    """
    import tomllib  # noqa: PLC0415 - not there before Python 3.11, which `main` explains

    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    found = list(project["dependencies"])
    for extra in extras:
        found += project["optional-dependencies"][extra]
    return found


def read_locked(requirements: list[str]) -> list[str]:
    """Read from requirements.lock what some requirements and all that they need are locked to.

    It is of all extras; below each package is what needs it, ``# via``.
    """
    entries = re.split(r"\n(?=[a-z0-9])", LOCK.read_text(encoding="utf-8"))[1:]
    needed = {read_name(requirement) for requirement in requirements}
    while (
        new := {
            read_name(entry)
            for entry in entries
            if needed & set(re.findall(r"^    #(?: via|  ) (\S+)", entry, re.MULTILINE))
        }
        - needed
    ):
        needed |= new
    return [entry for entry in entries if read_name(entry) in needed]


def read_name(requirement: str) -> str:
    """Read the name of a requirement, in its normal form."""
    name = re.split(r"[^A-Za-z0-9_.-]", requirement, maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def find_missing(requirements: list[str]) -> list[str]:
    """Return the names of the required packages that are not installed, or are too old."""
    missing = []
    for requirement in requirements:
        name = read_name(requirement)
        try:
            version = importlib.metadata.version(name)
            oldest = OLDEST.get(name, (0,))
            if tuple(map(int, re.findall(r"\d+", version)[:2])) < oldest:
                missing.append(f"{name} {'.'.join(map(str, oldest))} or later (has {version})")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    return missing


def choose_build(table: str) -> str:
    """Choose the build of torch that runs on all GPUs of a machine; "" if there are none.

    Args:
        table: What nvidia-smi says of compute_cap and driver_version: a line a GPU.

    Raises:
        ValueError: No build does.
    """
    gpus = re.findall(r"^(\d+)\.(\d+), (\d+)[\d.]*$", table, re.M)
    if not gpus:
        return ""
    capabilities = [(int(major), int(minor)) for major, minor, _ in gpus]
    driver = int(gpus[0][2])
    for build, lowest, end, oldest in BUILDS:
        if min(capabilities) >= lowest and max(capabilities) < end and driver >= oldest:
            return build
    found = ", ".join(sorted({f"{major}.{minor}" for major, minor in capabilities}))
    raise ValueError(
        f"no build of torch has kernels for compute capability {found} and runs with driver "
        f"{driver}: update the driver, or name a build for some of the GPUs by --cuda"
    )


def print_build() -> int:
    """Print the build of torch that the GPUs of this machine need; an empty line if it has none."""
    command = ["nvidia-smi", "--query-gpu=compute_cap,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        table = done.stdout.strip() or done.stderr.strip()
    except OSError:
        table = "no nvidia-smi"
    try:
        build = choose_build(table)
    except ValueError as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return 1
    seen = "; ".join(dict.fromkeys(table.splitlines()))
    if build:
        print(f"{NAME}: GPUs and driver {seen}: torch is {build}'s build", file=sys.stderr)
    else:
        print(
            f"{NAME}: no GPU here ({seen}): torch is PyPI's, for CPUs and for GPUs from Turing on "
            "with driver 580; for others give utils/install.sh --cuda",
            file=sys.stderr,
        )
    print(build)
    return 0


def main(argv: list[str]) -> int:
    """Check, or list, the recipe's packages and those of the extras on the command line."""
    if sys.version_info < (3, 11):  # noqa: UP036 - any Python may be the one that is asked
        print(f"{NAME}: {sys.executable}: Python 3.11 is needed", file=sys.stderr)
        return 1
    if argv == ["--cuda"]:
        return print_build()
    extras = [word for word in argv if word not in ("--list", "--lock")]
    try:
        requirements = read_requirements(extras)
    except KeyError as error:
        print(f"{NAME}: {PROJECT.name} has no extra {error}", file=sys.stderr)
        return 2
    missing = []
    if len(extras) < len(argv):
        print("\n".join(read_locked(requirements) if "--lock" in argv else requirements))
    elif missing := find_missing(requirements):
        print(f"{NAME}: {sys.executable} lacks {', '.join(missing)}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
