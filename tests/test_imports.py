"""The import rules of docs/design.md, section 2: which package may know which other."""

import ast
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
from conftest import ROOT, environment

STDLIB = set(sys.stdlib_module_names)
# These import only the standard library.
ANYONE = {"sv.errors", "sv.files", "sv.config", "sv.system"}
# Package -> what it may import beside the standard library and ANYONE.
RULES = {
    "sv.errors": set(),
    "sv.files": set(),
    "sv.config": set(),
    "sv.system": set(),
    "sv.model_name": set(),
    "sv.energy": {"sv.energy", "numpy"},  # numpy after the metered command has ended
    "sv.report": {
        "sv.report", "sv.model_name", "sv.energy", "sv.score", "numpy", "scipy", "matplotlib",
    },
    "sv.jobs": {"sv.jobs", "sv.energy", "sv.score.record"},
    "sv.kaldi": {"sv.kaldi", "numpy", "scipy", "kaldiio", "pyarrow"},
    "sv.score": {"sv.score", "sv.kaldi", "numpy", "scipy", "kaldiio", "pyarrow"},
    "sv.nnet": {"sv.nnet", "sv.model_name", "torch"},
    "sv.data": {
        "sv.data", "sv.kaldi", "lhotse", "soundfile", "soxr", "av", "torch", "torchaudio", "numpy",
    },
    "sv.train": {
        "sv.train", "sv.nnet", "sv.data", "sv.kaldi", "sv.score", "sv.model_name",
        "sv.energy.units", "torch", "numpy", "kaldiio", "tomli_w", "onnxruntime",
    },
}  # fmt: skip
ONLY_IN = {
    "pyRAPL": "sv/energy/sensors/rapl.py", "pynvml": "sv/energy/sensors/nvml.py",
    "jinja2": "sv/report/page/*.py",
}  # fmt: skip
CORPORA = ("voxceleb1", "musan", "rirs_noises", "cnceleb", "commonbench", "an4", "mini_")


def imports(path):
    """Every module that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module


def allowed(module, names):
    return any(module == name or module.startswith(f"{name}.") for name in names)


@pytest.mark.parametrize("package", RULES)
def test_a_package_imports_only_what_it_may(package):
    base = ROOT / package.replace(".", "/")
    files = [base.with_suffix(".py")] if base.with_suffix(".py").exists() else base.rglob("*.py")
    wrong = []
    for path in files:
        relative = path.relative_to(ROOT).as_posix()
        for module in imports(path):
            top = module.split(".")[0]
            if top in ONLY_IN:
                ok = fnmatch(relative, ONLY_IN[top])
            else:
                ok = top in STDLIB or allowed(module, ANYONE | RULES[package])
            if not ok:
                wrong.append(f"{relative} imports {module}")
    assert not wrong


def test_nobody_imports_the_programs():
    for path in (ROOT / "sv").rglob("*.py"):
        if path.parent.name != "bin":
            assert not any(module.startswith("sv.bin") for module in imports(path)), path


def test_every_package_file_is_empty():
    assert all(path.stat().st_size == 0 for path in (ROOT / "sv").rglob("__init__.py"))


@pytest.mark.parametrize(
    "module",
    [
        "sv.bin.meter", "sv.report.results", "sv.bin.recipe", "sv.jobs.run", "sv.jobs.slurm",
        "sv.jobs.slurm_job", "sv.jobs.study",
    ],
)  # fmt: skip
def test_light_programs_do_not_pay_for_heavy_ones(module):
    heavy = "{'torch', 'numpy', 'lhotse', 'matplotlib', 'pyRAPL', 'pynvml'}"
    code = f"import sys, {module}; sys.exit(repr({heavy} & sys.modules.keys()) != 'set()')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), check=False)
    assert done.returncode == 0


def test_only_local_and_egs_name_a_corpus():
    """The steps know speech and the library knows neither corpus nor recipe."""
    for folder, pattern in (("steps", "*.sh"), ("utils", "*"), ("sv", "**/*.py")):
        for path in filter(Path.is_file, (ROOT / folder).glob(pattern)):
            code = [line.split("#")[0] for line in path.read_text().splitlines()]
            if path.suffix == ".py":
                code = [ast.unparse(strip_docstrings(ast.parse(path.read_text())))]
            text = "\n".join(code).lower()
            assert not [name for name in CORPORA if name in text], path


def strip_docstrings(tree):
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            body[0] = ast.Pass()
    return tree
