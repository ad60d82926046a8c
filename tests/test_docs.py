"""The documents say what is true: links lead somewhere, commands and options exist."""

import dataclasses
import errno
import json
import os
import re
import subprocess

import pytest
from conftest import ROOT, environment

from sv.energy.record import Channel, Crosscheck, Sidecar
from sv.model_name import check_model_name

PARTS = {"": Sidecar, "channels": Channel, "crosschecks": Crosscheck}

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


def test_the_programs_of_the_documents_exist_with_their_options():
    for path in DOCUMENTS:
        for line in re.findall(r"^ {4,}python3 -m ((?:sv|local)\..*)$", path.read_text(), re.M):
            module, *words = line.split(" -- ")[0].split("#")[0].split()
            program = ROOT / f"{module.replace('.', '/')}.py"
            assert program.is_file(), f"{path.name}: {line}"
            for word in (w for w in words if w.startswith("--")):
                assert f'"{word}"' in program.read_text(), f"{path.name}: {line}"


def test_the_model_names_of_the_documents_are_spelt_as_they_must_be():
    for path in DOCUMENTS:
        for name in re.findall(r"--model (resnet\d+_[\w.]*\w)", path.read_text()):
            check_model_name(name)


def test_files_that_the_design_names_exist():
    text = (ROOT / "docs" / "design.md").read_text()
    layout = text[text.index("## 2.") : text.index("## 3.")]
    for name in re.findall(r"\b(?:[a-z_]+/)*[a-z_0-9-]+\.(?:sh|py|toml|md|txt)\b", layout):
        base = name.split("/")[-1]
        found = list(ROOT.glob(f"{name}")) or [
            p for p in ROOT.glob(f"**/{base}") if ".venv" not in p.parts
        ]
        assert found, name


def read_shown_sidecar(name):
    text = (ROOT / "docs" / name).read_text()
    return json.loads(re.sub(r" +//.*", "", text.split("```jsonc\n")[1].split("```")[0]))


def test_the_sidecar_of_the_first_hour_is_one_and_its_figures_agree():
    shown = read_shown_sidecar("first-hour.md")
    assert set(shown) <= {f.name for f in dataclasses.fields(Sidecar)}
    assert set().union(*shown["channels"]) <= {f.name for f in dataclasses.fields(Channel)}
    total_j = sum(c["energy_j"] for c in shown["channels"] if c["in_total"])
    assert shown["energy_kwh"] == pytest.approx(total_j / 3.6e6, rel=1e-3)
    assert shown["co2_g"] == pytest.approx(shown["energy_kwh"] * 44.179, rel=1e-3)


def test_the_messages_of_the_first_hour_are_printed_somewhere():
    text = (ROOT / "docs" / "first-hour.md").read_text()
    rows = re.findall(r"^\| (`.*?) \| ", text[text.index("| message |") :], re.M)
    sources = [ROOT / "run.sh"]
    for folder in ("sv", "local", "steps", "utils"):
        sources += [p for p in (ROOT / folder).rglob("*") if p.suffix in (".py", ".sh")]
    # Strings that are cut in two by the length of a line are joined.
    code = "\n".join(re.sub(r'"\n\s*f?"', "", p.read_text()) for p in sources)
    known = (os.strerror(errno.ENOSPC),)
    fragments = [fragment for row in rows for fragment in re.findall("`(.*?)`", row)]
    assert len(rows) > 10
    assert not [f for f in fragments if f not in code and f not in known]


def test_the_model_names_and_settings_of_the_corpus_page_exist():
    text = (ROOT / "docs" / "adding-a-corpus.md").read_text()
    table = text[text.index("| file | key |") :].split("\n\n")[0]
    conf = "".join(p.read_text() for p in (ROOT / "egs" / "voxceleb" / "conf").glob("*.toml"))
    keys = [k for row in table.splitlines() for k in re.findall("`([a-z_]+)`", row)]
    assert len(keys) > 10 and not [k for k in keys if f"{k} = " not in conf]


def test_the_sidecar_of_the_energy_page_is_one_and_its_figures_agree():
    shown = read_shown_sidecar("energy.md")
    fields = {name: {f.name for f in dataclasses.fields(cls)} for name, cls in PARTS.items()}
    assert set(shown) <= fields[""]
    for name in ("channels", "crosschecks"):
        assert set().union(*shown[name]) <= fields[name]
    assert all({"first", "last", "unit"} == set(c["raw"]) for c in shown["channels"] if "raw" in c)
    counted = {c["kind"]: 0.0 for c in shown["channels"]}
    for channel in (c for c in shown["channels"] if c["in_total"]):
        counted[channel["kind"]] += channel["energy_j"]
    total_j = sum(counted.values())
    assert shown["energy_kwh"] == pytest.approx(total_j / 3.6e6, abs=5e-5)
    assert shown["measured_fraction"] == pytest.approx(counted["measured"] / total_j, abs=5e-4)
    raw = shown["channels"][0]["raw"]
    assert shown["channels"][0]["energy_j"] == (raw["last"] - raw["first"]) / 1000


def test_the_links_within_the_energy_page_lead_to_headings():
    """And its index has every section of the reference."""
    text = (ROOT / "docs" / "energy.md").read_text()
    levels: dict[str, set[str]] = {"#": set(), "##": set(), "###": set()}
    for level, head in re.findall(r"^(#+) (.*)$", text, re.M):
        levels[level].add(re.sub(r"[^a-z0-9 -]", "", head.lower()).replace(" ", "-"))
    links = set(re.findall(r"\]\(#([^)]+)\)", text))
    assert links and links <= set.union(*levels.values())
    assert len(levels["#"]) == 1 and levels["###"] <= links
