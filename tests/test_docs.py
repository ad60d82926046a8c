"""The documents say what is true: links lead somewhere, commands and options exist."""

import re
import subprocess

import pytest
from conftest import ROOT, environment

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *ROOT.glob("egs/*/*.md")]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
        if not re.match(r"[a-z]+:", target):
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_nothing_is_left_to_fill_in(path):
    assert not re.search(r"@@|TODO|TBD|XXX", path.read_text())


def test_the_commands_of_the_documents_exist():
    options = subprocess.run(
        ["./run.sh", "--help"], cwd=ROOT, env=environment(), capture_output=True, text=True,
        check=True,
    ).stdout  # fmt: skip
    for path in DOCUMENTS:
        for line in re.findall(r"^ {0,4}(?:\$ )?((?:\./run\.sh|tests/|steps/|utils/).*)$",
                               path.read_text(), re.M):  # fmt: skip
            script, *words = line.split("#")[0].split()
            if (ROOT / script).suffix in (".sh", ".py"):
                assert (ROOT / script).is_file(), f"{path.name}: {line}"
            if script == "./run.sh":
                for word in (w for w in words if w.startswith("--")):
                    assert f"--{word[2:].replace('_', '-')} " in options, f"{path.name}: {line}"


def test_files_that_the_design_names_exist():
    text = (ROOT / "docs" / "design.md").read_text()
    layout = text[text.index("## 2.") : text.index("## 3.")]
    for name in re.findall(r"\b(?:[a-z_]+/)*[a-z_0-9-]+\.(?:sh|py|toml|md|txt)\b", layout):
        base = name.split("/")[-1]
        found = list(ROOT.glob(f"{name}")) or [
            p for p in ROOT.glob(f"**/{base}") if ".venv" not in p.parts
        ]
        assert found, name
