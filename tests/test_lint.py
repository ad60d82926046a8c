"""Lint: ruff, ruff format, shellcheck, and what STYLE asks of every file."""

import re
import subprocess

import pytest
from conftest import ROOT, environment

TRACKED = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
    cwd=ROOT, capture_output=True, text=True, check=True,
).stdout.split()  # fmt: skip
SCRIPTS = [
    name
    for name in TRACKED
    if not (ROOT / name).is_symlink() and (ROOT / name).is_file()
    and (ROOT / name).read_bytes()[:30].startswith(b"#!/usr/bin/env bash")
]  # fmt: skip


@pytest.mark.parametrize("argv", [["ruff", "check"], ["ruff", "format", "--check"]])
def test_ruff(argv):
    done = subprocess.run(
        [*argv, "."], cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_shellcheck():
    done = subprocess.run(
        ["shellcheck", "-x", "-P", "SCRIPTDIR:.", *SCRIPTS],
        cwd=ROOT, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", SCRIPTS)
def test_shell_scripts_are_strict(name):
    text = (ROOT / name).read_text()
    sourced = name in ("path.sh", "utils/parse_options.sh", "steps/compute_environment.sh")
    assert sourced or "\nset -euo pipefail\n" in text
    assert "`" not in re.sub(r"#.*", "", text) and not re.search(r"^\s*eval ", text, re.M)


def test_no_file_names_a_machine():
    pattern = re.compile(r"(?<![\w.$}])/(work|home|root)/")
    for name in TRACKED:
        path = ROOT / name
        if path.suffix in (".py", ".sh", ".md", ".toml") and path.is_file():
            assert not pattern.search(path.read_text()), name
