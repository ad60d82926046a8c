"""Each Python that the README promises, where one is here: its syntax, and what needs no package.

Looked for on the PATH and where pyenv and uv keep theirs; nothing is downloaded. The whole suite
runs on another one after utils/install.sh --python python3.13.
"""

import glob
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, call

VERSIONS = ("3.11", "3.12", "3.13")
OTHERS = [version for version in VERSIONS if version != "{}.{}".format(*sys.version_info)]
KEPT = ("~/.pyenv/versions/{0}.*/bin/python", "~/.local/share/uv/python/cpython-{0}.*/bin/python3")
COMPILE = """
import pathlib, sys
for name in sys.argv[1:]:
    compile(pathlib.Path(name).read_text(encoding="utf-8"), name, "exec")
"""
SMOKE = {
    "meter": ("-m", "sv.bin.meter", "--dir", "{tmp}", "--name", "x", "sleep", "0.05"),
    "sidecar": ("-m", "sv.bin.meter", "--check", "{tmp}/99_x.json"),
    "jobs": ("utils/run.py", "JOB=1:2", "{tmp}/x.JOB.log", "echo JOB | cat"),
    "settings": ("-m", "sv.bin.recipe", "settings", "egs/mini/conf"),
    "names": ("-m", "sv.bin.model_info", "--cost", "false", "resnet50_d_2822"),
    "packages": ("utils/check_environment.py", "--lock", "tests"),
}


def find_python(version):
    """Find a Python of a version that starts; a shim of pyenv may have none behind it."""
    places = [shutil.which(f"python{version}")]
    for pattern in KEPT:
        places += sorted(glob.glob(os.path.expanduser(pattern.format(version))))
    for place in filter(None, places):
        words = [place, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.stdout == f"{version}\n":
            return place
    return None


@pytest.mark.parametrize("version", OTHERS)
def test_a_python_of_the_readme_runs_what_needs_no_package(version, tmp_path):
    python = find_python(version)
    if python is None:
        pytest.skip(f"no Python {version} on the PATH, of pyenv or of uv")
    tracked = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    done = call([python, "-W", "error", "-c", COMPILE, *tracked], timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    for name, words in SMOKE.items():
        done = call([python, *(word.format(tmp=tmp_path) for word in words)], timeout=60)
        assert done.returncode == 0, f"{name}: {done.stderr}"
    assert (tmp_path / "x.2.log").read_text().splitlines()[4] == "2"


def test_the_pythons_of_readme_installer_and_lock_are_the_same():
    readme = (ROOT / "README.md").read_text()
    assert re.search(r"with Python ([\d., or]+),", readme)[1] == "3.11, 3.12 or 3.13"
    assert "3.11 to 3.13" in (ROOT / "utils" / "install.sh").read_text()
    lock = (ROOT / "requirements.lock").read_text()
    markers = re.findall(r"^[a-z0-9][^ ]*==[^ ]+ ;(.*) \\$", lock, re.M)
    assert markers and all("python_full_version" in marker for marker in markers)
