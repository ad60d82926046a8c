"""Which room imports which: docs/design.md, section 3, is the rule, and its table is exact."""

import ast
import re
import subprocess
import sys

import pytest
from conftest import ROOT, environment

STDLIB = set(sys.stdlib_module_names)
# These import only the standard library and each other, and every room may import them.
ANYONE = {"errors", "files", "config", "system"}
ONLY_IN = {
    "pyRAPL": "sv/energy/sensors/rapl.py", "pynvml": "sv/energy/sensors/nvml.py",
    "jinja2": "sv/report/page/page.py",
}  # fmt: skip
CORPORA = ("voxceleb1", "musan", "rirs_noises", "cnceleb", "commonbench", "an4", "mini_")


def read_rooms():
    """Return the table of docs/design.md: room -> the rooms, and the packages, that it imports."""
    text = (ROOT / "docs/design.md").read_text()
    table = text[text.index("## 3. Rooms") : text.index("## 4.")]
    rows = re.findall(r"^\| `(\w+)` \| .*? \| (.*?) \| (.*?) \|$", table, re.M)
    return {room: tuple(set(re.findall(r"\w+", cell)) for cell in cells) for room, *cells in rows}


def list_modules(path):
    """Yield every module that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module


def find_imports():
    """Return what the code imports, in the form of `read_rooms`."""
    found = {}
    for path in (ROOT / "sv").rglob("*.py"):
        parts = path.relative_to(ROOT / "sv").with_suffix("").parts
        rooms, packages = found.setdefault(parts[0], (set(), set()))
        for module in list_modules(path):
            top, *rest = module.split(".")
            if top in STDLIB:
                continue
            if top != "sv":
                packages.add(top)
            elif rest[0] != parts[0] and rest[0] not in ANYONE:
                rooms.add(rest[0])
    del found["__init__"]
    return found


def test_the_rooms_import_what_the_design_says():
    assert read_rooms() == {
        room: imports for room, imports in find_imports().items() if room not in ANYONE
    }


def test_what_every_room_may_import_needs_no_package():
    found = find_imports()
    assert {room: found[room] for room in ANYONE} == dict.fromkeys(ANYONE, (set(), set()))


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_package_is_imported_in_one_file_alone(package):
    paths = [p for p in (ROOT / "sv").rglob("*.py") if package in set(list_modules(p))]
    assert [p.relative_to(ROOT).as_posix() for p in paths] == [ONLY_IN[package]]


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
        for path in filter(lambda p: p.is_file(), (ROOT / folder).glob(pattern)):
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
