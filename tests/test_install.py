"""utils/install.sh with a made-up nvidia-smi and a pip that installs nothing; what it mends."""

import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, environment

INDEX = "https://download.pytorch.org/whl"
# The .venv's Python: a pip that keeps its words, and fails for an index; else a real Python.
PYTHON = """\
#!/bin/sh
case "$*" in
  "-m pip freeze") echo torch==2.13.0+cpu; echo kaldiio==2.18.1 ;;
  "-m pip "*)
    echo "$*" >>{root}/pip.words
    case "$*" in *{fails}*) echo "ERROR: no route to host"; exit 1 ;; esac ;;
  utils/mend_torchaudio.py) ;;
  *) exec {python} "$@" ;;
esac
"""


@pytest.fixture
def install(tmp_path):
    """Run a copy of install.sh on a machine whose nvidia-smi says this; give what pip was told."""

    def run(*options, smi=None, fails="nothing", status=0):
        for name in ("install.sh", "parse_options.sh", "check_environment.py"):
            (tmp_path / "utils").mkdir(exist_ok=True)
            shutil.copy(ROOT / "utils" / name, tmp_path / "utils" / name)
        for name in ("pyproject.toml", "requirements.lock"):
            shutil.copy(ROOT / name, tmp_path)
        (tmp_path / ".venv/bin").mkdir(parents=True, exist_ok=True)
        (tmp_path / "bin").mkdir(exist_ok=True)
        text = PYTHON.format(root=tmp_path, python=sys.executable, fails=fails)
        scripts = {".venv/bin/python": text, ".venv/bin/pip": "#!/bin/sh\n"}
        if smi is not None:
            scripts["bin/nvidia-smi"] = f"#!/bin/sh\ncat <<E\n{smi}\nE\n"
        for name, content in scripts.items():
            (tmp_path / name).write_text(content)
            (tmp_path / name).chmod(0o755)
        env = environment()
        env["PATH"] = f"{tmp_path / 'bin'}:{env['PATH']}"
        words = tmp_path / "pip.words"
        words.unlink(missing_ok=True)
        done = subprocess.run(
            ["utils/install.sh", "--python", sys.executable, *options], cwd=tmp_path, env=env,
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == status, done.stderr
        return words.read_text().splitlines() if words.exists() else [], done.stderr

    return run


def find_build(calls):
    """Give the build of torch that pip was told to install, and from where."""
    first = calls[0].split()
    if "--index-url" not in first:
        return None
    index, torch = first[first.index("--index-url") + 1], first[-1]
    build = torch.partition("+")[2]
    assert index == f"{INDEX}/{build}" and torch.startswith("torch==") and "--no-deps" in first
    return build


@pytest.mark.parametrize(
    ("smi", "build"),
    [
        ("7.0, 535.104.05\n7.0, 535.104.05", "cu126"),  # V100
        ("7.0, 580.65.06", "cu126"),  # V100, new driver
        ("8.0, 550.54.15", "cu126"),  # A100, old driver
        ("6.1, 580.65.06\n8.6, 580.65.06", "cu126"),  # boards of two kinds
        ("9.0, 580.65.06", "pypi"),
        ("7.5, 590.10", "pypi"),
        ("12.0, 580.65.06", "pypi"),
    ],
)
def test_a_machine_gets_the_build_that_its_gpus_need(install, smi, build):
    calls, said = install(smi=smi)
    if build == "pypi":  # an earlier build for CPUs does not stay
        assert calls[0] == "-m pip uninstall --yes torch"
    else:
        assert find_build(calls) == build
    assert "--no-deps --require-hashes -r .venv/requirements.txt" in calls[-2]
    assert [word.partition("==")[0] for word in calls[-1].split()[-2:]] == ["torch", "torchaudio"]
    assert "+" not in calls[-1]
    assert smi.splitlines()[0] in said and build in said


@pytest.mark.parametrize("smi", [None, "No devices were found", ""])
def test_without_a_gpu_torch_is_that_of_pypi(install, smi):
    calls, said = install(smi=smi)
    assert len(calls) == 2 and find_build(calls) is None
    assert "no GPU here" in said and "--cuda" in said


@pytest.mark.parametrize(
    "smi", ["3.7, 580.65.06", "10.0, 550.54", "7.0, 470.82", "7.0, 580\n12.0, 580"]
)
def test_gpus_that_no_build_serves_are_refused(install, smi):
    calls, said = install(smi=smi, status=1)
    assert calls == [] and smi.split(",")[0] in said and said.count("\n") == 1
    calls, _ = install("--cuda", "cpu", smi=smi)  # whoever names a build gets it
    assert find_build(calls) == "cpu"


@pytest.mark.parametrize("build", ["cu126", "cu130", "cpu"])
def test_a_build_that_is_named_is_not_looked_for(install, build):
    assert find_build(install("--cuda", build, smi="9.0, 580.65.06")[0]) == build


def test_an_index_out_of_reach_is_one_line_that_names_it(install):
    calls, said = install("--cuda", "cu126", fails="whl/cu126", status=1)
    line = said.splitlines()[-1]
    assert len(calls) == 1 and f"{INDEX}/cu126" in line and "--index URL" in line
    calls, _ = install("--cuda", "cu126", "--index", "https://mirror/whl", fails="pytorch.org")
    assert "https://mirror/whl/cu126" in calls[0]
    assert "--cuda is auto, cu126" in install("--cuda", "cu128", status=2)[1]


def write_package(folder, name, version, text=""):
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(text)
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.mark.parametrize(("version", "status"), [("2.4.1", 1), ("2.5.0", 0), ("2.14.0+cu132", 0)])
def test_a_torch_that_is_too_old_is_refused_by_its_version(tmp_path, version, status):
    write_package(tmp_path, "torch", version)
    done = subprocess.run(
        [sys.executable, "utils/check_environment.py"], cwd=ROOT, capture_output=True, text=True,
        env=environment(PYTHONPATH=str(tmp_path)), check=False,
    )  # fmt: skip
    assert done.returncode == status
    assert ("torch 2.5 or later (has 2.4.1)" in done.stderr) == bool(status)


@pytest.mark.parametrize("cuda", ["'12.6'", "None"])
@pytest.mark.parametrize("fault", ["extension", "other"])
def test_an_extension_that_cannot_be_loaded_is_set_aside(tmp_path, cuda, fault):
    """For whatever build of torch; where it is not the fault it is put back."""
    write_package(tmp_path, "torch", "2.13.0", f"class version: cuda = {cuda}\n")
    fails = "from pathlib import Path\n"
    if fault == "extension":
        fails += "if list((Path(__file__).parent / 'lib').glob('_torchaudio*.so')):\n    "
    fails += "raise OSError('libcudart.so.13: cannot open shared object file')\n"
    write_package(tmp_path, "torchaudio", "2.11.0", fails)
    lib = tmp_path / "torchaudio" / "lib"
    lib.mkdir()
    names = ["_torchaudio.abi3.so", "libtorchaudio.so", "other.so"]
    for name in names:
        (lib / name).touch()
    done = subprocess.run(
        [sys.executable, "utils/mend_torchaudio.py"], cwd=ROOT, capture_output=True, text=True,
        env=environment(PYTHONPATH=str(tmp_path)), check=False,
    )  # fmt: skip
    there = sorted(path.name for path in lib.glob("*.so"))
    if fault == "extension":
        assert done.returncode == 0 and there == ["other.so"], done.stderr
    else:
        assert done.returncode == 1 and there == sorted(names) and "libcudart" in done.stderr
