"""The page of stage 8, read as text: what is in it, and that it needs nothing else."""

import json
import os
import re
import shutil
from urllib.parse import unquote, urlsplit

import pytest
from page_reader import KWH, SYSTEMS, Page, make_page, read_rows
from report_tree import ESTIMATED, METER, build_tree, write_model, write_scores, write_sidecar
from study_exp import build_study

HOSTILE = "</script><script>alert('x')</script><img src=https://example.org/a onerror=alert(1)>"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Five systems of the study beside its published figures."""
    return make_page(*build_study(tmp_path_factory.mktemp("study"), SYSTEMS))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Systems that were measured, partly estimated, estimated and not known at all."""
    tree = build_tree(tmp_path_factory.mktemp("mixed"))
    return make_page(*tree, "energy_accuracy_vox1_o", "energy_stages")


@pytest.mark.parametrize("which", ["study", "mixed"])
def test_the_page_is_whole_and_needs_nothing_else(which, request):
    path = request.getfixturevalue(which)
    page = Page(path)
    check(page, path.parent)
    css = page.text.split("<style>")[1].split("</style>")[0]
    assert "url(" not in css and "@import" not in css
    own = page.text.split("<script>")[1]
    assert not re.search(r"fetch\(|XMLHttpRequest|https?://", own)


def check(page, folder):
    """Assert that a page is well-formed and that each of its links leads to what is there."""
    assert page.wrong == []
    assert len(page.ids) == len(set(page.ids))
    for link in page.links:
        parts = urlsplit(link)
        assert parts.scheme in ("", "data") and not parts.netloc, link
        if link.startswith("#"):
            assert link[1:] in page.ids, link
        elif not parts.scheme:
            assert (folder / unquote(link)).is_file(), link


def test_each_figure_in_kwh_leads_to_its_sidecar(study):
    page = Page(study)
    for name, kwh in KWH.items():
        key = "energy-" + name.replace("_", "-") + "-05-train"
        text = page.read(key)
        assert f"../{name}/energy/05_train.json" in text
        shown = next(row for row in read_rows(study, "table1") if row[0]["text"] == name)
        linked = [cell for cell in shown if cell["link"] == f"#{key}"]
        assert len(linked) == 2  # energy and CO2
        assert float(linked[0]["sort"]) == kwh
        assert f"steps/train_xvector.sh --model {name}" in text and "c" * 40 in text
        for words in ("measured", "nvml.board.GPU-1", "rapl.package.0", "counter delta",
                      "44.18 g/kWh, owid, zone FRA, 2024", "cpu_package + gpu_board", "node1",
                      "exclusive", "1 (none: the machines alone)"):  # fmt: skip
            assert words in text, words
    extraction = {cell["link"] for row in read_rows(study, "table2") for cell in row}
    assert "#energy-resnet200-d-06-extract-commonbench-fp16" in extraction
    cells = [cell for row in read_rows(study, "table2") for cell in row]
    joules = {cell["link"] for cell in cells if cell["text"] in ("226.9", "0.334")}
    assert joules == {"#energy-resnet200-d-06-extract-commonbench"}
    # Published figures stand in other tables and have no sidecar of ours.
    for name in ("against1", "against2"):
        linked = [cell for row in read_rows(study, name) for cell in row if cell["link"]]
        assert linked, name
    row = next(row for row in read_rows(study, "against1") if row[0]["text"] == "resnet50_d")
    figures = [cell["link"] for cell in row if cell["text"] in ("51.69", "0.982")]
    assert figures == ["#energy-resnet50-d-05-train", None] * 2  # ours, the study's


def test_an_estimate_is_called_one_wherever_it_is_shown(mixed):
    page = Page(mixed)
    rows = {row[0]["text"]: row for row in read_rows(mixed, "table1")}
    energies = {name: row[5] for name, row in rows.items()}
    assert 'title="estimated"' in energies["resnet18_w0.125"]["html"]
    assert 'title="partly estimated"' in energies["resnet50_d_2822"]["html"]
    assert "abbr" not in energies["resnet50_d"]["html"]
    assert energies["resnet34_d"]["text"] == "-" and energies["resnet34_d"]["sort"] == ""
    assert "no channel has an energy" in energies["resnet34_d"]["title"]
    assert "no channel has an energy" in page.read("table1")
    estimated = [text for text in page.titles if "resnet18_w0.125" in text]
    assert len(estimated) >= 3 and all("estimated" in text for text in estimated)
    (point,) = (text for text in page.titles if text.startswith("resnet50_d_2822\nEER 0.83 %"))
    assert point.endswith("52.06 kWh, partly estimated (25.0 %)")
    for key in ("energy-resnet18-w0-125-05-train", "energy-resnet18-w0-125-06-extract-voxceleb1"):
        assert "estimated" in page.read(key) and "cpu_time" in page.read(key)
    assert "not known" in page.read("energy-resnet34-d-05-train")


def test_advice_and_what_is_withheld(study, mixed):
    assert "knee" in Page(study).read("advice")
    assert "There is no advice" in Page(mixed).read("advice")
    assert "No advice on the following" in Page(mixed).read("advice")
    text = study.read_text(encoding="utf-8")
    head = text.split("<header", 1)[1].split("</header>")[0]
    answer = "resnet200_d has the lowest average EER of 5 systems over 5 trial lists: 3.45\u00a0%"
    lead = text.split('id="advice"', 1)[1].split("</section>")[0]
    assert answer in lead and "222.5\u00a0kWh of training, measured" in lead
    assert "2025-01-01" in head and "code cccccccccc" in head and "node1" in head


def test_hostile_names_and_reasons_are_only_text(tmp_path):
    data, exp = build_tree(tmp_path)
    name = "x<img src=q onerror=alert(2)>'\"&"
    write_model(exp, name, 1000)
    write_scores(exp, name, "vox1_o", "voxceleb1", 1.0)
    energy = exp / name / "energy"
    hurt = {**ESTIMATED, "source": HOSTILE, "reason": HOSTILE}
    attempt = {"argv": ["echo", HOSTILE], "git": {"commit": HOSTILE}, "host": HOSTILE}
    lost = {**METER, "label": "train.1", "host": "node7", "status": "missing", "counted_s": 0,
            "reason": "never began"}  # fmt: skip
    write_sidecar(energy / "05_train.json", 1.0, hurt, fraction=0.0, reason=HOSTILE,
                  attempts=[{**attempt, "meters": [METER, lost]}])  # fmt: skip
    write_sidecar(energy / "06_extract_voxceleb1.json", None, hurt, reason=HOSTILE)
    page = Page(make_page(data, exp, "energy_accuracy_vox1_o", "energy_stages"))
    assert page.wrong == []
    assert "img" not in [tag for tag, _ in page.tags]
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not [key for _, found in page.tags for key in found if key.startswith("on")]
    assert HOSTILE in page.texts["provenance"]
    assert "train.1 node7 missing - 00:00:00.0 never began" in page.read("provenance")
    assert sum(text.startswith(name) for text in page.titles) >= 3


def test_the_same_results_give_the_same_bytes(tmp_path):
    data, exp = build_study(tmp_path, SYSTEMS[:2])
    first = make_page(data, exp, "energy_gmac", PYTHONHASHSEED="1").read_bytes()
    os.utime(exp / "resnet50_d" / "energy" / "05_train.json", (1, 1))
    assert make_page(data, exp, "energy_gmac", PYTHONHASHSEED="2").read_bytes() == first


def test_a_real_run_by_the_real_program(tiny, tmp_path, run_cli):
    for name in ("data/energy", "exp"):
        shutil.copytree(
            tiny.root / name, tmp_path / name,
            ignore=shutil.ignore_patterns("*.ark", "*.pt", "tensorboard", "results"),
        )  # fmt: skip
    shutil.copy(tiny.data / "test_trials", tmp_path / "data" / "test_trials")
    path = tmp_path / "exp" / "results" / "index.html"
    run_cli("sv.bin.make_results", tmp_path / "data", tmp_path / "exp")
    assert f"{path}\n" in (path.parent / "contents.txt").read_text()
    page = Page(path)
    check(page, path.parent)
    assert "energy_accuracy.pdf" in page.links and "table1.csv" in page.links
    sidecars = sorted(tmp_path.glob("*/**/energy/[0-9][0-9]_*.json"))
    assert len(sidecars) == sum(tag == "details" and found.get("class") == "sidecar"
                                for tag, found in page.tags) > 8  # fmt: skip
    for sidecar in sidecars:
        record = json.loads(sidecar.read_text())
        owner = record["model"] or "shared"
        key = re.sub("[^a-z0-9]+", "-", f"energy-{owner}-{sidecar.stem}".lower())
        text = page.read(key)
        attempt = record["attempts"][-1]
        assert attempt["argv"][0] in text and attempt["git"]["commit"] in text
        assert attempt["started_utc"] in text
        for channel in record["channels"]:
            assert channel["id"] in text and channel["kind"] in text
            assert " ".join((channel["reason"] or channel["source"]).split()) in text
    key = f"energy-{re.sub('[^a-z0-9]+', '-', tiny.model)}-05-train"
    assert "learning_energy" in page.ids and "training" in page.read(key)
